"""The suite notices what is wrong; that it passes on what is right is the test of the command."""

import pytest
import torch

import sbflow
from sbflow.process import Brownian, GaussianBridge
from sbflow.selfcheck import Measurement, bridge, measurements, particles, precision, suite
from sbflow.smc import GuidedDenoising, resampling

CPU = torch.device("cpu")


def failures(check) -> int:
    return sum(not one.passed for one in check(CPU, 0))


def change(monkeypatch, owner, name, wrap):
    monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))


@pytest.mark.parametrize("check", [bridge.closed_form, bridge.simulated_bridge])
def test_a_drift_that_is_five_percent_off_is_noticed(monkeypatch, check):
    change(monkeypatch, GaussianBridge, "drift", lambda drift: lambda *args: 1.05 * drift(*args))
    assert failures(check) > 0


@pytest.mark.parametrize("check", [bridge.bridge_matching_minimum, bridge.discretised_flow])
def test_a_wrong_regression_target_is_noticed(monkeypatch, check):
    change(monkeypatch, Brownian, "drift_to_end", lambda to_end: lambda self, x, x1, t: 0.9 * to_end(self, x, x1, t))
    assert failures(check) > 0


def test_noise_of_a_wrong_scale_is_noticed(monkeypatch):
    change(monkeypatch, Brownian, "diffusion", lambda diffusion: lambda *args: 1.1 * diffusion(*args))
    assert failures(bridge.simulated_bridge) > 0
    assert failures(bridge.discretised_flow) > 0


def test_uniforms_that_are_not_uniform_are_noticed_in_every_scheme(monkeypatch):
    change(monkeypatch, resampling, "_uniforms", lambda uniforms: lambda *args: 0.8 * uniforms(*args))
    assert failures(particles.resampling_counts) == 6


def test_incremental_weights_that_are_off_are_noticed(monkeypatch):
    change(monkeypatch, GuidedDenoising, "log_weight", lambda weight: lambda *args: 0.97 * weight(*args) + 0.01)
    assert failures(particles.resampling_evidence) == 6


def test_single_precision_that_is_half_precision_is_noticed(monkeypatch):
    def rounded(drift):
        return lambda *args: drift(*args) if args[1].dtype == torch.float64 else drift(*args).half().float()

    change(monkeypatch, GaussianBridge, "drift", rounded)
    assert failures(precision.single_precision) == 1


def test_a_check_that_breaks_down_fails_and_the_others_go_on(monkeypatch):
    def broken_check(device, seed):
        yield Measurement("before", 1.0, 1.0)
        raise RuntimeError("out of memory")

    def sound_check(device, seed):
        yield Measurement("after", float(seed), 3.0)

    monkeypatch.setattr(suite, "CHECKS", (broken_check, sound_check))
    found = sbflow.check(seed=3)
    assert [one.passed for one in found] == [True, False, True]
    assert found[1].name == "broken check" and "out of memory" in found[1].verdict


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        list(measurements(seed=-1))


def test_the_cpu_is_not_compared_with_itself():
    assert list(precision.other_device(CPU, 0)) == []
