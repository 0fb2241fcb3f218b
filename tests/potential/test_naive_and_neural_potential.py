import pytest
import torch
from problems import MIXTURE, MixtureDensity

from sbflow.loss import Novel
from sbflow.network import MLP
from sbflow.potential import Guide, NaivePotential, NeuralPotential
from sbflow.process import Cosine, OrnsteinUhlenbeck
from sbflow.target import CallableTarget

PROCESS = OrnsteinUhlenbeck(Cosine())
TIMES = torch.tensor([0.0, 0.01, 0.3, 0.7, 1.0], dtype=torch.float64)
TARGET = MixtureDensity(MIXTURE)


def naive() -> NaivePotential:
    return NaivePotential(TARGET, PROCESS)


def neural(*, trained: bool, dtype: torch.dtype = torch.float64) -> NeuralPotential:
    guide = Guide(MLP((2,), hidden=(16, 16), embed_dim=8), num_features=8, hidden=8).to(dtype)
    if trained:
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return NeuralPotential(naive(), guide)


def log_g0(z: torch.Tensor) -> torch.Tensor:
    return TARGET.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)


def test_the_naive_potential_is_the_initial_one_at_the_shrunk_point():
    z = torch.randn(len(TIMES), 2, dtype=torch.float64)
    shrink = PROCESS.schedule.alpha_bar(TIMES).sqrt()
    assert shrink[0] == 1
    assert torch.allclose(naive().log_g(z, TIMES), log_g0(shrink[:, None] * z), rtol=1e-12)


@pytest.mark.parametrize("potential", [naive(), neural(trained=True)], ids=["naive", "neural"])
def test_gradients_are_those_of_the_values(potential):
    z = torch.randn(len(TIMES), 2, dtype=torch.float64, requires_grad=True)
    log_g, grad = potential.log_g_and_grad(z.detach(), TIMES)
    value = potential.log_g(z, TIMES)
    (expected,) = torch.autograd.grad(value.sum(), z)
    assert torch.allclose(log_g, value) and torch.allclose(grad, expected, rtol=1e-9)


@pytest.mark.parametrize("potential", [naive(), neural(trained=True)], ids=["naive", "neural"])
def test_a_scalar_time_is_the_same_time_for_every_particle(potential):
    z = torch.randn(4, 2, dtype=torch.float64)
    for t in TIMES:
        for one, many in zip(potential.log_g_and_grad(z, t), potential.log_g_and_grad(z, t.expand(4)), strict=True):
            assert torch.allclose(one, many, rtol=1e-12)


def test_training_starts_at_the_naive_potential():
    z = torch.randn(len(TIMES), 2, dtype=torch.float64)
    for start, expected in zip(
        neural(trained=False).log_g_and_grad(z, TIMES), naive().log_g_and_grad(z, TIMES), strict=True
    ):
        assert torch.equal(start, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 300])
def test_whatever_was_learned_the_gate_is_exactly_closed_at_time_zero(dtype, n):
    for _ in range(5):
        guide = neural(trained=True, dtype=dtype).guide
        assert (guide.gate(torch.zeros(n, dtype=dtype)) == 0).all()
        assert (guide.gate(torch.full((n,), 0.5, dtype=dtype)) != 0).all()


@pytest.mark.parametrize("n", [1, 7, 300])
def test_whatever_was_learned_the_potential_is_exact_at_time_zero(n):
    z, zero = torch.randn(n, 2, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    potential = neural(trained=True)
    for learned, expected in zip(potential.log_g_and_grad(z, zero), naive().log_g_and_grad(z, zero), strict=True):
        assert torch.equal(learned, expected)
    assert not torch.allclose(potential.log_g(z, zero + 0.5), naive().log_g(z, zero + 0.5))


def test_a_learned_guide_never_brings_a_point_outside_the_support_to_life():
    class HalfPlane(MixtureDensity):
        def log_prob(self, x):
            return torch.where(x[:, 0] > 0, super().log_prob(x), -torch.inf)

    potential = neural(trained=True)
    potential.naive.target = HalfPlane(MIXTURE)
    levels = PROCESS.noise_level(TIMES)
    with torch.no_grad():
        # the gate is linear in its last layer: put it at 2 at the fourth time
        potential.guide.scale[-1].weight.mul_(2 / potential.guide.gate(levels)[3])
    assert potential.guide.gate(levels)[3].item() == pytest.approx(2)
    z = torch.tensor([[-0.5, 0.3]], dtype=torch.float64).expand(len(TIMES), 2)
    log_g = potential.log_g(z, TIMES)
    assert log_g[0] == -torch.inf and not log_g.isnan().any() and (log_g < torch.inf).all()


def test_the_loss_reaches_every_parameter_of_the_guide():
    potential = neural(trained=True)
    x0 = TARGET.sample(32)
    t = torch.rand(32, dtype=torch.float64) * 0.9 + 0.1
    grad_log_g0 = naive().log_g_and_grad(x0, torch.zeros((), dtype=torch.float64))[1]
    Novel()(potential, PROCESS, x0, grad_log_g0, t).backward()
    unreached = [
        name
        for name, parameter in potential.guide.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not unreached


@pytest.mark.parametrize(("gate", "share"), [(-0.5, 1.5), (0.25, 0.75), (1.01, 0.0), (2.0, 0.0)])
def test_the_naive_part_is_never_rewarded_for_what_it_forbids(gate, share):
    steep = NaivePotential(CallableTarget(lambda x: -1e6 * x.square().sum(1), 2), PROCESS)
    guide = Guide(MLP((2,), hidden=(8,)))
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        t = torch.tensor(0.5)
        level = PROCESS.noise_level(t).reshape(1)
        guide.scale[-1].weight.mul_(gate / guide.gate(level))
        z = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
        value, grad = NeuralPotential(steep, guide).log_g_and_grad(z, t)
        naive, _ = steep.log_g_and_grad(z, t)
        rest = value - gate * guide(z, level)
    assert torch.allclose(rest, share * naive, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(grad).all() and ((grad.norm(dim=1) > 1e3) == (share > 0)).all()


def test_the_very_first_update_already_moves_the_gate():
    potential = neural(trained=False)
    x0 = TARGET.sample(32)
    grad_log_g0 = naive().log_g_and_grad(x0, torch.zeros((), dtype=torch.float64))[1]
    Novel()(potential, PROCESS, x0, grad_log_g0, torch.rand(32, dtype=torch.float64)).backward()
    assert potential.guide.scale[-1].weight.grad.any()
