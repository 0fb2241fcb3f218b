"""What counts as agreement."""

import math

import pytest
import torch

from sbflow.selfcheck import Measurement
from sbflow.selfcheck.measurement import mean_of, worst_mean


@pytest.mark.parametrize(
    ("measured", "stderr", "tolerance", "relation", "passed"),
    [
        (1.04, 0.01, 0.0, "=", True),
        (1.06, 0.01, 0.0, "=", False),
        (0.94, 0.01, 0.0, "=", False),
        (1.06, 0.01, 0.02, "=", True),
        (0.90, 0.01, 0.0, "<", True),
        (0.96, 0.01, 0.0, "<", False),
        (math.nan, 0.01, 0.0, "=", False),
        (math.nan, 0.01, 0.0, "<", False),
        (1.0, math.nan, 0.0, "=", False),
    ],
)
def test_a_number_passes_within_five_standard_errors(measured, stderr, tolerance, relation, passed):
    one = Measurement("x", measured, 1.0, stderr, tolerance, relation)
    assert one.passed == passed
    assert one.verdict == ("ok" if passed else "FAILED")


def test_the_mean_that_is_furthest_off_in_standard_errors_is_shown():
    samples = torch.randn(10_000, 2, 3, dtype=torch.float64) * torch.tensor([10.0, 1.0, 0.1])
    expected = torch.zeros(2, 3)
    expected[1, 2] = 0.02
    found = worst_mean("x", samples, expected)
    assert not found.passed
    assert found.expected == pytest.approx(0.02)
    assert found.stderr == pytest.approx(0.1 / 100, rel=0.1)


def test_a_sample_that_is_no_number_fails():
    samples = torch.zeros(10, 3)
    samples[4, 1] = torch.nan
    assert not worst_mean("x", samples, 0.0).passed
    assert not mean_of("x", torch.full((10,), torch.inf), 1.0).passed


def test_draws_that_do_not_vary_may_be_off_by_rounding_only():
    assert mean_of("x", torch.full((10,), 0.1, dtype=torch.float64), 0.1).passed
    assert not mean_of("x", torch.full((10,), 0.1, dtype=torch.float64), 0.1001).passed


def test_what_broke_down_is_a_failure_that_says_why():
    broken = Measurement.broken("x", RuntimeError("no\nmemory"))
    assert not broken.passed
    assert broken.verdict == "FAILED (RuntimeError: no memory)"
