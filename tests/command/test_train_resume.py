"""A run that was stopped anywhere goes on as if nothing had happened."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from commands import TINY_BRIDGE, TINY_PARTICLES, sbflow
from omegaconf import OmegaConf

from sbflow import load
from sbflow.callback import Checkpoints
from sbflow.command.checkpoint import newest_checkpoint


class Stopped(Exception):
    """Stands for a power cut: nothing after it runs."""


def stop_at(monkeypatch, step):
    """Break off training after an optimiser step, in the middle of everything."""
    whole = Checkpoints.on_train_batch_start

    def broken(self, trainer, *arguments):
        if trainer.global_step == step:
            raise Stopped
        whole(self, trainer, *arguments)

    monkeypatch.setattr(Checkpoints, "on_train_batch_start", broken)


def stopped(step, folder, *arguments):
    """A run that was broken off."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Stopped):
            sbflow("train", *arguments, f"run_dir={folder}")
    return folder


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def watched(saved):
    """What the callback keeps of the validation metric."""
    return saved["callbacks"]["Checkpoints"]


def steps(folder):
    with (folder / "metrics.csv").open(newline="") as lines:
        return [int(row["step"]) for row in csv.DictReader(lines)]


def assert_same_tensors(first, second):
    """Bit for bit, in whatever nesting."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_tensors(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same_tensors(one, other)
    elif isinstance(first, torch.Tensor):
        assert first.equal(second)
    else:
        assert first == second


def assert_same_run(first, second):
    one, other = checkpoint(first), checkpoint(second)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same_tensors(one[key], other[key])
    assert json.loads((first / "metrics.json").read_text()) == json.loads((second / "metrics.json").read_text())
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    """An undisturbed run of 8 + 6 steps."""
    folder = tmp_path_factory.mktemp("bridge") / "run"
    assert sbflow("train", *TINY_BRIDGE, f"run_dir={folder}").code == 0
    return folder


@pytest.mark.parametrize("step", [3, 8, 11], ids=["stage 1", "between the stages", "stage 2"])
def test_a_stopped_bridge_ends_bit_for_bit_as_the_undisturbed_one(bridge, tmp_path, step):
    folder = stopped(step, tmp_path / "run", *TINY_BRIDGE, "callback.every_steps=2")
    assert checkpoint(folder)["global_step"] == step // 2 * 2
    torch.manual_seed(step)
    assert sbflow("train", f"resume={folder}").code == 0
    assert_same_run(folder, bridge)


def test_a_stopped_particle_sampler_ends_bit_for_bit_as_the_undisturbed_one(tmp_path):
    arguments = ("experiment=pdds_mixture_2d", *TINY_PARTICLES, "callback.every_steps=2")
    assert sbflow("train", *arguments, f"run_dir={tmp_path / 'whole'}").code == 0
    stopped(5, tmp_path / "run", *arguments)
    assert sbflow("train", f"resume={tmp_path / 'run'}").code == 0
    one, other = checkpoint(tmp_path / "run"), checkpoint(tmp_path / "whole")
    for key in ("state_dict", "optimizer_states", "global_step"):
        assert_same_tensors(one[key], other[key])
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")


def test_a_run_without_a_checkpoint_starts_again(bridge, tmp_path):
    folder = stopped(3, tmp_path / "run", *TINY_BRIDGE)
    assert not (folder / "checkpoints").exists()
    assert sbflow("train", f"resume={folder}").code == 0
    assert_same_run(folder, bridge)


def test_a_config_of_version_0_1_is_completed(bridge, tmp_path):
    folder = stopped(3, tmp_path / "run", *TINY_BRIDGE)
    config = OmegaConf.load(folder / "config.yaml")
    del config["callback"]
    OmegaConf.save(config, folder / "config.yaml")
    assert sbflow("train", f"resume={folder}").code == 0
    assert_same_run(folder, bridge)


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(bridge, tmp_path, capsys):
    folder = stopped(11, tmp_path / "run", *TINY_BRIDGE, "callback.every_steps=2")
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    result = sbflow("train", f"resume={folder}", capsys=capsys)
    assert result.code == 0
    assert "cannot load checkpoint" in result.err and "using previous.ckpt instead" in result.err
    assert "at step 8 of 14" in result.out
    assert_same_run(folder, bridge)


def test_where_no_checkpoint_can_be_read_the_message_says_so(bridge, tmp_path, capsys):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_bytes((bridge / "config.yaml").read_bytes())
    for name in ("last", "previous"):
        (folder / "checkpoints" / f"{name}.ckpt").write_bytes(b"PK")
    result = sbflow("train", f"resume={folder}", capsys=capsys)
    assert result.code == 2
    assert "last.ckpt" in result.err and len(result.err.strip().splitlines()) == 1


def test_a_finished_run_is_measured_again_and_nothing_else(bridge, tmp_path):
    before = checkpoint(bridge)
    table = (bridge / "metrics.csv").read_bytes()
    assert sbflow("train", f"resume={bridge}").code == 0
    assert_same_tensors(checkpoint(bridge)["state_dict"], before["state_dict"])
    assert (bridge / "metrics.csv").read_bytes() == table


def test_a_run_can_be_made_longer_at_its_end(tmp_path, capsys):
    folder = tmp_path / "run"
    assert sbflow("train", *TINY_BRIDGE, f"run_dir={folder}").code == 0
    result = sbflow("train", f"resume={folder}", "algorithm.finetune_steps=9", capsys=capsys)
    assert "at step 14 of 17" in result.out
    assert checkpoint(folder)["global_step"] == 17
    assert steps(folder) == list(range(18))


@pytest.mark.parametrize("start", ["finished", "stopped"])
def test_steps_that_were_made_are_not_taken_back_and_nothing_is_written(bridge, tmp_path, capsys, start):
    folder = tmp_path / "run"
    if start == "finished":
        shutil.copytree(bridge, folder)
    else:
        stopped(12, folder, *TINY_BRIDGE, "callback.every_steps=4")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    result = sbflow("train", f"resume={folder}", "algorithm.finetune_steps=2", capsys=capsys)
    assert result.code == 2
    reached = 14 if start == "finished" else 12
    assert "algorithm.finetune_steps makes a run of 10 steps" in result.err
    assert f"has reached step {reached}: fewer steps than were made cannot be taken back" in result.err
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "override", ["process.epsilon=2.0", "algorithm.pretrain_steps=9", "seed=3", "data=glyphs", "run_dir=elsewhere"]
)
def test_what_would_make_it_another_run_is_refused(bridge, override, capsys):
    result = sbflow("train", f"resume={bridge}", override, capsys=capsys)
    assert result.code == 2
    assert f"{override.partition('=')[0]} cannot be changed with resume=RUN; allowed: trainer" in result.err


def test_a_typo_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = sbflow("train", "resume=nowhere", capsys=capsys)
    assert result.code == 2
    assert "resume=nowhere" in result.err
    assert not list(tmp_path.iterdir())


def test_the_config_of_a_resumed_run_calls_nothing_outside_sbflow(bridge, tmp_path, capsys):
    text = (bridge / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("sbflow.callback.checkpoints.Checkpoints", "os.getcwd"))
    result = sbflow("train", f"resume={tmp_path}", capsys=capsys)
    assert result.code == 2
    assert "callback would call os.getcwd" in result.err


def test_the_best_model_by_a_validation_metric_is_kept_and_training_stops_early(tmp_path):
    options = ("callback.monitor=val/energy_distance", "callback.validate_every=2", "callback.patience=2")
    long = ("algorithm.pretrain_steps=60", "algorithm.learning_rate=1.0", "algorithm.finetune_steps=0")
    assert sbflow("train", *TINY_BRIDGE, *options, *long, f"run_dir={tmp_path / 'run'}").code == 0
    last, best = checkpoint(tmp_path / "run"), checkpoint(tmp_path / "run", "best")
    # patience validations after the best one, far from the end
    assert last["global_step"] == best["global_step"] + 4 < 60
    assert "best/test/joint_kl" in json.loads((tmp_path / "run" / "metrics.json").read_text())


WATCHED = ("callback.monitor=val/energy_distance", "callback.validate_every=2", "callback.patience=2")
# steps too small to change a number
NEVER_BETTER = ("algorithm.guard=off", "algorithm.learning_rate=1e-30", "algorithm.finetune_learning_rate=1e-30")
IMPATIENT = (*TINY_BRIDGE, *WATCHED, *NEVER_BETTER, "algorithm.finetune_steps=9")


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A run of 8 + 9 steps in which the first validation of a stage is the best; it ends early."""
    folder = tmp_path_factory.mktemp("impatient") / "run"
    assert sbflow("train", *IMPATIENT, f"run_dir={folder}").code == 0
    return folder


def test_patience_ends_the_last_stage_alone_and_each_stage_has_its_own_best_value(impatient):
    last, best = checkpoint(impatient), checkpoint(impatient, "best")
    assert (best["global_step"], last["global_step"]) == (10, 14)
    assert watched(last)["stage"] == watched(best)["stage"] == "finetune"
    assert (watched(last)["validations_since_best"], watched(best)["validations_since_best"]) == (2, 0)


def test_a_run_that_ended_early_stays_ended_until_it_is_given_more_patience(impatient, tmp_path, capsys):
    folder = shutil.copytree(impatient, tmp_path / "run")
    before, table = checkpoint(folder), (folder / "metrics.csv").read_bytes()
    result = sbflow("train", f"resume={folder}", capsys=capsys)
    assert result.code == 0
    assert "stopped early at step 14 of 17: no better val/energy_distance in 2 validations" in result.out
    assert_same_tensors(checkpoint(folder)["state_dict"], before["state_dict"])
    assert watched(checkpoint(folder)) == watched(before)
    assert (folder / "metrics.csv").read_bytes() == table
    result = sbflow("train", f"resume={folder}", "callback.patience=null", capsys=capsys)
    assert result.code == 0 and "stopped early" not in result.out
    assert checkpoint(folder)["global_step"] == 17


@pytest.mark.parametrize("step", [5, 11], ids=["stage 1", "stage 2"])
def test_a_stopped_run_has_the_patience_of_the_undisturbed_one(impatient, tmp_path, step):
    folder = stopped(step, tmp_path / "run", *IMPATIENT, f"callback.every_steps={step}")
    assert sbflow("train", f"resume={folder}").code == 0
    one, other = checkpoint(folder), checkpoint(impatient)
    assert one["global_step"] == other["global_step"]
    assert watched(one) == watched(other)


def test_an_unknown_monitor_is_answered_with_those_that_there_are(tmp_path, capsys):
    options = ("callback.monitor=val/fid", "callback.validate_every=2", f"run_dir={tmp_path / 'run'}")
    result = sbflow("train", *TINY_BRIDGE, *options, capsys=capsys)
    assert result.code == 2
    assert "val/energy_distance" in result.err


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "sbflow.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(file, process):
    while not file.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
def test_a_killed_process_loses_nothing_beyond_the_last_checkpoint(tmp_path, kind):
    options = (*TINY_BRIDGE, "algorithm.pretrain_steps=300", "callback.every_steps=10")
    process = start("train", *options, f"run_dir={tmp_path / 'killed'}")
    wait_for(tmp_path / "killed" / "checkpoints" / "previous.ckpt", process)
    process.send_signal(getattr(signal, kind))
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if kind == "SIGKILL" else 143)
    assert newest_checkpoint(tmp_path / "killed" / "checkpoints") is not None
    if kind == "SIGTERM":
        assert f"resume={tmp_path / 'killed'}" in err
    assert sbflow("train", f"resume={tmp_path / 'killed'}").code == 0
    assert sbflow("train", *options, f"run_dir={tmp_path / 'whole'}").code == 0
    assert_same_tensors(checkpoint(tmp_path / "killed")["state_dict"], checkpoint(tmp_path / "whole")["state_dict"])
    assert len(set(steps(tmp_path / "killed"))) == len(steps(tmp_path / "killed"))
    assert set(steps(tmp_path / "whole")) - set(steps(tmp_path / "killed")) == set()


@pytest.mark.parametrize(("saved", "loaded"), [("adams", "adams"), (None, "euler")])
def test_a_run_keeps_the_method_that_it_was_trained_with(tmp_path, saved, loaded):
    assert sbflow("train", *TINY_BRIDGE, f"run_dir={tmp_path / 'run'}").code == 0
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert config.algorithm.method == "adams"
    if saved is None:
        # as runs were saved before there was a choice
        del config.algorithm.method
        OmegaConf.save(config, tmp_path / "run" / "config.yaml")
    assert load(tmp_path / "run").method == loaded
