import math

import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MIXTURE, MixtureDensity
from torch import Tensor

from sbflow.loss import Denoising, Fisher, Novel, Target
from sbflow.network import MLP
from sbflow.potential import Guide, MixturePotential, NaivePotential, NeuralPotential, Potential
from sbflow.process import Cosine, OrnsteinUhlenbeck

PROCESS = OrnsteinUhlenbeck(Cosine())
ZERO = torch.zeros((), dtype=torch.float64)
LOSSES = {
    "novel": Novel(),
    "denoising": Denoising(),
    "target": Target(),
    "fisher": Fisher(),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
every_problem = pytest.mark.parametrize("components", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])


def exact(components) -> MixturePotential:
    return MixturePotential(*components[:3], PROCESS, components.log_z)


def level(t: float) -> float:
    return PROCESS.noise_level(torch.tensor(t, dtype=torch.float64)).item()


def weight(loss, t: Tensor) -> Tensor:
    """What a loss multiplies the squared error of the gradient by."""
    lam = PROCESS.noise_level(t)
    if isinstance(loss, Denoising):
        return lam
    return 1 - lam if isinstance(loss, Target) else torch.ones_like(lam)


class Perturbed(Potential):
    """The exact potential plus a function of z with gradient ``offset`` (1, sin 2 z₁) in a positive half plane."""

    def __init__(self, potential: Potential, offset: Tensor) -> None:
        super().__init__()
        self.potential, self.offset = potential, offset

    def log_g(self, z, t):
        return self.potential.log_g(z, t) + (z @ self.offset) * (z.sum(1) > 0.2)


class Constant(Potential):
    """A potential without gradient, under which a loss is the second moment of its label."""

    def log_g(self, z, t):
        return 0 * z.sum(1)


@every_loss
@every_problem
def test_an_error_of_the_gradient_costs_its_square_and_nothing_else(loss, components):
    potential, offset = exact(components), torch.tensor([0.3, -0.2], dtype=torch.float64)
    perturbed = Perturbed(potential, offset)
    excess = []
    for k in range(40):
        x0 = MixtureDensity(components).sample(500)
        grad = potential.log_g_and_grad(x0, ZERO)[1]
        t = torch.rand(500, dtype=torch.float64) * 0.8 + 0.1
        losses = [
            loss(one, PROCESS, x0, grad, t, generator=torch.Generator().manual_seed(k))
            for one in (potential, perturbed)
        ]
        noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        lam = PROCESS.noise_level(t)[:, None]
        x_t = (1 - lam).sqrt() * x0 + lam.sqrt() * noise
        error = (perturbed.log_g_and_grad(x_t, t)[1] - potential.log_g_and_grad(x_t, t)[1]).square().sum(1)
        excess.append(losses[1] - losses[0] - (weight(loss, t) * error).mean())
    assert_mean_close(torch.stack(excess), 0.0)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.8])
def test_the_variance_of_each_label_is_the_closed_one_of_a_gaussian(t):
    # given X_t every label is affine in X_0, of variance v λ / (λ + α² v) in a coordinate of variance v
    v, mean, n = 2.5, torch.tensor([0.7, -0.3], dtype=torch.float64), 200_000
    lam = level(t)
    alpha2 = 1 - lam
    posterior = v * lam / (lam + alpha2 * v)
    expected = {
        # the loss's weight times the squared slope of its label in X_0 times that variance
        "novel": alpha2 * (1 - 1 / v) ** 2 * posterior,
        "denoising": lam * alpha2 / lam**2 * posterior,
        "target": alpha2 / (alpha2 * v**2) * posterior,
    }
    covariance = v * torch.eye(2, dtype=torch.float64)
    potential = MixturePotential(mean[None], covariance[None], torch.ones(1, dtype=torch.float64), PROCESS)
    x0 = mean + math.sqrt(v) * torch.randn(n, 2, dtype=torch.float64)
    grad = potential.log_g_and_grad(x0, ZERO)[1]
    times = torch.full((n,), t, dtype=torch.float64)
    for name, variance in expected.items():
        loss = LOSSES[name](potential, PROCESS, x0, grad, times)
        # squared errors are 2 v χ² / 2 variables: relative standard error 1 / √n
        assert loss.item() == pytest.approx(2 * variance, rel=5 / math.sqrt(n)), name


def test_the_optimal_label_is_the_gradient_itself_for_a_gaussian_with_independent_coordinates():
    variances = torch.tensor([0.05, 1.0, 9.0], dtype=torch.float64)
    mean = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)
    potential = MixturePotential(mean[None], variances.diag()[None], torch.ones(1, dtype=torch.float64), PROCESS)
    x0 = mean + variances.sqrt() * torch.randn(100_000, 3, dtype=torch.float64)
    grad = potential.log_g_and_grad(x0, ZERO)[1]
    t = torch.rand(len(x0), dtype=torch.float64)
    losses = [loss(potential, PROCESS, x0, grad, t).item() for loss in LOSSES.values()]
    # what is left is the error of the information, estimated from the batch
    assert losses[3] < 1e-3 * min(losses[:3])


@every_problem
@pytest.mark.parametrize("t", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_the_optimal_label_has_the_least_variance_at_every_level(components, t):
    x0 = MixtureDensity(components).sample(20_000)
    potential = exact(components)
    grad = potential.log_g_and_grad(x0, ZERO)[1]
    times = torch.full((len(x0),), t, dtype=torch.float64)
    variance = {
        name: (loss(potential, PROCESS, x0, grad, times) / weight(loss, times[:1])).item()
        for name, loss in LOSSES.items()
    }
    assert variance["fisher"] <= 1.02 * min(variance.values())


def test_the_optimal_mix_is_the_one_that_regression_finds():
    # second moment of (1 − c) T + c D + x_t − x_t over c: least at c = E[T (T − D)] / E[(T − D)²]
    components, t, n = MIXTURE, 0.35, 200_000
    lam = level(t)
    x0 = MixtureDensity(components).sample(n)
    score0 = exact(components).log_g_and_grad(x0, ZERO)[1] - x0
    noise = torch.randn_like(x0)
    target, denoising = score0 / math.sqrt(1 - lam), -noise / math.sqrt(lam)
    regressed = (target * (target - denoising)).mean(0) / (target - denoising).square().mean(0)
    information = score0.square().mean(0)
    torch.testing.assert_close(regressed, lam / (lam + (1 - lam) / information), rtol=0, atol=0.01)


def test_the_information_that_weighs_a_sample_is_that_of_the_others():
    # two samples at one time: each label must depend on its own score linearly, as its weight comes from the other
    x0, t = torch.zeros(2, 1, dtype=torch.float64), torch.full((2,), 0.4, dtype=torch.float64)
    lam = level(0.4)

    def moment(own: float, other: float) -> float:
        scores = torch.tensor([[own], [other]], dtype=torch.float64)
        generator = torch.Generator().manual_seed(2)
        return Fisher()(Constant(), PROCESS, x0, scores, t, generator=generator).item()

    noise = torch.randn(2, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def label(own: float, other: float, k: int) -> float:
        mix = lam / (lam + (1 - lam) / other**2)
        x_t = math.sqrt(lam) * noise[k, 0].item()
        return (1 - mix) * own / math.sqrt(1 - lam) - mix * noise[k, 0].item() / math.sqrt(lam) + x_t

    expected = 0.5 * (label(3.0, 0.5, 0) ** 2 + label(0.5, 3.0, 1) ** 2)
    assert moment(3.0, 0.5) == pytest.approx(expected, rel=1e-9)


@every_loss
@pytest.mark.parametrize("t", [0.0, 1e-7, 1e-3, 1.0])
def test_gradients_stay_finite_at_both_ends_in_single_precision(loss, t):
    target = MixtureDensity(MIXTURE)
    naive = NaivePotential(target, PROCESS)
    guide = Guide(MLP((2,), hidden=(8,)))
    x0 = target.sample(64)
    grad = naive.log_g_and_grad(x0, ZERO)[1]
    value = loss(NeuralPotential(naive, guide), PROCESS, x0.float(), grad.float(), torch.full((64,), t))
    value.backward()
    assert value.isfinite() and value.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in guide.parameters())


@every_loss
def test_a_batch_of_one_has_a_loss(loss):
    x0 = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    t = torch.tensor([0.5], dtype=torch.float64)
    assert loss(Constant(), PROCESS, x0, 2 * x0, t).isfinite()


@every_loss
def test_noise_comes_from_the_generator(loss):
    x0 = MixtureDensity(MIXTURE).sample(8)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    grad = exact(MIXTURE).log_g_and_grad(x0, ZERO)[1]
    values = [
        loss(exact(MIXTURE), PROCESS, x0, grad, t, generator=torch.Generator().manual_seed(seed)).item()
        for seed in (1, 1, 2)
    ]
    assert values[0] == values[1] != values[2]
