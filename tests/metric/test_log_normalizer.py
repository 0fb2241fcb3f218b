import math
from types import SimpleNamespace

import pytest
import torch

from sbflow.metric.log_normalizer import LogNormalizer


class FakeSampler:
    def __init__(self, log_normalizer: float | None) -> None:
        self.target = SimpleNamespace(log_normalizer=log_normalizer)
        self.calls = []

    def estimate(self, **arguments):
        self.calls.append(arguments)
        log_z = torch.tensor([1.0, 2.0, 3.0]) if arguments["trained"] else torch.tensor([0.0, 0.0, 6.0])
        return SimpleNamespace(
            log_z_replicates=log_z,
            log_z_stderr_replicates=torch.tensor([1.0, 2.0, 2.0]),
            num_steps=7,
            weight_variance=math.nan,
            predicted_variance=math.nan,
        )


def test_bias_and_spread_of_known_replicates():
    metrics = LogNormalizer()(FakeSampler(1.5))
    assert metrics == pytest.approx(
        {
            "test/num_steps": 7,
            "test/log_z_stderr": 3**0.5,
            "test/log_z_stderr_untrained": 3**0.5,
            "test/log_z_mean": 2,
            "test/log_z_sd": 1,
            "test/log_z_bias": 0.5,
            "test/log_z_rmse": (2.75 / 3) ** 0.5,
            "test/log_z_mean_untrained": 2,
            "test/log_z_sd_untrained": 12**0.5,
            "test/log_z_bias_untrained": 0.5,
            "test/log_z_rmse_untrained": (24.75 / 3) ** 0.5,
        }
    )


def test_without_a_known_log_normalizer_there_is_no_error():
    metrics = LogNormalizer()(FakeSampler(None))
    names = {f"test/log_z_{name}{suffix}" for name in ("mean", "sd", "stderr") for suffix in ("", "_untrained")}
    assert set(metrics) == names | {"test/num_steps"}


def test_both_potentials_are_run_with_the_same_settings():
    module = FakeSampler(0.0)
    LogNormalizer(num_particles=7, num_seeds=3, num_steps=5, seed=9)(module)
    same = {"num_particles": 7, "num_steps": 5, "replicates": 3, "seed": 9}
    assert module.calls == [same | {"trained": True}, same | {"trained": False}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_particles": 0}, "num_particles must be at least 1, got 0"),
        ({"num_seeds": 1}, "num_seeds must be at least 2, got 1"),
        ({"num_steps": 0}, "num_steps must be at least 1 or null, got 0"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogNormalizer(**arguments)
