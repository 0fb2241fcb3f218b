import copy
import logging
import math
import warnings

import pytest
import torch
from assertions import assert_mean_close
from lightning import Callback, Trainer
from problems import linear_regression

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.data import ParticleData
from sbflow.network import MLP
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import CallableTarget, GaussianTarget
from sbflow.whitening import Laplace, Standard

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

TARGET = GaussianTarget([0.4, -0.6], [[0.8, 0.2], [0.2, 0.5]])


def sampler(target=TARGET, whitening=None, *, trainable: bool = True, **options) -> ParticleDenoisingDiffusionSampler:
    settings = {"num_steps": 4, "num_particles": 50, "updates_per_refinement": 4, "batch_size": 16}
    network = MLP((target.dim,), hidden=(16,), embed_dim=8) if trainable else None
    return ParticleDenoisingDiffusionSampler(
        target, whitening or Standard(), OrnsteinUhlenbeck(), network, **settings | options
    )


def fit(module, *callbacks: Callback, refresh_every: int = 2, ckpt_path=None, **options) -> Trainer:
    """Train in memory."""
    settings = {
        "max_steps": module.max_steps,
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*log_every_n_steps.*")
        run = Trainer(**settings | options, callbacks=list(callbacks))
        run.fit(
            module, ParticleData(module.target, refresh_every=refresh_every), ckpt_path=ckpt_path, weights_only=False
        )
    return run


class Recorder(Callback):
    """Keeps what each refinement begins with and what the optimiser remembers."""

    def __init__(self) -> None:
        self.averages, self.drawing, self.state_steps, self.rates, self.pools = [], [], [], [], []

    def on_before_backward(self, trainer, module, loss):
        self.averages.append(copy.deepcopy(module.ema.module.state_dict()))
        self.drawing.append(copy.deepcopy(module.drawing.state_dict()))
        self.rates.append(module.optimizers().optimizer.param_groups[0]["lr"])
        self.pools.append(module.pool[0])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.state_steps.append({int(entry["step"]) for entry in module.optimizers().optimizer.state.values()})


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_each_refinement_draws_with_the_average_of_the_one_before():
    module, recorder = sampler(refinements=3), Recorder()
    initial = copy.deepcopy(module.guide.state_dict())
    # pilots that find no difference: every refinement is kept
    module._pilot = lambda _: torch.zeros(2)
    fit(module, recorder)
    assert all(same(drawing, initial) for drawing in recorder.drawing[:4])
    for begin in (4, 8):
        handed_over = recorder.averages[begin]
        assert not same(handed_over, initial) and not same(handed_over, recorder.averages[begin - 4])
        assert all(same(drawing, handed_over) for drawing in recorder.drawing[begin : begin + 4])


def test_each_refinement_starts_with_a_fresh_optimiser_at_the_peak_rate():
    recorder = Recorder()
    fit(sampler(refinements=2, learning_rate=3e-3), recorder)
    assert recorder.state_steps == [{1}, {2}, {3}, {4}] * 2
    expected = [3e-3 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)] * 2
    assert recorder.rates == pytest.approx(expected)


@pytest.mark.parametrize("refresh_every", [3, 5, 100])
def test_the_guide_is_handed_over_whatever_the_refresh_period(refresh_every):
    module, recorder = sampler(refinements=2), Recorder()
    initial = copy.deepcopy(module.guide.state_dict())
    fit(module, recorder, refresh_every=refresh_every)
    assert not same(recorder.drawing[-1], initial)
    assert recorder.state_steps[4] == {1}


def test_particles_are_refreshed_once_per_period():
    recorder = Recorder()
    fit(sampler(refinements=1, updates_per_refinement=6), recorder, refresh_every=3)
    pools = recorder.pools
    assert all(torch.equal(pool, pools[0]) for pool in pools[:3])
    assert all(torch.equal(pool, pools[3]) for pool in pools[3:])
    assert not torch.equal(pools[0], pools[3])


def test_a_run_stopped_between_refreshes_can_be_resumed(tmp_path):
    module = sampler(refinements=2)
    fit(module, max_steps=3).save_checkpoint(tmp_path / "half.ckpt")
    resumed, recorder = sampler(refinements=2), Recorder()
    run = fit(resumed, recorder, ckpt_path=tmp_path / "half.ckpt")
    assert run.global_step == 8 and len(recorder.pools) == 5
    assert int(resumed.ema.n_averaged) == 8


def test_checkpoints_bring_whitening_guide_and_average(tmp_path):
    target = linear_regression()
    module = sampler(target, Laplace(), refinements=1)
    fit(module).save_checkpoint(tmp_path / "last.ckpt")
    fresh = sampler(target, Laplace(), refinements=1)
    fresh.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"])
    assert fresh.trained and fresh.whitened
    one, other = (m.estimate(seed=3, replicates=2) for m in (module, fresh))
    assert one.log_z == pytest.approx(other.log_z, abs=1e-6)


def test_estimates_are_unbiased_trained_or_not():
    module = sampler(refinements=1)
    fit(module)
    records = [module.estimate(replicates=1000, num_particles=20, seed=0, trained=trained) for trained in (True, False)]
    assert records[0].log_z != records[1].log_z
    for record in records:
        # the target is normalised
        assert_mean_close(record.log_z_replicates.exp(), 1.0)


def test_laplace_whitening_finds_the_evidence_of_a_linear_regression():
    target = linear_regression()
    record = sampler(target, Laplace(), trainable=False).estimate(replicates=20, num_particles=100)
    # whitened, the posterior is the reference: no variance is left
    assert record.log_z == pytest.approx(target.log_normalizer, abs=1e-3)
    mean = target.posterior().means[0]
    weighted = (record.log_weights.exp()[:, None] * record.samples).sum(0)
    spread = target.posterior().covariances[0].diagonal().sqrt() / 2000**0.5
    assert ((weighted - mean).abs() < 5 * spread).all()


def test_estimates_take_counts_from_training_unless_given():
    module = sampler(trainable=False)
    record = module.estimate(replicates=3)
    assert (record.num_particles, record.num_steps, len(record.log_z_replicates)) == (50, 4, 3)
    assert record.samples.shape == (150, 2)
    # one evaluation per particle and time
    assert record.density_evaluations == 150 * 5
    other = module.estimate(num_particles=7, num_steps=9)
    assert (other.num_particles, other.num_steps) == (7, 9)


def test_a_seed_fixes_the_estimate_and_leaves_the_global_stream_alone():
    module = sampler(trainable=False)
    module.whiten()
    state = torch.get_rng_state()
    one, same_seed, other = (module.estimate(seed=seed).log_z for seed in (1, 1, 2))
    assert one == same_seed != other
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_come_back_in_the_coordinates_of_the_target():
    shifted = GaussianTarget([40.0, -6.0], [[9.0, 0.0], [0.0, 0.04]])
    record = sampler(shifted, Laplace(), trainable=False, num_particles=2000).estimate()
    weights = record.log_weights.exp()[:, None]
    mean = (weights * record.samples).sum(0)
    stderr = torch.tensor([3.0, 0.2]) / record.ess**0.5
    assert ((mean - torch.tensor([40.0, -6.0])).abs() < 5 * stderr).all()


def test_training_without_a_network_is_refused_with_advice():
    with pytest.raises(ValueError, match="network must be given to train"):
        fit(sampler(trainable=False))


@pytest.mark.parametrize("count", ["num_particles", "num_steps", "replicates"])
def test_estimates_refuse_counts_below_one(count):
    with pytest.raises(ValueError, match=f"{count} must be at least 1, got 0"):
        sampler(trainable=False).estimate(**{count: 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "num_particles must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"refinements": -1}, "need refinements >= 0"),
        ({"updates_per_refinement": 0}, "updates_per_refinement >= 1"),
        ({"ess_threshold": 1.5}, r"ess_threshold must lie in \[0, 1\], got 1.5"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampler(**options)


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_coefficient_is_refused_at_once():
    with pytest.raises(ValueError, match="coefficient must be 'lambda', 'exponential' or 'tweedie', got 'x'"):
        sampler(coefficient="x")


def test_a_process_that_is_not_stationary_under_the_reference_is_refused():
    with pytest.raises(ValueError, match="sigma"):
        ParticleDenoisingDiffusionSampler(TARGET, Standard(), OrnsteinUhlenbeck(sigma=2.0))


def test_a_density_that_is_nan_is_reported():
    target = CallableTarget(lambda x: x.sum(1) * torch.nan, 2)
    with pytest.raises(FloatingPointError, match="log density is NaN for 50 particles at time 1"):
        sampler(target, trainable=False).estimate()


@pytest.mark.slow
def test_training_steadies_the_estimate():
    # a narrow diagonal far from the reference: the naive potential leaves a wide spread
    target = GaussianTarget([1.5, -1.5], [[0.6, 0.5], [0.5, 0.6]])
    module = sampler(target, refinements=1, updates_per_refinement=600, num_particles=500, batch_size=128, num_steps=8)
    fit(module, refresh_every=100, gradient_clip_val=1.0)
    spread = {
        trained: module.estimate(replicates=50, trained=trained, num_particles=200).log_z_replicates.std().item()
        for trained in (True, False)
    }
    assert spread[True] < 0.5 * spread[False]


def test_a_refinement_that_a_pilot_run_finds_worse_is_discarded():
    module = sampler(num_particles=400)
    module.whiten()
    before = copy.deepcopy(module.drawing.state_dict())
    # an average gone astray: a steep random field with an open gate
    generator = torch.Generator().manual_seed(0)
    for parameter in module.ema.module.parameters():
        parameter.copy_(3 * torch.randn(parameter.shape, generator=generator))
    with pytest.warns(UserWarning, match="discarded"):
        module._hand_over()
    assert not module.trained
    assert same(module.drawing.state_dict(), before)


def test_a_refinement_that_is_no_worse_is_kept():
    module = sampler(num_particles=400)
    module.whiten()
    # at initialisation the guide is the naive potential itself
    module._hand_over()
    assert module.trained
    assert same(module.drawing.state_dict(), module.ema.module.state_dict())


def test_the_pilot_run_shares_no_draws_with_an_estimate():
    module = sampler(num_particles=30)
    module.whiten()
    pilot = module._pilot(module.potential(None))
    for seed in range(5):
        drawn = module.estimate(replicates=len(pilot), seed=seed, trained=False).log_z_replicates
        assert not torch.isclose(drawn, pilot).any()


def test_pilot_runs_of_many_numbers_are_made_a_few_at_a_time(monkeypatch):
    module = sampler(num_particles=30)
    module.whiten()
    sweeps = []
    run = module._run
    monkeypatch.setattr(module, "_run", lambda *given: sweeps.append(given[1].shape) or run(*given))
    monkeypatch.setattr(f"{type(module).__module__}.PILOT_SIZE", 4 * 30 * 2 + 1)
    assert module._pilot(module.potential(None)).isfinite().sum() == 10
    assert sweeps == [(4, 30, 2), (4, 30, 2), (2, 30, 2)]
