"""The contract that every target keeps, checked on one table of cases."""

import copy
import inspect
import pkgutil
from importlib import import_module

import pytest
import torch
from problems_targets import CASES, constrained, cox_process, external, motion, points, regression

import sbflow.target
from sbflow.target import LGCP, Brownian, Ionosphere, Sonar, Target

# tested in files of their own, where the package is there
NEED_A_PACKAGE = {"JaxTarget", "NumPyroTarget", "PyMCTarget", "BridgeStanTarget"}


def classes_of_the_package() -> set[type]:
    modules = [import_module(f"sbflow.target.{m.name}") for m in pkgutil.iter_modules(sbflow.target.__path__)]
    found = [value for module in modules for value in vars(module).values() if inspect.isclass(value)]
    return {cls for cls in found if issubclass(cls, Target) and cls.__module__.startswith("sbflow.target.")}


def test_every_target_of_the_package_is_exported_and_in_the_table() -> None:
    made = {type(case.values[0]()) for case in CASES if not case.marks} | {Sonar, Ionosphere, Brownian, LGCP}
    expected = {cls for cls in classes_of_the_package() if cls.__name__ not in NEED_A_PACKAGE} - {Target}
    assert made == expected
    assert {cls.__name__ for cls in classes_of_the_package()} <= set(sbflow.target.__all__)


@pytest.mark.parametrize("make", CASES)
def test_score_is_the_gradient_of_log_prob(make) -> None:
    target = make().double()
    x = (2 * points(target)).requires_grad_()
    log_prob = target.log_prob(x)
    (gradient,) = torch.autograd.grad(log_prob.sum(), x)
    fused_log_prob, fused_score = target.log_prob_and_score(x.detach())
    torch.testing.assert_close(fused_log_prob, log_prob.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused_score, gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(target.score(x.detach()), fused_score, rtol=0, atol=0)


@pytest.mark.parametrize("make", CASES)
def test_score_is_the_slope_of_log_prob(make) -> None:
    target = make().double()
    x = points(target)
    step = 1e-5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slope = target.log_prob(x + step) - target.log_prob(x - step)
    expected = 2 * (target.score(x) * step).sum(1)
    # the third derivative and the rounding of log γ
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-12 * (1 + target.log_prob(x).abs().max().item()))


@pytest.mark.parametrize("make", CASES)
def test_score_is_differentiable_as_the_laplace_approximation_needs(make) -> None:
    target = make().double()
    x, step = points(target)[0], 1e-5 * points(target)[1]
    hessian = torch.func.jacrev(lambda point: target.score(point[None])[0])(x)
    above, below = target.score(torch.stack([x + step, x - step]))
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(above - below, 2 * hessian @ step, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("constants", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_shape_and_dtype_of_the_points(make, constants, dtype) -> None:
    target = make().to(constants)
    x = points(target, dtype)
    log_prob, score = target.log_prob_and_score(x)
    assert target.log_prob(x).shape == log_prob.shape == (7,)
    assert score.shape == x.shape
    assert target.log_prob(x).dtype == log_prob.dtype == score.dtype == dtype


@pytest.mark.parametrize("make", CASES)
def test_an_empty_batch_has_an_empty_result(make) -> None:
    target = make()
    log_prob, score = target.log_prob_and_score(points(target, torch.float32)[:0])
    assert log_prob.shape == target.log_prob(score).shape == (0,)
    assert score.shape == (0, target.dim)


@pytest.mark.parametrize("make", CASES)
def test_float32_agrees_with_float64_to_rounding(make) -> None:
    target = make().double()
    x = points(target)
    single = copy.deepcopy(target).float()
    exact, rounded = target.log_prob(x), single.log_prob(x.float()).double()
    torch.testing.assert_close(rounded, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", CASES)
def test_points_are_evaluated_independently_of_their_batch(make) -> None:
    target = make().double()
    x = points(target)
    alone = torch.cat([target.log_prob(row[None]) for row in x])
    torch.testing.assert_close(target.log_prob(x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", CASES)
def test_a_batch_axis_can_be_mapped_over(make) -> None:
    target = make().double()
    x = points(target)[:6].reshape(2, 3, target.dim)
    log_prob, score = torch.vmap(target.log_prob_and_score)(x)
    torch.testing.assert_close(log_prob.flatten(), target.log_prob(x.flatten(0, 1)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(score.flatten(0, 1), target.score(x.flatten(0, 1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", CASES)
def test_a_copy_is_the_same_density_and_moves_apart(make) -> None:
    target = make().double()
    x = points(target)
    twin = copy.deepcopy(target)
    assert torch.equal(twin.log_prob(x), target.log_prob(x))
    twin.float()
    assert all(buffer.dtype != torch.float32 for buffer in target.buffers())


@pytest.mark.parametrize("make", CASES)
def test_constants_stay_out_of_checkpoints(make) -> None:
    assert make().state_dict() == {}


@pytest.mark.parametrize("make", CASES)
def test_parameters_by_name_hold_the_constrained_point_in_order(make) -> None:
    target = make().double()
    x = points(target)
    named = torch.cat([value.reshape(7, -1) for value in target.parameters_by_name(x).values()], dim=1)
    torch.testing.assert_close(named, target.constrain(x), rtol=0, atol=0)


@pytest.mark.parametrize("make", [regression, motion, cox_process, constrained, external])
def test_a_target_without_exact_sampler_says_so(make) -> None:
    with pytest.raises(NotImplementedError, match="has no exact sampler"):
        make().sample(3)
