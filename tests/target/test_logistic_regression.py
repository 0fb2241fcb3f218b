import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from sbflow.target import Ionosphere, LogisticRegression, Sonar, logistic_regression
from sbflow.target.dataset import data_root
from sbflow.target.logistic_regression import design_matrix
from sbflow.whitening import Laplace, Whitened


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_log_prob_is_likelihood_times_prior() -> None:
    features, labels, w = randn(9, 3), (torch.arange(9) % 2).double(), randn(6, 3, seed=1)
    likelihood = Bernoulli(logits=w @ features.T).log_prob(labels.expand(6, 9)).sum(1)
    prior = Normal(torch.zeros(3).double(), torch.ones(3).double()).log_prob(w).sum(1)
    target = LogisticRegression(features, labels)
    torch.testing.assert_close(target.log_prob(w), likelihood + prior, rtol=1e-12, atol=1e-12)


def test_joint_density_sums_to_the_prior_over_all_labels() -> None:
    features, w = randn(4, 2), 30 * randn(5, 2, seed=1)
    labels = [torch.tensor(y).double() for y in itertools.product((0, 1), repeat=4)]
    joint = torch.stack([LogisticRegression(features, y).log_prob(w) for y in labels]).logsumexp(0)
    prior = Normal(torch.zeros(2).double(), torch.ones(2).double()).log_prob(w).sum(1)
    torch.testing.assert_close(joint, prior, rtol=1e-12, atol=1e-12)


def test_evidence_of_one_observation_is_one_half() -> None:
    target = LogisticRegression(torch.tensor([[1.7]]).double(), torch.ones(1).double())
    w = torch.linspace(-12, 12, 2001, dtype=torch.float64)[:, None]
    assert target.log_prob(w).exp().sum().item() * 24 / 2000 == pytest.approx(0.5, abs=1e-10)


def test_many_points_are_evaluated_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    target = LogisticRegression(randn(5, 3), (torch.arange(5) % 2).double())
    w = randn(11, 3, seed=1)
    whole = target.log_prob_and_score(w)
    for size in (1, 15, 27):
        monkeypatch.setattr(logistic_regression, "CACHED", size)
        for pieces, expected in zip(target.log_prob_and_score(w), whole, strict=True):
            torch.testing.assert_close(pieces, expected, rtol=1e-12, atol=1e-12)
    assert target.log_prob_and_score(w[:0])[1].shape == (0, 3)


def test_extreme_logits_stay_finite_in_float32() -> None:
    target = LogisticRegression(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, 1.0]))
    log_prob, score = target.log_prob_and_score(torch.tensor([[1e4], [-1e4]]))
    assert log_prob.isfinite().all() and score.isfinite().all()


def test_design_matrix_has_an_intercept_and_unit_population_deviation() -> None:
    raw = torch.cat([5 + 3 * randn(20, 2), torch.full((20, 1), 4.0)], dim=1)
    x = design_matrix(raw)
    assert torch.equal(x[:, 0], torch.ones(20).double())
    torch.testing.assert_close(x[:, 1:3].mean(0), torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(x[:, 1:3].square().mean(0), torch.ones(2).double(), rtol=1e-12, atol=0)
    assert (x[:, 3] == 0).all()


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.ones(2, 1), torch.tensor([0.0, 2.0]), "labels must be 0 or 1, got values from 0 to 2"),
        (torch.full((2, 1), math.nan), torch.zeros(2), "features must be finite"),
    ],
)
def test_bad_data_are_named(features, labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        LogisticRegression(features, labels)


@pytest.mark.skipif(not (data_root() / "bayes").is_dir(), reason="no data sets: set SBFLOW_DATA")
@pytest.mark.parametrize(("make", "dim"), [(Sonar, 61), (Ionosphere, 35)])
def test_importance_sampling_from_the_laplace_approximation_finds_the_reference_log_z(make, dim) -> None:
    target = make().double()
    assert target.dim == dim
    whitened = Whitened(target, Laplace(inflation=1.1).fit(target))
    n, freedom = 100_000, 20.0
    # multivariate t: tails heavier than the posterior's keep the variance of the weights finite
    chi2 = torch.distributions.Chi2(torch.tensor(freedom).double())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stretch = (freedom / chi2.sample((n,))).sqrt()
    z = randn(n, dim, seed=1) * stretch[:, None]
    log_w = whitened.log_prob(z) - log_student(z, freedom)
    w = (log_w - log_w.max()).exp()
    log_z = (w.mean().log() + log_w.max()).item()
    stderr = (w.std() / w.mean() / math.sqrt(n)).item()
    assert stderr < 0.05
    assert abs(log_z - target.log_normalizer) < 5 * stderr + 0.001


def log_student(z: torch.Tensor, freedom: float) -> torch.Tensor:
    """Log density of the standard multivariate t law."""
    d = z.shape[1]
    constant = math.lgamma((freedom + d) / 2) - math.lgamma(freedom / 2) - 0.5 * d * math.log(freedom * math.pi)
    return constant - 0.5 * (freedom + d) * torch.log1p(z.square().sum(1) / freedom)
