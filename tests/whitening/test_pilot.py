import pytest
import torch

from sbflow.target import Mixture2D
from sbflow.whitening import Affine, Pilot, Standard


def test_the_pilot_run_starts_from_its_own_law() -> None:
    affine = Pilot(Standard(2.5)).fit(Mixture2D())
    assert torch.equal(affine.scale, torch.full((2,), 2.5).double())


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_refit_has_the_moments_of_the_samples_and_the_shapes_of_the_empty_law(diagonal) -> None:
    x, log_weights = Mixture2D().sample(500), torch.randn(500, dtype=torch.float64)
    pilot = Pilot(Standard(), diagonal=diagonal, inflation=1.2)
    refitted, empty = pilot.refit(x, log_weights), pilot.empty(2)
    expected = Affine.from_samples(x, log_weights, diagonal=diagonal, inflation=1.2)
    assert torch.equal(refitted.scale, expected.scale) and torch.equal(refitted.loc, expected.loc)
    empty.load_state_dict(refitted.state_dict())


def test_a_pilot_that_covers_all_modes_covers_the_target() -> None:
    target = Mixture2D()
    samples = target.sample(20_000)
    affine = Pilot(Standard(2.5)).refit(samples, torch.zeros(20_000))
    # by the law of total covariance
    second = target.covariances + torch.einsum("ki,kj->kij", target.means, target.means)
    mean = target.weights @ target.means
    covariance = torch.einsum("k,kij->ij", target.weights, second) - torch.outer(mean, mean)
    torch.testing.assert_close((affine.scale @ affine.scale.T).float(), covariance, rtol=0.05, atol=0.05)


def test_a_bad_inflation_is_named() -> None:
    with pytest.raises(ValueError, match="inflation must be positive and finite, got 0"):
        Pilot(Standard(), inflation=0.0)
