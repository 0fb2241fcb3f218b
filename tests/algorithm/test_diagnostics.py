"""What is logged: closed forms, and the keys that other tools watch."""

import pytest
import torch
from assertions import assert_mean_close
from bridges import fit, make_data, make_flow
from lightning import Callback
from lightning.pytorch.callbacks import EarlyStopping
from problems import LinearDrift, asymmetric_coupling, path_moments

from sbflow.algorithm.diagnostics import consistency, energy_distance, generated, translations
from sbflow.coupling import Online, Rollout
from sbflow.data import Gaussians
from sbflow.integrator import time_grid
from sbflow.loss import Pairs, bidirectional_pairs
from sbflow.process import Brownian

EPSILON = 0.6


class Exact(LinearDrift):
    """Exact drifts with the attributes that a bridge network has."""

    def __init__(self, *, backwards: float = 1.0) -> None:
        coupling = asymmetric_coupling()
        super().__init__(coupling, EPSILON)
        self.mean = torch.stack([coupling.mean0, coupling.mean1])
        self.backwards = backwards

    def forward(self, x, u, direction):
        return super().forward(x, u, direction) * torch.where(direction == 1, self.backwards, 1.0)[:, None]


class Marginals:
    """The path of the asymmetric coupling."""

    def marginal(self, t: float):
        mean, covariance = path_moments(asymmetric_coupling(), EPSILON, torch.tensor([t], dtype=torch.float64))
        return mean[0], covariance[0]


def coupled(n: int) -> Pairs:
    x0, x1 = asymmetric_coupling().sample(2 * n)
    return bidirectional_pairs((x0[:n], x1[:n]), (x1[n:], x0[n:]))


def test_the_drifts_of_one_process_are_consistent():
    values = [consistency(Exact(), coupled(500), Marginals()) for _ in range(20)]
    slopes, errors = (torch.stack([one[f"drift_{name}"] for one in values]) for name in ("consistency", "error"))
    assert_mean_close(slopes, 1.0)
    assert errors.max() < 1e-6
    assert consistency(Exact(), coupled(100_000))["drift_bias"] < 0.02


def test_drifts_of_different_processes_are_not():
    values = consistency(Exact(backwards=0.5), coupled(20_000), Marginals())
    assert abs(values["drift_consistency"] - 1) > 0.1 and values["drift_error"] > 0.1 and values["drift_bias"] > 0.2


def test_the_energy_distance_is_that_of_shifted_normals():
    shift = 1.5
    normal = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    # E|N(m, 2)| − E|N(0, 2)|, folded normal
    z = torch.tensor(shift / 2**0.5).double()
    folded = 2**0.5 * (2 * normal.log_prob(z).exp() + z * (2 * normal.cdf(z) - 1))
    expected = 2 * (folded - 2 * torch.tensor(torch.pi).double() ** -0.5)
    found = [energy_distance(torch.randn(50, 1), torch.randn(70, 1) + shift) for _ in range(300)]
    assert_mean_close(torch.stack(found), expected)
    same = [energy_distance(torch.randn(50, 3), torch.randn(70, 3)) for _ in range(300)]
    assert_mean_close(torch.stack(same), 0.0)


@pytest.mark.parametrize("event", [(3,), (2, 4, 4)])
def test_moments_of_translations_are_relative_to_their_target(event):
    statistics = (event[0], *(1,) * (len(event) - 1))
    mean, variance = torch.randn(statistics), torch.full(statistics, 4.0)
    source, noise = torch.randn(4000, *event), torch.randn(4000, *event)
    exact = generated(source, mean + 2 * noise, mean, variance)
    off = generated(source, mean + 4 * noise + 2, mean, variance)
    assert abs(exact.variance_ratio - 1) < 0.05 and exact.mean_error < 0.05
    assert abs(off.variance_ratio - 5) < 0.2 and abs(off.mean_error - 1) < 0.1
    assert torch.isclose(exact.msd, (source - mean - 2 * noise).square().mean())


def test_the_translations_of_a_direction_are_the_starts_that_train_the_other():
    rollout = Rollout(LinearDrift(asymmetric_coupling(), 1e-20), Brownian(1e-20), time_grid("uniform", 4))
    x0, x1 = asymmetric_coupling().sample(6)
    pairs = Online().pairs(x0, x1, rollout, 0)
    made, source = translations(pairs, 0)
    assert torch.equal(source, x0) and torch.allclose(made, rollout(x0, torch.zeros(6).long()))


class Logged(Callback):
    """Keeps the names of everything that was logged."""

    def __init__(self) -> None:
        self.names = set()

    def on_train_batch_end(self, trainer, *_):
        self.names |= set(trainer.callback_metrics)


def test_moments_cost_and_consistency_are_logged_while_training():
    logged = Logged()
    data = Gaussians(dim=2, num_samples=200, batch_size=16)
    fit(make_flow(pretrain_steps=4, finetune_steps=4), data, logged, log_every_n_steps=2)
    both = [f"{name}{suffix}" for name in ("msd", "variance_ratio", "mean_error") for suffix in ("", "_backward")]
    expected = ["loss", "drift_consistency", "drift_bias", "drift_error", *both]
    assert {f"train/{name}" for name in expected} <= logged.names


def test_a_run_stops_early_by_the_validation_distance():
    module = make_flow(pretrain_steps=60, finetune_steps=0, learning_rate=1e-9)
    stop = EarlyStopping("val/energy_distance", patience=2, min_delta=0.01)
    validated = {"limit_val_batches": 2, "val_check_interval": 5, "check_val_every_n_epoch": None}
    run = fit(module, make_data(), stop, **validated)
    assert run.global_step == 15 and float(stop.best_score) > 0
    assert {f"val/{name}_{way}" for name in ("msd", "variance_ratio") for way in ("forward", "backward")} <= set(
        run.callback_metrics
    )
