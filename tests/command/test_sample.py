"""``sbflow sample`` beyond the trained run: users' densities, annealing, breakdowns."""

import json

import pytest
import torch
from commands import sbflow

from sbflow.smc import Evidence

SMALL = ("num_particles=50", "num_steps=3")
DENSITIES = """
import torch

calls = 0

def gaussian(x):
    return -0.5 * x.square().sum(1)

def fragile(x):
    global calls
    calls += 1
    if calls > 12:
        raise RuntimeError("the solver did not converge")
    return -0.5 * x.square().sum(1)
"""


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    """A module in the current folder, under a name of its own: modules stay imported."""
    name = f"densities_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(DENSITIES)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_of_the_current_folder_is_sampled(my_module, tmp_path):
    target = ("target=callable", f"target.log_prob={my_module}.gaussian", "target.dim=7")
    assert sbflow("sample", *target, *SMALL, f"run_dir={tmp_path / 'run'}").code == 0
    evidence = Evidence.load(tmp_path / "run")
    assert abs(evidence.log_z - 6.4326) < 1e-3
    assert evidence.samples.shape == (50, 7)


def test_an_estimate_is_not_written_over(tmp_path, capsys):
    options = ("target=gaussian", "whitening=standard", *SMALL, f"run_dir={tmp_path / 'run'}")
    assert sbflow("sample", *options).code == 0
    kept = (tmp_path / "run" / "evidence.json").read_bytes()
    result = sbflow("sample", *options, "seed=1", capsys=capsys)
    assert result.code == 2
    assert "holds an estimate already; choose another folder" in result.err
    assert (tmp_path / "run" / "evidence.json").read_bytes() == kept


def test_annealing_is_chosen_by_name_and_compared_with_exact_samples(tmp_path, capsys):
    arguments = ("algorithm=annealed_smc", "target=mixture_2d", "whitening=standard", "whitening.std=2.5")
    result = sbflow("sample", *arguments, "quality=true", "num_particles=400", f"run_dir={tmp_path}", capsys=capsys)
    assert result.code == 0
    assert "moves accepted" in result.out and "mode coverage" in result.out and "verdict" in result.out
    saved = json.loads((tmp_path / "evidence.json").read_text())
    assert saved["quality"]["mode_coverage"] == 1
    assert abs(saved["log_z"]) < 5 * saved["log_z_stderr"]


def test_what_was_computed_before_a_breakdown_is_kept(my_module, tmp_path, capsys):
    target = ("target=callable", f"target.log_prob={my_module}.fragile", "target.dim=2", "target.batched=true")
    options = ("whitening=standard", "num_particles=50", "num_steps=40", f"run_dir={tmp_path / 'run'}")
    result = sbflow("sample", *target, *options, capsys=capsys)
    assert result.code == 2
    assert "the solver did not converge" in result.err and "for 50 particles" in result.err
    partial = Evidence.load(tmp_path / "run" / "incomplete")
    assert 0 < len(partial.ess_path) < 41 and partial.samples.isfinite().all()
    assert torch.isfinite(torch.tensor(partial.log_z))
