import pytest
import torch
from assertions import assert_mean_close
from torch import nn

from sbflow.network import MLP, BridgeDrift, UNet
from sbflow.network.drift import TwoNetworks, common_basis
from sbflow.process import Brownian


class Recorder(nn.Module):
    """A backbone that keeps its input and returns it."""

    def forward(self, x, u, direction):
        self.seen = x
        return x


def vectors(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    x0 = torch.tensor([5.0, -3.0]) + torch.tensor([2.0, 0.1]) * torch.randn(n, 2)
    x1 = torch.tensor([-1.0, 40.0]) + torch.tensor([0.5, 7.0]) * torch.randn(2 * n, 2)
    return x0, x1


def images(n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    scale = torch.tensor([0.5, 2.0]).reshape(2, 1, 1)
    return scale * torch.randn(n, 2, 3, 4) + 1, scale.flip(0) * torch.randn(n, 2, 3, 4) - 3


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("data", [vectors, images])
def test_input_and_output_are_scaled_by_the_measured_moments(data, direction):
    x0, x1 = data()
    epsilon, n = 0.7, 9
    drift = BridgeDrift(Recorder(), x0.shape[1:], epsilon)
    drift.measure(x0, x1)
    axes = [0] if data is vectors else [0, 2, 3]
    ends = [(x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)) for x in (x0, x1)]
    (mean_s, var_s), (mean_e, var_e) = ends if direction == 0 else ends[::-1]
    x, u = 3 * torch.randn(n, *x0.shape[1:]), torch.rand(n)
    w = u.reshape(-1, *(1,) * (x.ndim - 1))
    centred, gain = x - (1 - w) * mean_s - w * mean_e, (var_s + var_e + epsilon).sqrt()
    if data is vectors:
        # in the basis that makes both covariances diagonal
        centred = centred @ drift.basis.T
        seen = [(x @ drift.basis.T).var(0, correction=0) for x in (x0, x1)]
        var_s, var_e = seen if direction == 0 else seen[::-1]
    scaled = centred / ((1 - w) ** 2 * var_s + w**2 * var_e + epsilon * w * (1 - w)).sqrt()
    expected = mean_e - mean_s + gain * scaled
    out = drift(x, u, torch.full((n,), direction))
    assert torch.allclose(drift.network.seen, scaled, rtol=1e-3, atol=1e-3)
    assert torch.allclose(out, expected, rtol=1e-3, atol=1e-2)


def test_the_common_basis_diagonalises_two_correlated_covariances():
    roots = torch.randn(2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariances = roots @ roots.mT
    basis, variances = common_basis(*covariances)
    assert torch.allclose(basis @ covariances @ basis.T, torch.diag_embed(variances), atol=1e-10)
    assert torch.allclose(basis.norm(dim=1), torch.ones(5, dtype=torch.float64))
    # with nothing correlated it is the coordinates themselves, in some order
    plain, _ = common_basis(torch.tensor([3.0, 1.0, 0.2]).diag(), torch.tensor([1.0, 2.0, 5.0]).diag())
    assert torch.equal(plain[plain.argmax(1).argsort()], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("u", [0.0, 1.0])
@pytest.mark.parametrize("direction", [0, 1])
def test_at_both_ends_of_correlated_sets_the_network_sees_white_inputs(u, direction):
    generator = torch.Generator().manual_seed(1)
    ends = [torch.randn(3000, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + i for i in (0, 5)]
    drift = BridgeDrift(Recorder(), (6,), 0.7)
    drift.measure(*ends)
    x = ends[direction if u == 0 else 1 - direction]
    drift(x, torch.full((1,), u), torch.full((len(x),), direction))
    assert torch.allclose(drift.network.seen.T.cov(correction=0), torch.eye(6), atol=1e-3)


def test_a_direction_in_which_nothing_varies_does_not_blow_up_the_input():
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(2)) @ torch.tensor(
        [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    )
    drift = BridgeDrift(Recorder(), (3,), 0.5)
    drift.measure(x, x + 1)
    drift(x, torch.zeros(1), torch.zeros(500, dtype=torch.long))
    assert drift.network.seen.isfinite().all() and drift.network.seen.std() < 2


def test_a_checkpoint_without_a_basis_shows_the_coordinates():
    x0, x1 = vectors(200)
    drift, older = BridgeDrift(Recorder(), (2,), 0.7), BridgeDrift(Recorder(), (2,), 0.7)
    drift.measure(x0, x1)
    state = {name: part for name, part in drift.state_dict().items() if "basis" not in name}
    older.load_state_dict(state)
    u, direction = torch.tensor([0.25]), torch.zeros(len(x0), dtype=torch.long)
    older(x0, u, direction)
    (mean_s, mean_e), (var_s, var_e) = drift.mean, drift.variance
    variance = 0.75**2 * var_s + 0.25**2 * var_e + 0.7 * 0.25 * 0.75
    assert torch.allclose(older.network.seen, (x0 - 0.75 * mean_s - 0.25 * mean_e) / variance.sqrt(), atol=1e-4)


@pytest.mark.parametrize("u", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("direction", [0, 1])
def test_on_bridges_between_independent_ends_the_network_sees_unit_variance(u, direction):
    x0, x1 = (x.double() for x in vectors(20_000))
    x1 = x1[: len(x0)]
    drift = BridgeDrift(Recorder(), (2,), 1.3).double()
    drift.measure(x0, x1)
    start, end = (x0, x1) if direction == 0 else (x1, x0)
    u = torch.full((len(x0),), u, dtype=torch.float64)
    x = Brownian(1.3).bridge(start, end, u).sample()
    drift(x, u, torch.full((len(x0),), direction))
    assert_mean_close(drift.network.seen, 0.0)
    assert_mean_close(drift.network.seen**2, 1.0)


@pytest.mark.parametrize("factor", [0.01, 3.0, 100.0])
@pytest.mark.parametrize("event", [(2,), (2, 3, 4)])
def test_in_other_units_the_drift_is_the_same_in_those_units(factor, event):
    x0, x1 = vectors() if event == (2,) else images()
    network = (MLP if event == (2,) else UNet)(event, num_directions=2)
    with torch.no_grad():
        network.out.weight.normal_(0, 0.1)
    x, u, direction = torch.randn(8, *event), torch.rand(8), torch.arange(8) % 2
    outs = []
    for c in (1.0, factor):
        drift = BridgeDrift(network, event, 0.5 * c**2)
        drift.measure(c * x0, c * x1)
        outs.append(drift(c * x, u, direction) / c)
    assert torch.allclose(*outs, rtol=1e-3, atol=1e-3)


def test_an_untrained_drift_moves_the_mean_of_one_end_to_that_of_the_other():
    x0, x1 = vectors()
    drift = BridgeDrift(MLP((2,), num_directions=2), (2,), 1.0)
    drift.measure(x0, x1)
    out = drift(torch.randn(2, 2), torch.rand(2), torch.tensor([0, 1]))
    way = x1.mean(0) - x0.mean(0)
    assert torch.allclose(out, torch.stack([way, -way]), rtol=1e-4)


@pytest.mark.parametrize("bad", [torch.ones(10, 2), torch.full((10, 2), torch.nan), torch.ones(1, 2)])
@pytest.mark.parametrize("end", [0, 1])
def test_sets_without_spread_are_refused_by_name(bad, end):
    drift = BridgeDrift(Recorder(), (2,), 1.0)
    ends = [torch.randn(10, 2), torch.randn(10, 2)]
    ends[end] = bad
    with pytest.raises(ValueError, match=f"x{end} is constant or not finite"):
        drift.measure(*ends)
    assert not drift.measured


def test_one_constant_coordinate_does_no_harm():
    x0, x1 = vectors()
    x0, x1 = x0.clone(), x1.clone()
    x0[:, 0] = x1[:, 0] = 2.0
    drift = BridgeDrift(Recorder(), (2,), 1e-8)
    drift.measure(x0, x1)
    out = drift(x0[:5], torch.linspace(0, 1, 5), torch.zeros(5, dtype=torch.long))
    assert out.isfinite().all() and drift.network.seen.abs().max() < 10


def test_moments_travel_with_the_weights():
    drift, copy = (BridgeDrift(Recorder(), (2,), 1.0) for _ in range(2))
    drift.measure(*vectors())
    copy.load_state_dict(drift.state_dict())
    assert copy.measured and torch.equal(copy.mean, drift.mean) and torch.equal(copy.variance, drift.variance)


def test_relative_precision_is_the_inverse_variance_of_the_regression_target():
    generator = torch.Generator().manual_seed(3)
    x0, x1, noise = (scale * torch.randn(200_000, 1, generator=generator) for scale in (1.0, 2.0, 1.0))
    drift = BridgeDrift(MLP((1,), num_directions=2), (1,), epsilon=0.7)
    drift.measure(x0, x1)
    for u in (0.0, 0.3, 0.9):
        target = x1 - x0 - (0.7 * u / (1 - u)) ** 0.5 * noise
        # a variance of n Gaussian draws has relative standard error √(2 / n); two of them enter the ratio
        expected = (x1 - x0).var() / target.var()
        assert abs(drift.relative_precision(torch.tensor([u])) / expected - 1) < 5 * (4 / 200_000) ** 0.5


def affine_regression(parametrisation: str, u: float, *, n: int = 100_000):
    """Drift of a network that answers 0, and its regression residual in units of the network, on independent pairs."""
    generator = torch.Generator().manual_seed(4)
    x0 = 3 + 1.5 * torch.randn(n, 1, generator=generator).double()
    x1 = -1 + 0.5 * torch.randn(n, 1, generator=generator).double()
    drift = BridgeDrift(Zero(), (1,), 0.8, parametrisation=parametrisation).double()
    drift.measure(x0, x1)
    t, forward = torch.full((n,), u, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    x = Brownian(0.8).bridge(x0, x1, t).sample(generator)
    residual = Brownian(0.8).drift_to_end(x, x1, t) - drift(x, t, forward)
    return x, residual * drift.weight(t, forward).sqrt()


class Zero(nn.Module):
    """A backbone that has learned nothing."""

    def forward(self, x, u, direction):
        return torch.zeros_like(x)


@pytest.mark.parametrize("u", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("parametrisation", ["scaled", "endpoint"])
def test_the_regression_target_of_the_network_has_unit_variance(parametrisation, u):
    assert_mean_close(affine_regression(parametrisation, u)[1] ** 2, 1.0)


@pytest.mark.parametrize("u", [0.0, 0.3, 0.9, 0.99])
def test_the_end_point_network_has_nothing_linear_left_to_learn(u):
    x, residual = affine_regression("endpoint", u)
    assert_mean_close(residual * (x - x.mean(0)), 0.0)
    x, residual = affine_regression("drift", 0.9)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean_close(residual * (x - x.mean(0)), 0.0)


@pytest.mark.parametrize("parametrisation", ["drift", "scaled", "endpoint"])
def test_every_parametrisation_is_finite_at_both_ends(parametrisation):
    drift = BridgeDrift(Recorder(), (2,), 0.7, parametrisation=parametrisation)
    drift.measure(*vectors())
    for u in (0.0, 1 - 1e-6, 1.0):
        out = drift(torch.randn(5, 2), torch.full((5,), u), torch.arange(5) % 2)
        assert out.isfinite().all()


def test_two_networks_each_answer_for_their_direction():
    torch.manual_seed(1)
    both = TwoNetworks(MLP((2,), hidden=(8,), num_directions=2))
    nn.init.normal_(both.forwards.out.weight)
    nn.init.normal_(both.backwards.out.weight)
    x, u, direction = torch.randn(7, 2), torch.rand(7), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    out = both(x, u, direction)
    expected = [
        (both.forwards, both.backwards)[s](x[i : i + 1], u[i : i + 1], direction[i : i + 1])
        for i, s in enumerate(direction)
    ]
    assert torch.allclose(out, torch.cat(expected), atol=1e-6)
    shared = both(x, u[:1], direction)
    assert torch.allclose(shared, both(x, u[:1].expand(7), direction), atol=1e-6)


def test_two_networks_share_no_weights():
    both = TwoNetworks(MLP((2,), hidden=(8,), num_directions=2))
    nn.init.normal_(both.forwards.out.weight)
    out = both(torch.randn(4, 2), torch.rand(4), torch.ones(4, dtype=torch.long))
    assert torch.equal(out, torch.zeros(4, 2))
    assert both(torch.randn(4, 2), torch.rand(4), torch.zeros(4, dtype=torch.long)).abs().min() > 0
