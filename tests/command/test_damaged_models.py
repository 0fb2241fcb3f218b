"""Runs that are not what they should be; every case was found by `make fuzz`."""

import pytest
import torch
from commands import sbflow
from omegaconf import OmegaConf

import sbflow as package
from sbflow.command.build import build


@pytest.fixture
def run(tmp_path):
    """Run folder of an untrained bridge."""
    config = OmegaConf.create(
        {
            "algorithm": {
                "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
                "network": {"_target_": "sbflow.network.mlp.MLP", "event_shape": [2], "num_directions": 2},
                "process": {"_target_": "sbflow.process.brownian.Brownian"},
                "event_shape": [2],
            }
        }
    )
    (tmp_path / "checkpoints").mkdir()
    OmegaConf.save(config, tmp_path / "config.yaml")
    state = build(config, "algorithm").state_dict()
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "checkpoints" / "last.ckpt")
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": None},
        {"state_dict": torch.ones(2), "sbflow_format": torch.ones(2)},
        {"state_dict": {}, "sbflow_format": None},
        [torch.ones(2)],
        torch.ones(2),
        None,
    ],
    ids=str,
)
def test_plain_data_that_are_no_checkpoint_are_named_so(run, content):
    torch.save(content, run / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt: it is not a checkpoint of sbflow"):
        package.load(run)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("algorithm", [], "algorithm must be a part with its _target_, got"),
        ("algorithm", "a", "algorithm must be a part with its _target_, got 'a'"),
        ("algorithm", {"_target_": "sbflow.process.brownian.Brownian"}, "makes a Brownian, not an algorithm"),
        ("algorithm.network", {"_partial_": None}, "_partial_"),
    ],
    ids=str,
)
def test_a_config_that_makes_something_else_is_named(run, place, value, message, capsys):
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, place, value, merge=False)
    OmegaConf.save(config, run / "config.yaml")
    result = sbflow("evaluate", f"checkpoint={run}", capsys=capsys)
    assert result.code == 2 and message in result.err and len(result.err.strip().splitlines()) == 1


def test_training_does_not_go_on_from_weights_alone(run, capsys):
    config = OmegaConf.load(run / "config.yaml")
    data = {"_target_": "sbflow.data.gaussians.Gaussians", "dim": 2, "num_samples": 50}
    metric = {"_target_": "sbflow.metric.coupling.GaussianCoupling"}
    extra = {"seed": 0, "data": data, "metric": metric, "figure": {"_target_": "sbflow.figure.coupling.CouplingFigure"}}
    extra |= {"process": config.algorithm.process, "trainer": {"_target_": "lightning.Trainer"}, "event_shape": [2]}
    OmegaConf.save(OmegaConf.merge(config, extra), run / "config.yaml")
    result = sbflow("train", f"resume={run}", capsys=capsys)
    assert result.code == 2 and "holds weights alone: training cannot go on from it" in result.err


@pytest.mark.parametrize("part", ["process", "network", "trainer", "trainer.strategy"])
@pytest.mark.parametrize("word", [True, False])
def test_a_run_from_elsewhere_calls_nothing_when_it_is_resumed(run, part, word, monkeypatch, capsys):
    monkeypatch.chdir(run)
    (run / "judge.py").write_text("from pathlib import Path\nPath('trace').touch()\nclass Judge: ...\n")
    monkeypatch.syspath_prepend(run)
    config = OmegaConf.load("config.yaml")
    config.trainer = {"_target_": "lightning.Trainer"}
    # what it says of itself counts for nothing
    config.trust = word
    OmegaConf.update(config, part, {"_target_": "judge.Judge"}, force_add=True)
    OmegaConf.save(config, "config.yaml")
    result = sbflow("train", "resume=.", capsys=capsys)
    assert result.code == 2
    assert f"{part} would call judge.Judge" in result.err and "trust=true" in result.err
    assert not (run / "trace").exists()
