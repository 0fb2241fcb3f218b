"""A user's density from end to end: a plain function of named, partly bounded parameters."""

import math

import pytest
import torch
from problems_eight_schools import PARAMETERS, PUBLISHED, exact, log_prob

from sbflow.notebook import estimate_log_z

REPLICATES = 10


@pytest.fixture(scope="module")
def evidence():
    # the mode of the unconstrained τ is far from its mean: a variational fit describes the posterior, Laplace does not
    return estimate_log_z(
        log_prob, constraints=PARAMETERS, whitening="full_rank", num_particles=2000, replicates=REPLICATES, seed=0
    )


def mean_and_stderr(evidence, name):
    """Posterior mean, and its standard error from the spread over independent runs."""
    weights = evidence.log_weights.reshape(REPLICATES, -1).softmax(1)
    means = (weights * evidence.parameters[name].double().reshape(REPLICATES, -1)).sum(1)
    return means.mean().item(), means.std().item() / math.sqrt(REPLICATES)


def test_exact_moments_by_quadrature_are_the_published_ones():
    truth = exact()
    assert truth.mean_mu == pytest.approx(PUBLISHED["mu"][0], abs=0.05)
    assert truth.mean_tau == pytest.approx(PUBLISHED["tau"][0], abs=0.05)
    assert truth.std_mu == pytest.approx(PUBLISHED["mu"][1], abs=0.05)
    assert truth.std_tau == pytest.approx(PUBLISHED["tau"][1], abs=0.05)


@pytest.mark.parametrize("name", ["mu", "tau"])
def test_posterior_means_are_those_published_within_three_standard_errors(evidence, name):
    mean, stderr = mean_and_stderr(evidence, name)
    truth = getattr(exact(), f"mean_{name}")
    assert stderr < 0.1
    assert abs(mean - truth) < 3 * stderr
    # published to one decimal
    assert abs(mean - PUBLISHED[name][0]) < 3 * stderr + 0.05


def test_the_evidence_is_that_of_quadrature(evidence):
    assert evidence.log_z_stderr < 0.05
    assert abs(evidence.log_z - exact().log_z) < 5 * evidence.log_z_stderr


def test_samples_come_back_in_the_space_of_the_parameters(evidence):
    assert {name: tuple(value.shape[1:]) for name, value in evidence.parameters.items()} == {
        "mu": (), "tau": (), "eta": (8,)
    }  # fmt: skip
    assert (evidence.parameters["tau"] > 0).all()
    torch.testing.assert_close(evidence.samples[:, 1], evidence.parameters["tau"])
