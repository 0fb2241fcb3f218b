import copy
import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from sbflow.target import CallableTarget, CountingTarget, Funnel, GaussianTarget, Mixture2D
from sbflow.whitening import Laplace


def parabola(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(1)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda x: x, r"\[4, 2\]"),
        (lambda x: x.sum(1)[:-1], r"\[3\]"),
        (lambda x: 0.0, "float"),
        (lambda x: np.zeros(len(x)), "ndarray"),
        (lambda x: None, "NoneType"),
        (lambda x: x @ torch.ones(5), "RuntimeError: "),
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_callable_that_is_no_density_is_told_what_was_expected_and_got(function, got) -> None:
    message = rf"log_prob must return a tensor of shape \[4\] for points of shape \[4, 2\], got {got}"
    with pytest.raises(ValueError, match=message) as caught:
        CallableTarget(function, dim=2).log_prob(torch.zeros(4, 2))
    assert "\n" not in str(caught.value)


def test_the_exception_of_a_users_density_survives_as_the_cause() -> None:
    def log_prob(x: Tensor) -> Tensor:
        raise KeyError("no such column")

    with pytest.raises(ValueError, match="no such column") as caught:
        CallableTarget(log_prob, dim=2).log_prob(torch.zeros(4, 2))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_shape_that_goes_wrong_later_is_told_too() -> None:
    target = CallableTarget(lambda x: x.sum(1)[:5], dim=2)
    target.log_prob(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"shape \[6\] for points of shape \[6, 2\], got \[5\]"):
        target.log_prob(torch.zeros(6, 2))


def test_bad_arguments_of_a_callable_target_are_named() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        CallableTarget(parabola, dim=0)


@pytest.mark.usefixtures("unchecked_types")
def test_arguments_of_the_wrong_kind_are_named() -> None:
    with pytest.raises(ValueError, match="log_prob must be callable or the dotted name of a function, got 3"):
        CallableTarget(3, dim=2)
    with pytest.raises(ValueError, match=r"dtype must be a torch\.dtype or None, got 'double'"):
        CallableTarget(parabola, dim=2, dtype="double")


WEIGHTS = torch.tensor([1.0, 3.0, 0.5])
POINT_BY_POINT = {
    "norm of a vector": (lambda x: -x.norm(), lambda x: -x.norm(dim=1)),
    "indexed entries": (lambda x: -(x[0] ** 2) - x[1] * x[2], lambda x: -(x[:, 0] ** 2) - x[:, 1] * x[:, 2]),
    "bilinear form": (lambda x: x @ torch.diag(WEIGHTS).to(x) @ x, lambda x: x.square() @ WEIGHTS.to(x)),
    "one number with an axis": (lambda x: x.sum().reshape(1), lambda x: x.sum(1)),
    "reduction of the first axis": (lambda x: (x * WEIGHTS.to(x)).sum(0), lambda x: x @ WEIGHTS.to(x)),
}


@pytest.mark.parametrize("name", POINT_BY_POINT)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_function_of_one_point_is_recognised_and_vectorised(name, n) -> None:
    function, batched = POINT_BY_POINT[name]
    x = torch.randn(n, 3, dtype=torch.float64)
    target = CallableTarget(function, dim=3)
    torch.testing.assert_close(target.log_prob(x), batched(x))
    torch.testing.assert_close(target.score(x), CallableTarget(batched, dim=3).score(x))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_batch_function_is_called_with_the_batch(dim) -> None:
    shapes = []

    def log_prob(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return parabola(x)

    target = CallableTarget(log_prob, dim)
    target.log_prob(torch.zeros(7, dim))
    target.log_prob(torch.zeros(7, dim))
    # the first evaluation tries two small batches, and the gradient
    assert shapes == [(2, dim), (3, dim), (2, dim), (7, dim), (7, dim)]


def test_values_with_a_trailing_axis_are_taken() -> None:
    x = torch.randn(4, 2)
    target = CallableTarget(lambda x: -x.square().sum(1, keepdim=True), dim=2)
    torch.testing.assert_close(target.log_prob(x), -x.square().sum(1))
    torch.testing.assert_close(target.score(x), -2 * x)


def test_a_function_with_python_branches_is_evaluated_point_by_point_with_a_warning() -> None:
    def log_prob(x: Tensor) -> Tensor:
        return -(x[0] ** 2) if x[0] > 0 else -3 * x[1] ** 2

    x = torch.tensor([[1.0, 2.0], [-1.0, 2.0]])
    target = CallableTarget(log_prob, dim=2)
    with pytest.warns(UserWarning, match="evaluated point by point, which is slow"):
        log_prob_of_x, score = target.log_prob_and_score(x)
    assert log_prob_of_x.tolist() == [-1.0, -12.0]
    assert score.tolist() == [[-2.0, 0.0], [0.0, -12.0]]


LEAVES_TORCH = {
    "float": lambda x: -(float(x[0]) ** 2),
    "numpy of a point": lambda x: -np.sum(x.detach().numpy() ** 2),
    "numpy of a batch": lambda x: -np.square(x.detach().numpy()).sum(1),
    "math": lambda x: -math.exp(x[0]),
    "item in a batch": lambda x: [-(point[0].item() ** 2) for point in x],
}


@pytest.mark.parametrize("name", LEAVES_TORCH)
@pytest.mark.parametrize("batched", [None, True, False])
@pytest.mark.parametrize("call", ["log_prob", "score"])
def test_a_function_that_turns_points_into_numbers_is_told_what_to_change(name, batched, call) -> None:
    target = CallableTarget(LEAVES_TORCH[name], dim=2, batched=batched)
    with pytest.raises(ValueError, match=r"^log_prob .*torch\.where in place of if and without \.item\(\)") as caught:
        getattr(target, call)(torch.ones(3, 2))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 450


def test_a_branch_in_a_function_said_to_take_a_batch_names_the_option() -> None:
    def log_prob(x: Tensor) -> Tensor:
        return -(x[0] ** 2) if x[0] > 0 else -3 * x[1] ** 2

    with pytest.raises(ValueError, match=r"torch\.where in place of if .*set batched=False"):
        CallableTarget(log_prob, dim=2, batched=True).log_prob(torch.ones(3, 2))


def test_numpy_that_only_the_gradient_meets_is_told_too() -> None:
    target = CallableTarget(lambda x: -torch.from_numpy(x.numpy() ** 2).sum(), dim=2)
    with pytest.warns(UserWarning, match="point by point"):
        assert target.log_prob(torch.ones(3, 2)).tolist() == [-2.0] * 3
    with pytest.raises(ValueError, match=r"numpy\(\).*keep to torch operations"):
        target.score(torch.ones(3, 2))


@pytest.mark.parametrize("function", [lambda x: parabola(x.detach()), lambda x: torch.tensor(parabola(x).tolist())])
def test_a_density_that_hides_its_gradient_is_warned_of(function) -> None:
    with pytest.warns(UserWarning, match=r"gradient is zero: keep to torch operations.*\.detach\(\)"):
        CallableTarget(function, dim=2).log_prob(torch.ones(3, 2))


@pytest.mark.filterwarnings("error")
def test_a_flat_density_and_a_mode_are_not_warned_of() -> None:
    flat = CallableTarget(lambda x: torch.zeros(len(x)), dim=2)
    assert flat.score(torch.ones(3, 2)).tolist() == [[0.0, 0.0]] * 3
    assert CallableTarget(parabola, dim=2).score(torch.zeros(3, 2)).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("batched", [True, False])
def test_a_function_that_changes_its_points_in_place_leaves_the_callers_as_they_are(batched) -> None:
    def log_prob(x: Tensor) -> Tensor:
        x[..., 0] *= 2
        return -x.square().sum(-1)

    x, target = torch.ones(3, 2), CallableTarget(log_prob, dim=2, batched=batched)
    log_prob_of_x, score = target.log_prob_and_score(x)
    assert x.tolist() == [[1.0, 1.0]] * 3
    assert log_prob_of_x.tolist() == [-5.0] * 3 and score.tolist() == [[-8.0, -2.0]] * 3


def test_whether_the_function_takes_a_batch_can_be_said() -> None:
    # a mean over everything is a number for a point and for a batch
    point = CallableTarget(lambda x: x.mean(), dim=2, batched=False)
    assert point.log_prob(torch.tensor([[1.0, 3.0], [5.0, 7.0]])).tolist() == [2.0, 6.0]
    with pytest.raises(ValueError, match="log_prob must return a tensor of shape"):
        CallableTarget(lambda x: x.mean(), dim=2, batched=True).log_prob(torch.zeros(2, 2))


@pytest.mark.parametrize("of_a_point", [False, True])
@pytest.mark.parametrize("constants", [torch.float32, torch.float64])
def test_a_density_whose_data_have_one_dtype_takes_points_of_both(of_a_point, constants) -> None:
    matrix = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=constants)
    function = (lambda x: -(x @ matrix @ x)) if of_a_point else (lambda x: -((x @ matrix) * x).sum(1))
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(5, 2, dtype=dtype)
        log_prob, score = CallableTarget(function, dim=2).log_prob_and_score(x)
        assert log_prob.dtype == score.dtype == dtype
        torch.testing.assert_close(score, -2 * x @ matrix.to(dtype))


def test_a_module_that_moves_to_another_dtype_is_looked_at_again() -> None:
    target = CallableTarget(torch.nn.Linear(2, 1), dim=2)
    target.log_prob(torch.zeros(3, 2))
    target.log_prob(torch.zeros(3, 2, dtype=torch.float64))
    target.double()
    x = torch.randn(3, 2, dtype=torch.float64)
    expected = (x @ target.function.weight.T + target.function.bias)[:, 0]
    torch.testing.assert_close(target.log_prob(x), expected, rtol=0, atol=1e-15)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module in the current folder, as a user has it."""
    (tmp_path / "my_density.py").write_text(
        "import math\n\nnot_a_function = 3\n\n\ndef my_log_prob(x):\n    return -x[0] ** 2 - math.pi * x[1] ** 2\n"
    )
    (tmp_path / "my_broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    for name in ("my_density", "my_broken"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("own_module")
def test_a_dotted_name_is_looked_up_from_the_current_folder() -> None:
    target = CallableTarget("my_density.my_log_prob", dim=2)
    torch.testing.assert_close(target.log_prob(torch.ones(3, 2)), torch.full((3,), -1 - math.pi))


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_log_prob", "log_prob must be a dotted name such as my_module.my_function, got 'my_log_prob'"),
        ("no_such_module.f", "log_prob=no_such_module.f: no module no_such_module in .* or installed"),
        ("my_density.sub.f", "log_prob=my_density.sub.f: no module my_density.sub in"),
        ("my_density.typo", r"log_prob=my_density.typo: .*my_density.py has no typo"),
        (
            "my_density.not_a_function",
            "log_prob must be callable or the dotted name of a function, got 'my_de",
        ),
    ],
)
def test_a_wrong_dotted_name_is_told_what_is_wrong(name, message) -> None:
    with pytest.raises(ValueError, match=message):
        CallableTarget(name, dim=2)


@pytest.mark.usefixtures("own_module")
def test_a_missing_import_inside_the_users_module_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        CallableTarget("my_broken.f", dim=2)


def test_a_module_moves_with_the_target_that_wraps_it() -> None:
    class Shifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return parabola(x - self.shift)

    module = Shifted()
    CallableTarget(module, dim=2).double()
    assert module.shift.dtype == torch.float64


def test_every_point_is_counted_once() -> None:
    target = CountingTarget(Mixture2D())
    target.log_prob(torch.zeros(5, 2))
    target.log_prob_and_score(torch.zeros(3, 2))
    target.score(torch.zeros(2, 2))
    assert (target.density_evaluations, target.gradient_evaluations) == (10, 5)
    target.reset()
    assert (target.density_evaluations, target.gradient_evaluations) == (0, 0)


def test_a_score_by_automatic_differentiation_is_counted_once() -> None:
    target = CountingTarget(CallableTarget(parabola, dim=2))
    target.score(torch.zeros(3, 2))
    assert (target.density_evaluations, target.gradient_evaluations) == (3, 3)


def test_counting_changes_nothing_else() -> None:
    inner = Funnel()
    target = CountingTarget(inner)
    x = inner.sample(6, generator=torch.Generator().manual_seed(0))
    assert (target.dim, target.log_normalizer) == (10, 0.0)
    assert torch.equal(target.log_prob(x), inner.log_prob(x))
    assert torch.equal(target.score(x), inner.score(x))
    assert torch.equal(target.sample(6, generator=torch.Generator().manual_seed(0)), x)
    assert target.density_evaluations == 12


def test_the_cost_of_fitting_on_a_copy_is_counted() -> None:
    target = CountingTarget(GaussianTarget())
    copy.deepcopy(target).log_prob(torch.zeros(4, 1))
    assert target.density_evaluations == 4
    Laplace().fit(target)
    assert target.gradient_evaluations > 0
