"""What surrounds the training: loggers, the claim on a run folder, and losses that are not finite."""

import json
import os

import pytest
import torch
from commands import TINY_BRIDGE, sbflow
from omegaconf import OmegaConf

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.command.train import _claim

SHORT = ("algorithm.pretrain_steps=3", "algorithm.finetune_steps=0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logger", "package", "pattern"),
    [
        ("tensorboard", "tensorboard", "events.out.tfevents*"),
        ("wandb", "wandb", "*.wandb"),
        ("mlflow", "mlflow", "*loss*"),
    ],
)
def test_a_logger_writes_into_the_run_folder_and_needs_no_account(tmp_path, monkeypatch, logger, package, pattern):
    pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    assert sbflow("train", *TINY_BRIDGE, *SHORT, f"logger={logger}", f"run_dir={run}").code == 0
    assert list(run.rglob(pattern))
    assert (run / "metrics.csv").is_file()


def test_a_missing_logger_is_answered_with_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    result = sbflow("train", *TINY_BRIDGE, "logger=wandb", f"run_dir={tmp_path / 'run'}", capsys=capsys)
    assert result.code == 2
    assert "pip install 'sbflow[loggers]'" in result.err


def test_of_two_runs_that_take_the_same_folder_one_is_refused(tmp_path):
    _claim(tmp_path / "run", OmegaConf.create({"seed": 0}))
    with pytest.raises(ValueError, match="just taken by another run"):
        _claim(tmp_path / "run", OmegaConf.create({"seed": 1}))
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").seed == 0


def test_a_folder_is_taken_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    _claim(tmp_path / "run", OmegaConf.create({"seed": 0}))
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_run_folder_is_named_by_time_and_process(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    shown = sbflow("train", "--cfg", "job", "--resolve", "event_shape=[1]", capsys=capsys).out
    assert f"-{os.getpid()}" in next(line for line in shown.splitlines() if line.startswith("run_dir:"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, capsys):
    whole = SchrodingerBridgeFlow.training_step

    def broken(self, batch, batch_idx):
        if self.global_step == 5:
            batch = {name: x * torch.nan for name, x in batch.items()}
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(SchrodingerBridgeFlow, "training_step", broken)
    run = tmp_path / "run"
    result = sbflow("train", *TINY_BRIDGE, "callback.every_steps=2", f"run_dir={run}", capsys=capsys)
    assert result.code == 2
    assert "step 5" in result.err and "seed" in result.err and len(result.err.strip().splitlines()) == 1
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_epsilon_auto_is_measured_and_saved(tmp_path, capsys):
    run = tmp_path / "run"
    options = (*TINY_BRIDGE, *SHORT, "process.epsilon=auto", f"run_dir={run}")
    result = sbflow("train", *options, capsys=capsys)
    assert result.code == 0
    assert "process.epsilon=auto:" in result.out
    config = OmegaConf.load(run / "config.yaml")
    assert config.process.epsilon == config.algorithm.process.epsilon > 0


def test_a_checkpoint_is_due_by_the_clock_too(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 40))
    monkeypatch.setattr("sbflow.callback.checkpoints.time.monotonic", lambda: next(clock))
    run = tmp_path / "run"
    assert sbflow("train", *TINY_BRIDGE, "callback.every_minutes=1.0", f"run_dir={run}").code == 0
    # the final one has followed another, far below 500 steps
    assert (run / "checkpoints" / "previous.ckpt").is_file()
    assert json.loads((run / "metrics.json").read_text())


def test_a_run_without_metric_and_figure_trains_and_can_be_evaluated(tmp_path, capsys):
    bridge = [option for option in TINY_BRIDGE if not option.startswith(("metric", "figure"))]
    run = tmp_path / "run"
    options = ("metric=null", "figure=null", f"run_dir={run}")
    assert sbflow("train", *bridge, *SHORT, *options, capsys=capsys).code == 0
    assert json.loads((run / "metrics.json").read_text()) == {}
    assert [file.name for file in (run / "figures").iterdir()] == ["loss.png"]
    assert sbflow("evaluate", f"checkpoint={run}", capsys=capsys).code == 0
