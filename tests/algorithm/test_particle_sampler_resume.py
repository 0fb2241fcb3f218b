"""Training that was killed goes on to the same weights, bit for bit."""

import logging
import warnings

import pytest
import torch
from lightning import Trainer

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.data import ParticleData
from sbflow.network import MLP
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import GaussianTarget
from sbflow.whitening import Laplace

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
TARGET = GaussianTarget([0.4, -0.6], [[0.8, 0.2], [0.2, 0.5]])
UPDATES = 7


def sampler(**options):
    network = MLP((2,), hidden=(8,), embed_dim=4)
    settings = {"num_steps": 3, "num_particles": 40, "updates_per_refinement": UPDATES, "batch_size": 8}
    return ParticleDenoisingDiffusionSampler(
        TARGET, Laplace(inflation=1.4), OrnsteinUhlenbeck(), network, **settings | {"refinements": 2} | options
    )


def fit(module, max_steps=2 * UPDATES, ckpt_path=None, refresh_every=3):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Trainer(
            max_steps=max_steps,
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
        )
        data = ParticleData(TARGET, refresh_every=refresh_every)
        run.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return run


def same(one, other):
    """Whether nested containers hold the same tensors and numbers, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# within a pool, at the end of one, at the end of a refinement, in the second
@pytest.mark.parametrize(
    ("stop", "options"),
    [
        *((stop, {}) for stop in (2, 3, UPDATES, UPDATES + 1, UPDATES + 5)),
        (UPDATES + 1, {"moves": "mala", "time_grid": "adaptive"}),
        (UPDATES + 1, {"time_grid": "online", "time_rate": 0.5}),
    ],
)
def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(tmp_path, stop, options):
    torch.manual_seed(3)
    whole = sampler(**options)
    start = {name: value.clone() for name, value in whole.guide.state_dict().items()}
    fit(whole)
    half = sampler(**options)
    half.guide.load_state_dict(start)
    half.ema.module.load_state_dict(start)
    torch.manual_seed(3)
    fit(half, max_steps=stop).save_checkpoint(tmp_path / "half.ckpt")
    # another process: other initial weights, another state of the global stream
    torch.manual_seed(99)
    resumed = sampler(**options)
    fit(resumed, ckpt_path=tmp_path / "half.ckpt")
    assert not same(dict(whole.guide.state_dict()), start)
    assert same(dict(whole.state_dict()), dict(resumed.state_dict()))
    assert torch.equal(whole.pool.x, resumed.pool.x)
    assert whole.estimate(seed=1).log_z == resumed.estimate(seed=1).log_z


def test_what_was_tuned_travels_with_the_weights(tmp_path):
    module = sampler(moves="mala", time_grid="adaptive", tempering=0.8)
    module.prepare()
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    other = sampler(moves="mala", time_grid="adaptive", tempering=0.8)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert other.scheme.ladders.keys() == {(3, False)}
    for one, two in zip(module.scheme.ladders[3, False], other.scheme.ladders[3, False], strict=True):
        assert torch.equal(one, two)
