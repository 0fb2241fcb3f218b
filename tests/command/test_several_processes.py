"""What is decided before other processes are there: who comes first, cores, and what is refused."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from commands import TINY_BRIDGE, sbflow
from hydra.utils import instantiate
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import OmegaConf

from sbflow.cli import config_dir
from sbflow.command.processes import Ranks, processes
from sbflow.command.rank import RANKS, first_process
from sbflow.command.trainer import trainer_options

ENGINE = SimpleNamespace(strategy=SimpleNamespace(launcher=None))


@pytest.fixture
def alone(monkeypatch):
    """An environment without a word about processes or threads."""
    for name in (*RANKS, "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "10"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_one_process_of_all_is_the_first(alone, environment, first):
    for name, value in environment.items():
        alone.setenv(name, value)
    assert first_process() is first


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("per_machine", "workers", "environment", "threads"),
    [
        (4, 0, {}, 4),
        (2, 3, {}, 5),
        (1, 4, {}, 12),
        (16, 4, {}, 1),
        (4, 1, {"SLURM_CPUS_PER_TASK": "6"}, 5),
        (4, 0, {"OMP_NUM_THREADS": "3"}, None),
        (1, 0, {}, None),
    ],
)
def test_processes_and_their_workers_share_the_cores(alone, per_machine, workers, environment, threads):
    for name, value in environment.items():
        alone.setenv(name, value)
    before, variables = torch.get_num_threads(), dict(os.environ)
    with processes(ENGINE, 1, per_machine=per_machine, workers=workers):
        assert torch.get_num_threads() == (threads or before)
        # what is started inside inherits it
        assert os.environ.get("OMP_NUM_THREADS") == (str(threads) if threads else variables.get("OMP_NUM_THREADS"))
    assert torch.get_num_threads() == before
    assert dict(os.environ) == variables


@pytest.mark.usefixtures("unchecked_types")
def test_processes_that_were_started_end_when_this_one_fails():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    engine = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[child])))
    with pytest.raises(ValueError, match="no"), processes(engine, 1, per_machine=1):
        raise ValueError("no")
    assert child.returncode == -9


@pytest.mark.usefixtures("unchecked_types")
def test_the_exit_code_is_that_of_the_process_that_failed(monkeypatch):
    monkeypatch.setattr("sbflow.command.processes._command_line", list)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5); exit(7)"])
    engine = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[child])))
    with pytest.raises(SystemExit) as stop, processes(engine, 2, per_machine=2):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    assert stop.value.code == 7


def test_one_process_gathers_from_itself():
    ranks = Ranks(0, 1, torch.device("cpu"))
    ranks.wait()
    assert ranks.gather("all") == ["all"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("devices=0",), "devices must be at least 1, got 0"),
        (("num_nodes=two",), "num_nodes must be int, got 'two'"),
        (("devices=2", "device=cpu:0"), "device=cpu:0 is one device"),
    ],
)
def test_numbers_of_processes_that_cannot_be_are_refused(tmp_path, capsys, options, message):
    target = ("target=gaussian", "whitening=standard", f"run_dir={tmp_path / 'run'}")
    result = sbflow("sample", *target, *options, capsys=capsys)
    assert result.code == 2
    assert message in result.err and len(result.err.strip().splitlines()) == 1


def test_one_of_several_processes_that_does_not_know_of_the_others_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setattr("sbflow.cli.time.sleep", lambda _: None)
    result = sbflow("sample", "target=gaussian", "whitening=standard", f"run_dir={tmp_path / 'run'}", capsys=capsys)
    assert result.code == 2
    assert "devices=N" in result.err
    assert not (tmp_path / "run").exists()


def test_training_refuses_it_likewise_and_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("sbflow.cli.time.sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    result = sbflow("train", *TINY_BRIDGE, "trainer.accelerator=cpu", "run_dir=run", capsys=capsys)
    assert result.code == 2
    assert "trainer.devices=N" in result.err
    assert list(tmp_path.iterdir()) == []


def test_weights_in_shards_are_configured():
    strategy = instantiate(OmegaConf.load(config_dir() / "trainer" / "fsdp.yaml").strategy)
    assert isinstance(strategy, ModelParallelStrategy)


def test_a_strategy_from_elsewhere_is_not_built(tmp_path, capsys):
    options = ("experiment=sbf_gaussian", "+trainer.strategy._target_=os.getcwd", f"run_dir={tmp_path / 'run'}")
    result = sbflow("train", *options, capsys=capsys)
    assert result.code == 2
    assert "trainer.strategy would call os.getcwd" in result.err


def test_a_strategy_from_elsewhere_is_built_where_it_is_trusted():
    strategy = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "process_group_backend": "gloo"}
    config = OmegaConf.create({"trainer": {"_target_": "lightning.Trainer", "strategy": strategy}, "trust": True})
    assert trainer_options(config)["strategy"] == strategy
    with pytest.raises(ValueError, match="allow it with trust=true"):
        trainer_options(OmegaConf.merge(config, {"trust": False}))
