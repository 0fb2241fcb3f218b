"""Drift labels that use the scores of the ends: what they are the mean of, and what they save."""

import math

import pytest
import torch
from assertions import assert_mean_close
from problems import GaussianCoupling, projected_drift

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.loss import EndScores, Pairs, bidirectional_pairs, bridge_matching
from sbflow.network import MLP
from sbflow.process import Brownian
from sbflow.target import GaussianMixture, GaussianTarget

EPSILON = 0.8
PROCESS = Brownian(EPSILON)
ENDS = (
    GaussianMixture(
        torch.tensor([[-1.0, 0.5], [1.2, 0.0]], dtype=torch.float64),
        [[[0.2, 0.05], [0.05, 0.3]], [[0.4, 0.0], [0.0, 0.1]]],
        [0.4, 0.6],
    ),
    GaussianMixture(
        torch.tensor([[0.0, 1.5], [0.5, -1.0]], dtype=torch.float64),
        [[[0.3, -0.1], [-0.1, 0.2]], [[0.1, 0.0], [0.0, 0.5]]],
        [0.7, 0.3],
    ),
)
KNOWN = {"neither": (None, None), "first": (ENDS[0], None), "second": (None, ENDS[1]), "both": ENDS}
every_knowledge = pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)


def independent_pairs(n: int) -> Pairs:
    """n pairs of each direction."""
    x0, x1 = ENDS[0].sample(2 * n), ENDS[1].sample(2 * n)
    return bidirectional_pairs((x0[:n], x1[:n]), (x1[n:], x0[n:]))


def labelled(pairs: Pairs, u: torch.Tensor, known) -> tuple[torch.Tensor, torch.Tensor]:
    """X_u and its labels."""
    law = PROCESS.bridge(pairs.start, pairs.end, u)
    x = law.sample()
    return x, EndScores(known).label(*pairs, u, x - law.mean, PROCESS.diffusion(u) ** 2)


@every_knowledge
@pytest.mark.parametrize("u", [0.02, 0.5, 0.95])
def test_every_label_has_the_drift_as_its_conditional_mean(known, u):
    pairs = independent_pairs(60_000)
    times = torch.full((len(pairs.start),), u, dtype=torch.float64)
    x, label = labelled(pairs, times, known)
    # the ordinary label is known to be right; a difference of mean zero given x is orthogonal to every function of x
    residual = label - PROCESS.drift_to_end(x, pairs.end, times)
    for direction in (0, 1):
        rows = pairs.direction == direction
        for feature in (torch.ones_like(x), x, torch.sin(2 * x.flip(1)), (x.sum(1, keepdim=True) > 0.3).double()):
            assert_mean_close((residual * feature)[rows], 0.0)


def test_for_gaussian_ends_with_independent_coordinates_the_label_is_the_drift():
    v0, v1 = (torch.tensor(v, dtype=torch.float64) for v in ([0.5, 2.0], [0.1, 1.5]))
    mean0, mean1 = torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    ends = GaussianTarget(mean0, v0.diag()), GaussianTarget(mean1, v1.diag())
    x0, x1 = (end.sample(100_000).double() for end in ends)
    pairs = bidirectional_pairs((x0[::2], x1[::2]), (x1[1::2], x0[1::2]))
    u = torch.rand(len(pairs.start), dtype=torch.float64) * 0.98 + 0.01
    x, label = labelled(pairs, u, ends)
    coupling = GaussianCoupling(mean0, mean1, v0.diag(), v1.diag(), torch.zeros(2, 2, dtype=torch.float64))
    forward = projected_drift(coupling, EPSILON, x, u)
    drift = torch.where(pairs.direction[:, None] == 0, forward, projected_drift(coupling.reversed(), EPSILON, x, u))
    # what is left is the error of the estimated information, of relative variance 2 / n
    assert (label - drift).square().mean() < 1e-3 * drift.square().mean()


@pytest.mark.parametrize("u", [0.1, 0.5, 0.9, 0.99])
def test_the_label_has_the_variance_of_the_best_weights_that_regression_finds(u):
    pairs = independent_pairs(100_000)
    n = len(pairs.start) // 2
    times = torch.full((len(pairs.start),), u, dtype=torch.float64)
    law = PROCESS.bridge(pairs.start, pairs.end, times)
    x = law.sample()
    label = EndScores(ENDS).label(*pairs, times, x - law.mean, PROCESS.diffusion(times) ** 2)
    # ordinary least squares over all unbiased labels, in the forward direction and the first coordinate
    x0, x1, noise = pairs.start[:n], pairs.end[:n], (x - law.mean)[:n]
    scale = EPSILON * u
    ordinary = x1 - x0 - noise / (1 - u)
    by_start = x1 - x0 + scale * ENDS[0].score(x0) / (1 - u)
    by_end = x1 - x0 + scale * ENDS[1].score(x1) / u
    basis = torch.stack([(by_start - ordinary)[:, 0], (by_end - ordinary)[:, 0]], 1)
    weights = torch.linalg.lstsq(basis, -ordinary[:, :1]).solution
    best = float((ordinary[:, 0] + (basis @ weights)[:, 0]).square().mean())
    assert float(label[:n, 0].square().mean()) == pytest.approx(best, rel=0.02)


def test_the_scores_take_the_singularity_out_of_the_labels():
    pairs = independent_pairs(20_000)
    moments = {}
    for u in (0.5, 0.999):
        times = torch.full((len(pairs.start),), u, dtype=torch.float64)
        for name in ("neither", "both"):
            moments[name, u] = float(labelled(pairs, times, KNOWN[name])[1].square().sum(1).mean())
    # ε d u / (1 − u) of noise against a bounded label
    assert moments["neither", 0.999] > 1000 > 40 > moments["both", 0.999]
    assert moments["both", 0.5] < moments["neither", 0.5]


@pytest.mark.parametrize(
    "known", [KNOWN[name] for name in ("first", "second", "both")], ids=["first", "second", "both"]
)
def test_a_loss_with_the_scores_has_the_same_minimiser(known):
    # the gradients in a constant and a linear field agree on average
    def gradient(ends) -> torch.Tensor:
        theta = torch.zeros(2, 2, 2, dtype=torch.float64, requires_grad=True)

        def drift(x, u, direction):
            return theta[direction, 0] + theta[direction, 1] * x

        loss = bridge_matching(drift, PROCESS, independent_pairs(400), cutoff=0.3, end_scores=ends)
        return torch.autograd.grad(loss, theta)[0]

    assert_mean_close(torch.stack([gradient(known) - gradient((None, None)) for _ in range(100)]), 0.0)


def test_only_directions_that_lead_to_a_known_density_are_bounded():
    direction = torch.tensor([0, 1])
    bounded = {name: EndScores(known).bounded(direction).tolist() for name, known in KNOWN.items()}
    expected = {"neither": [False, False], "first": [False, True], "second": [True, False], "both": [True, True]}
    assert bounded == expected


def flow(**options) -> SchrodingerBridgeFlow:
    return SchrodingerBridgeFlow(MLP((2,), hidden=(4,), embed_dim=4, num_directions=2), PROCESS, (2,), **options)


@pytest.mark.parametrize("coupling", ["minibatch_ot", "sinkhorn", "reference"])
def test_pairs_that_depend_on_each_other_are_refused(coupling):
    with pytest.raises(ValueError, match="end scores need an independent coupling"):
        flow(end_scores=ENDS, pretrain_coupling=coupling)
    assert flow(end_scores=(None, None), pretrain_coupling=coupling)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ((ENDS[0],), "one target or null for each of the two ends, got 1"),
        ((None, GaussianTarget([0.0], [[1.0]])), r"shape of the data, \[2\], got dimension 1"),
    ],
)
def test_ends_that_do_not_fit_are_refused(ends, message):
    with pytest.raises(ValueError, match=message):
        flow(end_scores=ends)


def test_a_batch_of_one_falls_back_to_bridge_matching():
    u = torch.full((1,), math.sqrt(0.5), dtype=torch.float64)
    pairs = Pairs(ENDS[0].sample(1), ENDS[1].sample(1), torch.zeros(1, dtype=torch.long))
    x, label = labelled(pairs, u, ENDS)
    torch.testing.assert_close(label, PROCESS.drift_to_end(x, pairs.end, u))
