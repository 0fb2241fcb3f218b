import pytest
import torch
from assertions import assert_mean_close
from problems import asymmetric_coupling, projected_drift, projected_slope

from sbflow.loss import Pairs, bidirectional_pairs, bridge_matching
from sbflow.network import MLP, BridgeDrift
from sbflow.process import Brownian

EPSILON = 0.6
COUPLING = asymmetric_coupling()
PROCESS = Brownian(EPSILON)


def exact_drift(x: torch.Tensor, u: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Markovian projection of the coupling, in either direction's own clock."""
    forward = projected_drift(COUPLING, EPSILON, x, u)
    return torch.where(direction[:, None] == 0, forward, projected_drift(COUPLING.reversed(), EPSILON, x, u))


def coupled_pairs(n: int) -> Pairs:
    x0, x1 = COUPLING.sample(2 * n)
    return bidirectional_pairs((x0[:n], x1[:n]), (x1[n:], x0[n:]))


@pytest.mark.parametrize("coupling", [COUPLING, COUPLING.reversed()], ids=["forward", "backward"])
@pytest.mark.parametrize("u", [0.05, 0.5, 0.9])
def test_regression_on_bridges_finds_the_closed_form_of_the_projection(coupling, u):
    n = 100_000
    start, end = coupling.sample(n)
    t = torch.full((n,), u, dtype=torch.float64)
    x = PROCESS.bridge(start, end, t).sample()
    target = PROCESS.drift_to_end(x, end, t)
    features = torch.cat([torch.ones(n, 1, dtype=torch.float64), x - x.mean(0)], dim=1)
    gram = torch.linalg.inv(features.T @ features)
    coefficients = gram @ features.T @ target
    residual = target - features @ coefficients
    # ordinary least squares with Gaussian noise of constant variance
    stderr = (gram.diagonal()[:, None] * residual.var(0)).sqrt()
    slope = projected_slope(coupling, EPSILON, t[:1])[0]
    assert ((coefficients[1:] - slope.T).abs() < 5 * stderr[1:]).all()
    assert_mean_close(target, coupling.mean1 - coupling.mean0)


def gradients_at(drift, pairs_of, *, batches: int = 300) -> torch.Tensor:
    """Gradient of the loss in the coefficients of features added to a drift, over batches ``[batches, features]``."""
    theta = torch.zeros(6, 2, 2, dtype=torch.float64, requires_grad=True)

    def perturbed(x, u, direction):
        powers = torch.stack([torch.ones_like(u), u, u**2], dim=1)
        switched = torch.cat([powers * (direction == 0)[:, None], powers * (direction == 1)[:, None]], dim=1)
        return drift(x, u, direction) + torch.einsum("nf,fij,nj->ni", switched, theta, x)

    losses = (bridge_matching(perturbed, PROCESS, pairs_of(64), cutoff=0.02) for _ in range(batches))
    return torch.stack([torch.autograd.grad(loss, theta)[0] for loss in losses])


def test_the_projection_in_both_directions_is_where_the_gradient_of_the_loss_vanishes():
    assert_mean_close(gradients_at(exact_drift, coupled_pairs), 0.0)


def test_pairs_of_another_coupling_pull_the_drift_away():
    def independent(n: int) -> Pairs:
        pairs = coupled_pairs(n)
        return pairs._replace(end=torch.cat([pairs.end[:n].roll(1, 0), pairs.end[n:].roll(1, 0)]))

    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean_close(gradients_at(exact_drift, independent), 0.0)


def test_reading_the_direction_the_wrong_way_round_pulls_the_drift_away():
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean_close(gradients_at(lambda x, u, s: exact_drift(x, u, 1 - s), coupled_pairs), 0.0)


def test_a_drift_pays_its_mean_squared_distance_from_the_projection():
    offset = torch.tensor([0.3, -0.5], dtype=torch.float64)
    excess = []
    for k in range(200):
        pairs = coupled_pairs(64)
        exact, shifted = (
            bridge_matching(
                lambda x, u, s, shift=shift: exact_drift(x, u, s) + shift,
                PROCESS,
                pairs,
                cutoff=0.02,
                generator=torch.Generator().manual_seed(k),
            )
            for shift in (0.0, offset)
        )
        excess.append(shifted - exact)
    assert_mean_close(torch.stack(excess), (offset**2).mean())


def test_pairs_stack_forward_then_backward_with_real_ends():
    (a, b), (c, d) = torch.randn(2, 2, 3, 1, 4, 4)
    pairs = bidirectional_pairs((a, b), (c[:2], d[:2]))
    assert torch.equal(pairs.start, torch.cat([a, c[:2]])) and torch.equal(pairs.end, torch.cat([b, d[:2]]))
    assert pairs.direction.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("event", [(3,), (1, 4, 5)])
def test_the_loss_is_averaged_over_elements_whatever_the_shape(event):
    # a start that equals the end, and no drift: the target is the noise of the bridge alone, E v² = ε u / (1 − u)
    process, x = Brownian(2.0), torch.zeros(20_000, *event, dtype=torch.float64)
    pairs = Pairs(x, x, torch.zeros(len(x), dtype=torch.long))
    losses = torch.stack(
        [bridge_matching(lambda x, u, s: torch.zeros_like(x), process, pairs, cutoff=0.4) for _ in range(8)]
    )
    # ∫ u / (1 − u) du over [0.4, 0.6], over its length
    expected = 2.0 * (torch.tensor(0.6 / 0.4).log().item() - 0.2) / 0.2
    assert_mean_close(losses, expected)


@pytest.mark.parametrize("cutoff", [1e-3, 1e-5])
def test_gradients_stay_finite_at_both_ends_in_single_precision(cutoff):
    drift = BridgeDrift(MLP((2,), hidden=(8,), num_directions=2), (2,), EPSILON)
    pairs = coupled_pairs(256)
    bridge_matching(
        drift, PROCESS, Pairs(pairs.start.float(), pairs.end.float(), pairs.direction), cutoff=cutoff
    ).backward()
    assert all(parameter.grad.isfinite().all() for parameter in drift.parameters())


def test_times_near_either_end_give_finite_bridges_and_targets():
    for u in (0.0, 1e-7, 1 - 1e-6):
        t = torch.full((5,), u)
        start, end = torch.randn(2, 5, 2)
        x = PROCESS.bridge(start, end, t).sample()
        assert x.isfinite().all() and PROCESS.drift_to_end(x, end, t).isfinite().all()
