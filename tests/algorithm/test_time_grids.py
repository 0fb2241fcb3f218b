"""Grids of times of the particle sampler: chosen, stored, followed in training."""

import logging

import pytest
import torch
from assertions import assert_mean_close
from lightning import Trainer
from problems import MIXTURE, MixtureDensity

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.algorithm.pool import Pool
from sbflow.data import ParticleData
from sbflow.network import MLP
from sbflow.potential import MixturePotential
from sbflow.process import OrnsteinUhlenbeck, uniform_times
from sbflow.smc import GuidedDenoising
from sbflow.whitening import Standard

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
TARGET = MixtureDensity(MIXTURE)


def sampler(**options) -> ParticleDenoisingDiffusionSampler:
    settings = {"num_steps": 4, "num_particles": 100, "refinements": 1, "updates_per_refinement": 20, "batch_size": 50}
    network = MLP((2,), hidden=(16,), embed_dim=8)
    return ParticleDenoisingDiffusionSampler(
        TARGET, Standard(1.3), OrnsteinUhlenbeck(), network, **settings | options
    ).double()


def fit(module: ParticleDenoisingDiffusionSampler) -> ParticleDenoisingDiffusionSampler:
    Trainer(
        max_steps=module.max_steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, ParticleData(TARGET, refresh_every=2))
    return module


def grid(module: ParticleDenoisingDiffusionSampler, num_steps: int = 4, *, trained: bool = True):
    module.prepare(num_steps, trained=trained)
    key = (num_steps, trained and bool(module.trained))
    found = module.scheme.grids[key]
    assert torch.equal(found.times, module.scheme.ladders[key].times)
    return found


@pytest.mark.filterwarnings("ignore:the path is")
def test_the_cost_is_that_of_the_path_for_a_trained_potential_and_that_of_pilots_for_the_naive_one():
    module = fit(sampler(time_grid="optimal"))
    assert module.trained
    assert grid(module).cost == "path" and grid(module, trained=False).cost == "pilot"
    exact = GuidedDenoising(module.process, MixturePotential(*MIXTURE[:3], module.process))
    _, found = module.scheme.tuned(exact, module.like(1, 1), 8)
    assert found.cost == "path" and len(found.times) == 9
    record = module.estimate(replicates=200)
    assert_mean_close((record.log_z_replicates - MIXTURE.log_z).exp(), 1.0)


def test_a_grid_is_stored_with_what_it_was_made_for(tmp_path):
    module = sampler(time_grid="adaptive", coefficient="tweedie")
    module.prepare(3)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    other = sampler(time_grid="adaptive", coefficient="tweedie")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    one, two = module.scheme.grids[3, False], other.scheme.grids[3, False]
    assert torch.equal(one.times, two.times) and one[1:] == two[1:]
    assert two.coefficient == "tweedie" and two.length > 0 and two.num_samples == 1000
    other.prepare(3)
    assert other.training_evaluations.equal(module.training_evaluations)


def test_a_grid_that_was_made_for_another_proposal_is_made_anew():
    module = sampler(time_grid="adaptive", coefficient="tweedie")
    module.prepare()
    other = sampler(time_grid="adaptive", coefficient="lambda")
    other.load_state_dict(module.state_dict())
    assert grid(other).coefficient == "lambda"
    assert not torch.equal(grid(other).times, grid(module).times)


def test_a_checkpoint_without_grids_keeps_its_ladders():
    module, other = sampler(time_grid="adaptive"), sampler(time_grid="adaptive")
    module.prepare()
    state = module.scheme.get_extra_state()
    other.scheme.set_extra_state({"ladders": state["ladders"]})
    other.prepare()
    assert torch.equal(other.scheme.ladders[4, False].times, module.scheme.ladders[4, False].times)


def test_the_draws_of_an_estimate_are_not_those_of_its_grid():
    module = sampler(time_grid="adaptive")
    before = grid(module).times
    first = module.estimate(seed=1)
    assert torch.equal(grid(module).times, before)
    assert module.estimate(seed=1).log_z == first.log_z


def test_training_moves_the_times_a_little_at_each_refresh():
    slow, fast = (fit(sampler(time_grid="online", time_rate=rate)) for rate in (0.05, 1.0))
    moved = [(grid(module).times - uniform_times(4).flip(0)).abs().max() for module in (slow, fast)]
    assert 0 < moved[0] < moved[1]
    found = grid(fast)
    assert (found.times.diff() < 0).all() and found.cost == "pilot" and found.num_samples == 100
    # for the last word of training, and for the next
    assert torch.equal(found.times, fast.scheme.online.times)


def test_a_followed_grid_serves_any_number_of_steps():
    module = fit(sampler(time_grid="online", time_rate=0.5))
    own, finer = grid(module), grid(module, 8)
    assert torch.allclose(finer.times[::2], own.times)
    assert finer.length == own.length and finer.predicted_variance == pytest.approx(own.predicted_variance / 2)
    assert len(grid(module, 3).times) == 4


def test_even_grids_need_no_pilot():
    module = sampler()
    module.prepare()
    assert module.scheme.grids == {(4, False): None}
    assert not module.training_evaluations.any()


def test_a_grid_from_a_checkpoint_follows_the_particles_to_their_device():
    module = sampler(time_grid="adaptive")
    module.prepare()
    kernel = GuidedDenoising(module.process, module.potential(None), module.coefficient)
    module.scheme.prepare((4, False), kernel, torch.empty(1, 1, 2, device="meta"))
    assert module.scheme.ladders[4, False].times.device.type == "meta"


def test_a_pool_from_a_checkpoint_follows_the_module_to_its_device(monkeypatch):
    module = sampler()
    module.whiten()
    module.pool, module.stream = Pool(torch.zeros(5, 2), torch.ones(5, 2)), 0
    monkeypatch.setattr(type(module), "device", torch.device("meta"))
    module.on_fit_start()
    assert {part.device.type for part in module.pool} == {"meta"}
