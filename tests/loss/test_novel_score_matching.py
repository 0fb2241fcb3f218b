import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MIXTURE, MixtureDensity

from sbflow.loss import Novel
from sbflow.network import MLP
from sbflow.potential import Guide, MixturePotential, NaivePotential, NeuralPotential, Potential
from sbflow.process import Cosine, OrnsteinUhlenbeck
from sbflow.tensor import expand_to

PROCESS = OrnsteinUhlenbeck(Cosine())
PROBLEMS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}
every_problem = pytest.mark.parametrize("components", PROBLEMS.values(), ids=PROBLEMS)
ZERO = torch.zeros((), dtype=torch.float64)


def exact(components) -> MixturePotential:
    return MixturePotential(*components[:3], PROCESS, components.log_z)


def noised(components, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(X_t, √ᾱ_t ∇ log g_0(X_0)) for exact samples of the target."""
    x0 = MixtureDensity(components).sample(len(t))
    keep = expand_to(PROCESS.schedule.alpha_bar(t), x0)
    x_t = keep.sqrt() * x0 + (1 - keep).sqrt() * torch.randn_like(x0)
    return x_t, keep.sqrt() * exact(components).log_g_and_grad(x0, ZERO)[1]


@every_problem
@pytest.mark.parametrize("t", [0.05, 0.3, 0.6, 0.95])
def test_the_label_has_the_gradient_of_the_potential_as_conditional_mean(components, t):
    t = torch.full((50_000,), t, dtype=torch.float64)
    x_t, label = noised(components, t)
    residual = label - exact(components).log_g_and_grad(x_t, t)[1]
    # a conditional mean of zero makes the residual orthogonal to every function of x_t
    for feature in (torch.ones_like(x_t), x_t, x_t.flip(1), torch.sin(2 * x_t), (x_t.sum(1, keepdim=True) > 0.3)):
        assert_mean_close(residual * feature, 0.0)


class Perturbed(Potential):
    """The exact potential plus ⟨offset, z⟩ at every time."""

    def __init__(self, potential: Potential, offset: torch.Tensor) -> None:
        super().__init__()
        self.potential, self.offset = potential, offset

    def log_g(self, z, t):
        return self.potential.log_g(z, t) + z @ self.offset


@every_problem
def test_a_potential_pays_the_squared_distance_of_its_gradient_from_the_truth(components):
    potential, offset = exact(components), torch.tensor([0.3, -0.2], dtype=torch.float64)
    excess = []
    for k in range(200):
        x0 = MixtureDensity(components).sample(100)
        grad = potential.log_g_and_grad(x0, ZERO)[1]
        t = torch.rand(100, dtype=torch.float64)
        losses = [
            Novel()(one, PROCESS, x0, grad, t, generator=torch.Generator().manual_seed(k))
            for one in (potential, Perturbed(potential, offset))
        ]
        excess.append(losses[1] - losses[0])
    assert_mean_close(torch.stack(excess), (offset**2).sum())


@every_problem
def test_the_naive_potential_is_beaten_by_the_exact_one(components):
    target = MixtureDensity(components)
    x0, t = target.sample(20_000), torch.rand(20_000, dtype=torch.float64)
    grad = exact(components).log_g_and_grad(x0, ZERO)[1]
    losses = [
        Novel()(one, PROCESS, x0, grad, t, generator=torch.Generator().manual_seed(0)).item()
        for one in (exact(components), NaivePotential(target, PROCESS))
    ]
    assert losses[0] < 0.9 * losses[1]


def test_without_noise_the_exact_potential_has_no_loss():
    x0 = MixtureDensity(MIXTURE).sample(50)
    grad = exact(MIXTURE).log_g_and_grad(x0, ZERO)[1]
    t = torch.zeros(50, dtype=torch.float64)
    assert Novel()(exact(MIXTURE), PROCESS, x0, grad, t).item() < 1e-25


@pytest.mark.parametrize("t", [0.0, 1e-7, 1e-3, 1.0])
def test_gradients_of_a_neural_potential_stay_finite_at_both_ends_in_single_precision(t):
    target = MixtureDensity(MIXTURE)
    naive = NaivePotential(target, PROCESS)
    guide = Guide(MLP((2,), hidden=(8,)))
    x0 = target.sample(64)
    grad = naive.log_g_and_grad(x0, ZERO)[1]
    potential = NeuralPotential(naive, guide)
    loss = Novel()(potential, PROCESS, x0.float(), grad.float(), torch.full((64,), t))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in guide.parameters())
