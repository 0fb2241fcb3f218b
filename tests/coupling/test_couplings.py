"""Pairs of each source, with exact linear drifts in place of a network."""

import pytest
import torch
from assertions import assert_mean_close
from problems import LinearDrift, Scalars, asymmetric_coupling, euler_moments, scalar_coupling, simulated_cross

from sbflow.coupling import Independent, MinibatchOT, Online, Reference, Rollout, named_coupling
from sbflow.integrator import time_grid
from sbflow.loss import Pairs
from sbflow.process import Brownian, gaussian_bridge

EPSILON = 0.8


def rollout(drift=None, *, epsilon: float = EPSILON, num_steps: int = 12, **options) -> Rollout:
    drift = drift or LinearDrift(asymmetric_coupling(), epsilon)
    return Rollout(drift, Brownian(epsilon), time_grid("uniform", num_steps), **options)


def ends(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Independent samples of either end of the asymmetric coupling."""
    coupling = asymmetric_coupling()
    return coupling.sample(n)[0], coupling.sample(n)[1]


def covariance_products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0))[:, :, None] * (y - y.mean(0))[:, None, :]


def directed(pairs: Pairs, direction: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = pairs.direction == direction
    return pairs.start[rows], pairs.end[rows]


def test_independent_pairs_are_the_rows_as_they_come_half_in_each_direction():
    x0, x1 = ends(10)
    pairs = Independent().pairs(x0, x1, rollout(), 0)
    assert pairs.direction.tolist() == [0] * 5 + [1] * 5
    assert torch.equal(pairs.start, torch.cat([x0[:5], x1[5:]])) and torch.equal(pairs.end, torch.cat([x1[:5], x0[5:]]))


def test_exact_transport_finds_the_permutation_that_made_the_batch():
    x0 = torch.randn(40, 1, 3, 3)
    order = torch.randperm(40)
    pairs = MinibatchOT().pairs(x0, (x0 + 0.01 * torch.randn_like(x0))[order], rollout(), 0)
    assert len(pairs.start) == 40 and (pairs.start - pairs.end).abs().max() < 0.1


def test_exact_transport_is_the_cheapest_permutation():
    x0, x1 = torch.randn(30, 2), torch.randn(30, 2) + 1
    start, end = directed(MinibatchOT().pairs(x0, x1, rollout(), 0), 0)
    back_end, back_start = directed(MinibatchOT().pairs(x0, x1, rollout(), 0), 1)
    matched = torch.cat([start, back_start]), torch.cat([end, back_end])
    assert torch.equal(matched[0], x0)
    assert torch.equal(matched[1].sort(0).values, x1.sort(0).values)
    cost = (matched[0] - matched[1]).square().sum()
    for _ in range(200):
        two = torch.randperm(30)[:2]
        swapped = matched[1].clone()
        swapped[two] = matched[1][two.flip(0)]
        assert (matched[0] - swapped).square().sum() >= cost - 1e-4


def test_sinkhorn_pairs_follow_the_schrodinger_coupling():
    exact = gaussian_bridge(torch.eye(1), 4 * torch.eye(1), EPSILON).item()
    products = []
    for _ in range(20):
        x0, x1 = torch.randn(200, 1), 2 * torch.randn(200, 1)
        pairs = MinibatchOT(method="sinkhorn").pairs(x0, x1, rollout(), 0)
        products.append((pairs.start * pairs.end).double().mean())
    assert_mean_close(torch.stack(products), exact)


def test_more_entropy_brings_sinkhorn_closer_to_independence():
    x0, x1 = torch.randn(200, 2), torch.randn(200, 2)
    costs = []
    for coupling in (
        MinibatchOT(),
        *(MinibatchOT(method="sinkhorn", regularisation=r) for r in (0.1, 1.0, 100.0)),
        Independent(),
    ):
        pairs = coupling.pairs(x0, x1, rollout(), 0)
        costs.append((pairs.start - pairs.end).square().sum(1).mean().item())
    assert costs[:4] == sorted(costs[:4]) and costs[3] > 0.8 * costs[4] and costs[0] < 0.3 * costs[4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "greedy"}, "method must be 'exact' or 'sinkhorn', got 'greedy'"),
        ({"method": "sinkhorn", "regularisation": 0.0}, "regularisation must be positive and finite, got 0.0"),
        ({"regularisation": 1.0}, "regularisation is an option of method='sinkhorn'"),
        ({"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_impossible_transport_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MinibatchOT(**options)


def test_reference_pairs_lead_from_brownian_ends_back_to_the_data():
    x0, x1 = ends(20_000)
    pairs = Reference().pairs(x0, x1, rollout(), 0)
    assert torch.equal(pairs.end, x0) and pairs.direction.unique().tolist() == [1]
    noise = pairs.start - x0
    assert_mean_close(noise[:, :, None] * noise[:, None, :], EPSILON * torch.eye(2).double())
    assert_mean_close(covariance_products(noise, x0), 0.0)


def test_online_pairs_regress_on_real_data_in_both_directions():
    x0, x1 = ends(300)
    pairs = Online().pairs(x0, x1, rollout(), 0)
    assert pairs.direction.tolist() == [0] * 300 + [1] * 300
    assert torch.equal(pairs.end, torch.cat([x1, x0]))
    assert not torch.isin(pairs.start, torch.cat([x0, x1])).any()


def test_online_starts_are_what_the_other_direction_makes_of_the_end():
    # a vanishing noise makes the rollouts deterministic, so that each start can be recomputed from its end
    still = rollout(LinearDrift(asymmetric_coupling(), EPSILON), epsilon=1e-20)
    x0, x1 = (x[:n] for x, n in zip(ends(7), (6, 7), strict=True))
    pairs = Online().pairs(x0, x1, still, 0)
    x0_hat, x1_hat = still(x1, torch.ones(7).long()), still(x0, torch.zeros(6).long())
    assert torch.allclose(pairs.start, torch.cat([x0_hat, x1_hat]))
    assert not torch.allclose(x0_hat[:6], x0, atol=0.1) and not torch.allclose(x1_hat, x0, atol=0.1)


def test_one_exact_step_of_the_markovian_fitting_for_an_asymmetric_coupling():
    coupling, num_steps, n = asymmetric_coupling(), 20, 20_000
    x0, x1 = ends(n)
    pairs = Online().pairs(x0, x1, rollout(num_steps=num_steps), 0)
    x0_hat, end1 = directed(pairs, 0)
    x1_hat, end0 = directed(pairs, 1)
    assert_mean_close(covariance_products(end0, x1_hat), simulated_cross(coupling, EPSILON, num_steps))
    assert_mean_close(covariance_products(end1, x0_hat), simulated_cross(coupling.reversed(), EPSILON, num_steps))
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean_close(covariance_products(end0, x1_hat), simulated_cross(coupling, EPSILON, num_steps).T)


def test_the_wrong_pairing_is_told_from_the_right_one_by_its_end_variance():
    # a start variance of 1, an end variance of 4: the pairs' ends keep those of the data, generated ends do not
    pairs, num_steps = scalar_coupling(1.0, 4.0, 0.5), 12
    x0, x1 = torch.randn(40_000, 1).double(), 2 * torch.randn(40_000, 1).double()
    made = Online().pairs(x0, x1, rollout(LinearDrift(pairs, EPSILON), num_steps=num_steps), 0)
    start, end = directed(made, 0)
    assert_mean_close(end**2, 4.0)
    assert_mean_close(start**2, euler_moments(4.0, Scalars(4.0, 1.0, 0.5), EPSILON, num_steps, True)[0])


def test_a_coupling_is_known_by_its_name_and_passed_through_as_an_object():
    names = ("independent", "minibatch_ot", "sinkhorn", "reference", "online", "buffer", "iterative")
    assert [type(named_coupling(name, "coupling")).__name__ for name in names] == [
        "Independent",
        "MinibatchOT",
        "MinibatchOT",
        "Reference",
        "Online",
        "Buffer",
        "Iterative",
    ]
    assert named_coupling("sinkhorn", "coupling").method == "sinkhorn"
    own = MinibatchOT()
    assert named_coupling(own, "coupling") is own


def test_rollouts_by_pieces_of_any_size_differ_in_rounding_only():
    x, direction = torch.randn(11, 2), torch.arange(11) % 2
    whole, pieces = (
        rollout(batch_size=size)(x, direction, generator=torch.Generator().manual_seed(1)) for size in (None, 4)
    )
    assert torch.allclose(whole, pieces, atol=1e-6)


def test_a_frozen_rollout_keeps_its_options_and_lets_go_of_the_network():
    network = torch.nn.Linear(1, 1)

    class Drift(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, u, direction):
            return self.network(x)

    changing = Rollout(Drift(), Brownian(1.0), time_grid("uniform", 3), last_noise=False, method="adams", batch_size=2)
    frozen = changing.frozen()
    assert (frozen.last_noise, frozen.method, frozen.batch_size) == (False, "adams", 2)
    x, direction = torch.randn(4, 1), torch.zeros(4, dtype=torch.long)
    torch.manual_seed(0)
    before = changing(x, direction)
    with torch.no_grad():
        network.weight.add_(1.0)
    torch.manual_seed(0)
    assert torch.equal(frozen(x, direction), before)


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be 'adams' or 'euler', got 'heun'"):
        rollout(method="heun")
