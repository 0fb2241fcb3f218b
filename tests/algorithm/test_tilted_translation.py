"""Translations in proportion to a reward, with exact drifts."""

import math

import pytest
import torch
from test_corrector import BRIDGES, X0, bridge

from sbflow.algorithm.tilted_translation import tilted_translation

FLOW = bridge(*BRIDGES[0])
WANTED = torch.tensor([2.0, -1.0], dtype=torch.float64)


def reward(x_in: torch.Tensor, x_out: torch.Tensor) -> torch.Tensor:
    """Depends on both ends."""
    return -((x_out - WANTED) ** 2).sum(1) - 0.3 * ((x_out - x_in) ** 2).sum(1)


def test_the_mean_of_the_reward_is_that_of_plain_translations():
    x, n = X0[:3], 40_000
    found = [tilted_translation(FLOW, x, reward, num_particles=32, num_steps=5, seed=seed) for seed in range(12)]
    plain = FLOW.translate(x.repeat_interleave(n, 0), num_steps=5, method="euler", seed=9)
    weights = reward(x.repeat_interleave(n, 0), plain).exp().reshape(3, n)
    z, error = weights.mean(1), weights.std(1) / n**0.5
    ratios = torch.stack([one.log_z.exp() / z for one in found])
    # what plain translations leave open of the reference itself
    assert ((ratios.mean(0) - 1).abs() < 5 * (ratios.var(0) / 12 + (error / z) ** 2).sqrt()).all()
    assert all(one.ess.min() > 8 for one in found)
    assert torch.stack([one.log_z_stderr for one in found]).mean() > 0


def test_a_tilted_translation_goes_towards_the_reward_and_stays_diverse():
    tilted = tilted_translation(FLOW, X0[:4], reward, num_particles=64, num_steps=10)
    assert tilted.samples.shape == (4, 64, 2) and tilted.log_weights.shape == (4, 64)
    assert torch.allclose(tilted.log_weights.logsumexp(1), torch.zeros(4, dtype=torch.float64), atol=1e-9)
    plain = FLOW.translate(X0[:4].repeat_interleave(64, 0), num_steps=10, method="euler", seed=1)
    closer = (tilted.samples.flatten(0, 1) - WANTED).square().sum(1).mean()
    assert closer < 0.7 * (plain - WANTED).square().sum(1).mean()
    assert (tilted.samples.std(1) > 0.1).all()


def test_without_a_reward_it_is_a_plain_translation():
    tilted = tilted_translation(FLOW, X0[:2], lambda x_in, x_out: 0 * x_out[:, 0], num_particles=2000, num_steps=8)
    assert torch.equal(tilted.log_z, torch.zeros(2, dtype=torch.float64))
    plain = FLOW.translate(X0[:2].repeat_interleave(20_000, 0), num_steps=8, method="euler", seed=3).unflatten(
        0, (2, -1)
    )
    error = (2.0 / 2000) ** 0.5 * plain.std(1).max()
    assert ((tilted.samples.mean(1) - plain.mean(1)).abs() < 5 * error).all()


def test_the_other_direction_is_tilted_too():
    tilted = tilted_translation(FLOW, X0[:1] + 1, lambda x_in, x_out: x_out[:, 0], "backward", num_particles=4000)
    law = FLOW.ema.module.laws[1]
    # E[e^{x₁}] of the bridge, discretised finely
    mean, variance = law.conditional_mean(X0[:1] + 1)[0, 0], law.epsilon * law.gain[0, 0]
    assert float(tilted.log_z[0]) == pytest.approx(float(mean + variance / 2), abs=0.1)


def test_impossible_options_are_refused():
    for options, message in (
        ({"num_draws": 3}, "num_draws must be even"),
        ({"variance": math.nan}, "variance must be finite"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"num_particles": 0}, "num_particles must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            tilted_translation(FLOW, X0[:1], reward, **options)


@pytest.mark.parametrize(("inputs", "num_particles"), [(0, 4), (2, 1)])
def test_no_inputs_give_no_translations_and_one_particle_no_error(inputs, num_particles):
    tilted = tilted_translation(FLOW, X0[:inputs], reward, num_particles=num_particles, num_steps=1)
    assert tilted.samples.shape == (inputs, num_particles, 2)
    assert tilted.log_z_stderr.isnan().all() and tilted.log_z.isfinite().all()
