"""The diffusion sampler that learns from exact samples: its scores, its draws, its weights and its resumption."""

import logging
import math
import warnings

import pytest
import torch
from assertions import assert_mean_close
from commands import sbflow
from lightning import Trainer

from sbflow import ScoreDiffusion
from sbflow.algorithm.score_field import PathPotential, ScoreField
from sbflow.data import ParticleData
from sbflow.network import MLP
from sbflow.potential import MixturePotential, NaivePotential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import Evidence
from sbflow.target import Funnel, GaussianMixture, GaussianTarget, Target
from sbflow.whitening import Standard, Whitened

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
PROCESS = OrnsteinUhlenbeck()
GAUSSIAN = GaussianTarget([0.4, -0.6], [[0.8, 0.3], [0.3, 0.5]])
MIXTURE = GaussianMixture(
    [[2.0, 0.0], [-2.0, 0.5], [0.0, -2.0]], [[[v, 0.0], [0.0, v]] for v in (0.09, 0.25, 0.04)], [0.5, 0.3, 0.2]
)


def diffusion(target=GAUSSIAN, whitening=None, hidden=(8,), **options) -> ScoreDiffusion:
    settings = {"num_steps": 5, "train_steps": 6, "num_samples": 200, "batch_size": 16} | options
    return ScoreDiffusion(target, whitening, PROCESS, MLP((2,), hidden=hidden, embed_dim=16), **settings)


def fit(module, max_steps=None, ckpt_path=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Trainer(
            max_steps=max_steps or module.max_steps,
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = ParticleData(GAUSSIAN, refresh_every=4)
        run.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return run


class ExactField(torch.nn.Module):
    """The gradient that a network should learn."""

    def __init__(self, target: GaussianMixture, module: ScoreDiffusion) -> None:
        super().__init__()
        self.potential = MixturePotential.of(target, module.affine.double(), PROCESS)

    def forward(self, z, t):
        return self.potential.log_g_and_grad(z.double(), t)[1].to(z.dtype)


def with_exact_scores(**options) -> ScoreDiffusion:
    """Standardised by samples, but with the true score of the whitened mixture."""
    module = diffusion(MIXTURE, **options)
    module.whiten()
    module.ema.module = ExactField(MIXTURE, module)
    module.ema.n_averaged.fill_(1)
    return module


def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(tmp_path):
    torch.manual_seed(3)
    whole = diffusion()
    start = {name: value.clone() for name, value in whole.field.state_dict().items()}
    fit(whole)
    half = diffusion()
    half.field.load_state_dict(start)
    half.ema.module.load_state_dict(start)
    torch.manual_seed(3)
    fit(half, max_steps=3).save_checkpoint(tmp_path / "half.ckpt")
    # another process: other initial weights, another state of the global stream
    torch.manual_seed(99)
    resumed = diffusion()
    fit(resumed, ckpt_path=tmp_path / "half.ckpt")
    states = whole.state_dict(), resumed.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["field.network.out.weight"], start["network.out.weight"])
    assert torch.equal(whole.sample(7, seed=1), resumed.sample(7, seed=1))


def test_an_untrained_network_draws_from_the_reference_law():
    module = diffusion(whitening=Standard(std=3.0))
    x = module.sample(4000, seed=2)
    assert_mean_close(x, 0.0)
    assert_mean_close(x.square(), 9.0)
    assert not torch.equal(x, module.sample(4000, seed=3))
    assert torch.equal(x, module.sample(4000, seed=2))


def test_with_the_exact_score_the_draws_follow_the_target():
    module = with_exact_scores(num_steps=200)
    x = module.sample(2000).double()
    nearest = torch.cdist(x, MIXTURE.means.double()).argmin(1)
    # the error of 200 steps is far below the standard errors of 2000 draws, the variance of the narrowest mode apart
    for k, (weight, mean) in enumerate(zip(MIXTURE.weights, MIXTURE.means, strict=True)):
        assert_mean_close((nearest == k).double(), float(weight))
        assert_mean_close(x[nearest == k], mean.double())
        spread = (x[nearest == k] - mean).square().mean()
        assert float(spread) == pytest.approx(float(MIXTURE.covariances[k, 0, 0]), rel=0.2)


def test_the_weights_of_whole_paths_make_an_unbiased_estimate_whatever_was_learned():
    shift = 0.3

    class Wrong(ExactField):
        def forward(self, z, t):
            return super().forward(z, t) + shift

    module = diffusion(MIXTURE, num_steps=8)
    module.whiten()
    module.ema.module = Wrong(MIXTURE, module)
    module.ema.n_averaged.fill_(1)
    evidence = module.estimate(num_particles=100, replicates=300)
    assert_mean_close(evidence.log_z_replicates.exp(), 1.0)
    assert not evidence.resampled.any()


def test_the_better_the_scores_the_larger_the_effective_sample_size():
    shares = [with_exact_scores().estimate(num_particles=300, num_steps=k).ess / 300 for k in (8, 64)]
    assert shares[0] < 0.5 < 0.7 < shares[1]


def test_score_and_gradient_of_the_potential_differ_by_the_point():
    module = with_exact_scores()
    z, t = torch.randn(6, 2), torch.rand(6, dtype=torch.float64)
    torch.testing.assert_close(module.score(z, t), module.grad_log_g(z, t) - z)
    step = module.kernel()(z, torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64))
    assert step.mean.shape == z.shape


def test_the_density_is_evaluated_where_it_must_be_and_nowhere_else():
    whitened = Whitened(MIXTURE, Standard().empty(2).float())
    potential = PathPotential(NaivePotential(whitened, PROCESS), ScoreField(MLP((2,), hidden=(4,)), PROCESS))
    z, zero = torch.randn(3, 2), torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(potential.log_g(z, zero), potential.naive.log_g(z, zero))
    assert not potential.log_g(z, zero + 0.1).any()
    mixed = potential.log_g(z, torch.tensor([0.0, 0.3, 0.0], dtype=torch.float64))
    assert mixed[1] == 0 and mixed[0] != 0 and mixed[2] != 0
    module = with_exact_scores()
    cost = module.estimate(num_particles=50).cost
    assert cost.density == 50 and cost.gradient == 0


def test_samples_alone_are_learned_from_by_denoising():
    samples = GAUSSIAN.sample(300)
    module = diffusion(None, samples=samples, loss="denoising")
    fit(module)
    x = module.sample(5)
    assert x.shape == (5, 2) and x.isfinite().all()
    torch.testing.assert_close(module.affine.loc, samples.double().mean(0))
    with pytest.raises(ValueError, match="estimate needs the density"):
        module.estimate()


def test_samples_with_a_density_bring_its_score():
    module = diffusion(Funnel(2), samples=GAUSSIAN.sample(300))
    fit(module)
    x = module.affine(module.pool.x)
    expected = module.affine.pull_back(Funnel(2).score(x))
    torch.testing.assert_close(module.pool.score, expected, rtol=1e-3, atol=1e-3)


class NoSampler(Target):
    dim = 2

    def log_prob(self, x):
        return -x.square().sum(1)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (None, {}, "give target, samples or both"),
        (None, {"samples": torch.randn(9, 2)}, "samples without a target need loss='denoising'"),
        (GAUSSIAN, {"samples": torch.randn(9, 3)}, r"samples must have shape \[m, 2\] with m >= 2, got \[9, 3\]"),
        (None, {"samples": torch.randn(9), "loss": "denoising"}, r"samples must have shape .* got \[9\]"),
        (GAUSSIAN, {"num_steps": 0}, "num_steps must be at least 1, got 0"),
        (GAUSSIAN, {"train_steps": 0}, "train_steps must be at least 1, got 0"),
        (GAUSSIAN, {"learning_rate": 0.0}, "learning_rate must be positive"),
        (GAUSSIAN, {"coefficient": "euler"}, "coefficient must be"),
        (GAUSSIAN, {"loss": "mse"}, "loss must be one of novel, denoising, target, fisher"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(unchecked_types, target, options, message):
    with pytest.raises(ValueError, match=message):
        diffusion(target, **options)


def test_a_target_without_a_sampler_is_refused_with_advice():
    with pytest.raises(ValueError, match="NoSampler has no exact sampler: give samples"):
        fit(diffusion(NoSampler()))


def test_scores_that_are_not_finite_are_counted():
    class Broken(NoSampler):
        def log_prob_and_score(self, x):
            return self.log_prob(x), torch.where(x > 1, torch.nan, -2 * x)

    samples = torch.tensor([[0.0, 0.5], [2.0, -1.0], [-0.3, 0.1]])
    with pytest.raises(ValueError, match="it is not at 1 of 3"):
        fit(diffusion(Broken(), whitening=Standard(), samples=samples, loss="target"))


TINY = (
    "algorithm.train_steps=4",
    "algorithm.num_samples=300",
    "algorithm.num_steps=5",
    "algorithm.num_particles=50",
    "metric.num_particles=50",
    "metric.num_samples=60",
    "data.refresh_every=2",
)


def test_the_command_line_trains_measures_and_samples(tmp_path):
    run = tmp_path / "run"
    assert sbflow("train", "experiment=score_diffusion_mixture_2d", *TINY, f"run_dir={run}").code == 0
    assert (run / "metrics.json").is_file()
    assert sbflow("sample", f"checkpoint={run}", "num_particles=40", f"run_dir={tmp_path / 'drawn'}").code == 0
    assert Evidence.load(tmp_path / "drawn").samples.shape == (40, 2)


@pytest.mark.slow
def test_three_thousand_steps_learn_the_score_at_every_level():
    torch.manual_seed(0)
    options = {"num_samples": 30_000, "batch_size": 300, "train_steps": 3000, "learning_rate": 3e-3, "ema_decay": 0.99}
    module = ScoreDiffusion(MIXTURE, None, PROCESS, MLP((2,), hidden=(64, 64, 64)), **options)
    fit(module)
    x0 = module.affine.inverse(MIXTURE.sample(20_000))
    exact = ExactField(MIXTURE, module)
    for level in (1e-3, 1e-2, 0.05, 0.2, 0.5, 0.9):
        t = time_of(level)
        z = math.sqrt(1 - level) * x0 + math.sqrt(level) * torch.randn_like(x0)
        truth = exact(z, t) - z
        with torch.no_grad():
            error = (module.score(z, t) - truth).square().sum(1).mean() / truth.square().sum(1).mean()
        assert error < (0.006 if level == 1e-3 else 0.008), level


def time_of(level: float) -> torch.Tensor:
    """Where the process has this much noise, by bisection."""
    low, high = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if PROCESS.noise_level(middle) < level else (low, middle)
    return low
