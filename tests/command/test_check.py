"""``sbflow check`` prints its table and says by its exit code whether all is well."""

import pytest
from commands import sbflow

from sbflow.selfcheck import Measurement


def pretend(monkeypatch, *found):
    monkeypatch.setattr("sbflow.command.check.measurements", lambda **_: iter(found))


def test_a_failure_is_shown_and_sets_the_exit_code(monkeypatch, capsys):
    pretend(monkeypatch, Measurement("first", 1.25, 1.0, 0.01), Measurement("second", 2.0, 2.0))
    result = sbflow("check", capsys=capsys)
    assert result.code == 1
    (row,) = [line for line in result.out.splitlines() if "first" in line]
    assert all(part in row for part in ("1.25", "0.01", "FAILED"))
    assert "1 of 2 checks passed" in result.out


def test_success_is_exit_code_zero_and_names_device_and_seed(monkeypatch, capsys):
    pretend(monkeypatch, Measurement("only", 2.0, 2.0))
    result = sbflow("check", "device=cpu", "seed=5", capsys=capsys)
    assert result.code == 0
    assert "cpu" in result.out and "seed 5" in result.out and "1 of 1 checks passed" in result.out


@pytest.mark.parametrize(
    ("argument", "word"),
    [("device=abacus", "device=abacus"), ("seed=-1", "seed must be at least 0"), ("seed=x", "seed must be int")],
)
def test_impossible_options_are_refused(argument, word, capsys):
    result = sbflow("check", argument, capsys=capsys)
    assert result.code == 2
    assert word in result.err and len(result.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_every_closed_form_is_met_on_this_machine(capsys):
    result = sbflow("check", "device=cpu", "seed=1", capsys=capsys)
    assert result.code == 0, result.out
    for word in ("Gaussian bridge", "flow, forward", "killing resampling", "PDDS", "annealed SMC", "float32"):
        assert word in result.out
