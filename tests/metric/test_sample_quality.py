import dataclasses

import pytest
import torch

from sbflow.algorithm import AnnealedSMC, ParticleDenoisingDiffusionSampler
from sbflow.metric.sample_quality import SampleQuality, mode_shares, sample_distances
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import GaussianMixture, GaussianTarget
from sbflow.whitening import Standard

TWO = GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], [[[0.2, 0.0], [0.0, 0.2]]] * 2, [0.25, 0.75])


def test_a_shift_is_measured_in_units_of_the_target():
    x = torch.randn(800, 1, dtype=torch.float64)
    distances = sample_distances(x + 3, x)
    # on the line every projection is the identity; a shift by 3 has W2 = 3
    assert distances["sliced_w2"] == pytest.approx(3.0, abs=1e-6)
    # and the debiased divergence of a shift is its square, whatever the regularisation
    assert distances["sinkhorn"] == pytest.approx(9.0, rel=0.02)


def test_equal_sets_are_at_distance_zero():
    x = torch.randn(300, 3, dtype=torch.float64)
    distances = sample_distances(x, x)
    assert distances["sliced_w2"] == pytest.approx(0, abs=1e-9) and abs(distances["sinkhorn"]) < 1e-6


def test_modes_are_counted_by_their_share_of_exact_samples():
    means = torch.tensor([[0.0], [10.0], [20.0]], dtype=torch.float64)
    exact = means.repeat_interleave(torch.tensor([50, 30, 20]), 0)
    # one mode is there, one has less than a tenth of its share, one is missing
    x = means.repeat_interleave(torch.tensor([98, 2, 0]), 0)
    shares = mode_shares(x, exact, means)
    assert shares["mode_coverage"] == pytest.approx(1 / 3)
    assert shares["mode_distance"] == pytest.approx(0.48)
    assert mode_shares(exact, exact, means) == {"mode_coverage": 1.0, "mode_distance": 0.0}


def test_a_good_sampler_is_at_the_floor_and_between_the_bounds():
    target = GaussianTarget([0.4, -0.6], [[0.8, 0.2], [0.2, 0.5]])
    module = ParticleDenoisingDiffusionSampler(target, Standard(), OrnsteinUhlenbeck(), num_steps=12)
    metrics = SampleQuality(num_particles=600, num_samples=600)(module)
    assert metrics["test/elbo"] < 0.02 and metrics["test/eubo"] > -0.02
    assert metrics["test/sliced_w2"] < 3 * metrics["test/sliced_w2_floor"]
    assert metrics["test/mode_coverage"] == 1


def test_a_sampler_that_misses_a_mode_is_found_out():
    evidence = AnnealedSMC(TWO, Standard(2.0), num_particles=600).estimate()
    quality = SampleQuality(num_samples=600)
    good = quality.compare(evidence, TWO)
    assert good["mode_coverage"] == 1 and good["mode_distance"] < 0.1
    inside = evidence.samples[:, 0] > 0
    blind = dataclasses.replace(
        evidence, log_weights=torch.where(inside, evidence.log_weights, -torch.inf).log_softmax(0)
    )
    bad = quality.compare(blind, TWO)
    assert bad["mode_coverage"] == 0.5
    assert bad["sliced_w2"] > 3 * bad["sliced_w2_floor"] and bad["sinkhorn"] > 3 * bad["sinkhorn_floor"]


@pytest.mark.parametrize("weighted", [False, True])
def test_reference_samples_stand_in_for_exact_ones(tmp_path, monkeypatch, weighted):
    evidence = AnnealedSMC(TWO, Standard(2.0), num_particles=600).estimate()
    exact = TWO.sample(2000)
    saved = {"samples": exact, "log_weights": torch.full((2000,), -(2000**0.5))} if weighted else exact
    torch.save(saved, tmp_path / "reference.pt")
    monkeypatch.setattr(TWO, "sample", None)
    metrics = SampleQuality(num_samples=600, reference=str(tmp_path / "reference.pt")).compare(evidence, TWO)
    assert metrics["mode_distance"] < 0.1


def test_without_exact_samples_only_the_lower_bound_is_told():
    class Quartic(GaussianTarget):
        def sample(self, n, *, generator=None):
            raise NotImplementedError

    module = ParticleDenoisingDiffusionSampler(Quartic(), Standard(3.0), OrnsteinUhlenbeck(), num_particles=50)
    assert set(SampleQuality()(module)) == {"test/elbo"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "num_particles must be at least 1"),
        ({"num_samples": 1}, "num_samples must be at least 2"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SampleQuality(**options)
