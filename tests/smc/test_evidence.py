import json
import math

import pytest
import torch
from problems import GAUSSIAN

from sbflow import smc
from sbflow.potential import MixturePotential
from sbflow.process import OrnsteinUhlenbeck, uniform_times

PROCESS = OrnsteinUhlenbeck()


def evidence(replicates: int, n: int = 30, *, num_steps: int = 4, ess_threshold: float = 0.3) -> smc.Evidence:
    particles, path = smc.sample(
        smc.GuidedDenoising(PROCESS, MixturePotential(*GAUSSIAN[:3], PROCESS, GAUSSIAN.log_z)),
        torch.empty(replicates, n, 2, dtype=torch.float64),
        uniform_times(num_steps).flip(0),
        ess_threshold=ess_threshold,
    )
    return smc.Evidence.from_run(particles, path, 10 + 2 * particles.x, evaluations=77, seconds=1.5)


def test_the_estimate_is_the_mean_of_the_replicates_and_its_error_their_spread():
    record = evidence(6)
    z = record.log_z_replicates.exp()
    assert record.log_z == pytest.approx(z.mean().log().item(), rel=1e-12)
    assert record.log_z_stderr == pytest.approx((z.std() / z.mean() / 6**0.5).item(), rel=1e-9)


def test_the_error_of_one_run_without_resampling_is_that_of_importance_sampling():
    record = evidence(1, ess_threshold=0.0)
    assert record.log_z_stderr == pytest.approx(math.sqrt((1 / record.ess - 1 / 30) * 30 / 29), rel=1e-9)


def test_one_particle_says_nothing_about_its_error():
    assert not evidence(1, n=1).log_z_stderr < math.inf


def test_pooled_weights_count_every_run_by_its_own_constant():
    record = evidence(3, n=20)
    weights = record.log_weights.exp().reshape(3, 20)
    assert weights.sum().item() == pytest.approx(1.0)
    assert torch.allclose(weights.sum(1), record.log_z_replicates.softmax(0))
    assert record.samples.shape == (60, 2) and 1 <= record.ess <= 60
    assert record.ess == pytest.approx((1 / (weights**2).sum()).item())


def test_the_summary_holds_plain_numbers_and_survives_the_file(tmp_path):
    record = evidence(3)
    record.save(tmp_path)
    saved = json.loads((tmp_path / "evidence.json").read_text())
    assert saved == record.summary()
    required = {"log_z", "log_z_stderr", "ess", "num_steps", "num_particles", "density_evaluations", "seconds"}
    assert required <= saved.keys()
    assert (saved["num_steps"], saved["num_particles"], saved["replicates"]) == (4, 30, 3)
    assert (saved["density_evaluations"], saved["seconds"]) == (77, 1.5)
    assert saved["log_z_sd"] == pytest.approx(record.log_z_replicates.std().item())
    assert len(saved["ess_path"]) == 5 and all(0 < ess <= 30 + 1e-9 for row in saved["ess_path"] for ess in row)
    tensors = torch.load(tmp_path / "samples.pt")
    assert torch.equal(tensors["samples"], record.samples)
    assert torch.equal(tensors["log_weights"], record.log_weights)


def test_the_line_that_is_printed_holds_estimate_and_error():
    record = evidence(2)
    assert f"log Z = {record.log_z:.4f} ± {record.log_z_stderr:.4f}" in str(record)


def test_ancestors_are_counted_in_the_worst_run():
    record = evidence(3, ess_threshold=0.0)
    assert record.num_ancestors == 30
    assert evidence(3, num_steps=20, ess_threshold=1.0).num_ancestors < 30
