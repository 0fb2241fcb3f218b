"""Models that travel: exported, loaded, of older and newer formats, and hostile ones."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import TINY_BRIDGE, TINY_PARTICLES, sbflow
from omegaconf import OmegaConf

import sbflow as package
from sbflow.callback import FORMAT

X = torch.tensor([[0.1, -0.4], [1.2, 0.3], [-0.7, 0.9]])


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bridge") / "run"
    assert sbflow("train", *TINY_BRIDGE, f"run_dir={folder}").code == 0
    return folder


@pytest.fixture(scope="module")
def exported(bridge):
    folder = bridge.parent / "export"
    assert sbflow("export", f"checkpoint={bridge}", f"output={folder}").code == 0
    return folder


def copy(folder, destination):
    shutil.copytree(folder, destination)
    return destination


def test_a_run_a_checkpoint_and_an_export_load_as_the_same_model(bridge, exported):
    outputs = [
        package.load(path).translate(X, seed=3)
        for path in (bridge, str(exported), bridge / "checkpoints" / "last.ckpt", exported / "model.safetensors")
    ]
    assert all(output.equal(outputs[0]) for output in outputs)
    assert not package.load(exported).training


def test_an_export_holds_weights_config_statistics_and_a_model_card(exported, bridge):
    names = {file.name for file in exported.iterdir()}
    assert names == {"model.safetensors", "config.yaml", "export.json", "metrics.json", "statistics.json", "README.md"}
    card = (exported / "README.md").read_text()
    assert "SchrodingerBridgeFlow" in card and "Gaussians" in card and "test/joint_kl" in card
    statistics = json.loads((exported / "statistics.json").read_text())
    assert statistics["drift.mean"] == package.load(bridge).drift.mean.tolist()


@pytest.mark.usefixtures("unchecked_types")
def test_a_graph_of_the_drift_is_exported_on_request(bridge, tmp_path):
    folder = tmp_path / "export"
    assert sbflow("export", f"checkpoint={bridge}", f"output={folder}", "graph=true").code == 0
    graph, model = torch.export.load(folder / "drift.pt2").module(), package.load(folder)
    u, direction = torch.tensor([0.0, 0.4, 0.9]), torch.tensor([0, 1, 0])
    with torch.no_grad():
        torch.testing.assert_close(graph(X, u, direction), model.ema.module(X, u, direction))
    card = (folder / "README.md").read_text()
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL) if "drift.pt2" in text)
    names = {"x": X}
    exec(block.replace("drift.pt2", str(folder / "drift.pt2")), names)
    assert names["x"].shape == X.shape and not names["x"].equal(X)


def test_a_graph_of_a_particle_sampler_is_refused_before_anything_is_written(tmp_path, capsys):
    run = tmp_path / "run"
    assert sbflow("train", "experiment=pdds_mixture_2d", f"run_dir={run}", *TINY_PARTICLES).code == 0
    result = sbflow("export", f"checkpoint={run}", f"output={tmp_path / 'o'}", "graph=true", capsys=capsys)
    assert result.code == 2 and "graph=true exports the drift of a bridge" in result.err
    assert not (tmp_path / "o").exists()


def test_an_export_serves_the_other_commands(exported, tmp_path, capsys):
    assert sbflow("evaluate", f"checkpoint={copy(exported, tmp_path / 'export')}", capsys=capsys).code == 0
    again = json.loads((tmp_path / "export" / "metrics.json").read_text())
    before = json.loads((exported / "metrics.json").read_text())
    assert again == pytest.approx({name: before[name] for name in again})


def test_a_particle_sampler_is_exported_too(tmp_path):
    run = tmp_path / "run"
    assert sbflow("train", "experiment=pdds_mixture_2d", f"run_dir={run}", *TINY_PARTICLES).code == 0
    assert sbflow("export", f"checkpoint={run}", f"output={tmp_path / 'export'}").code == 0
    first, second = (
        package.load(folder).estimate(seed=1, num_particles=50).log_z for folder in (run, tmp_path / "export")
    )
    assert first == second


def test_an_export_is_not_written_over(bridge, exported, capsys):
    result = sbflow("export", f"checkpoint={bridge}", f"output={exported}", capsys=capsys)
    assert result.code == 2
    assert "not an empty folder" in result.err


@pytest.mark.parametrize("name", ["bridge", "particles"])
def test_a_checkpoint_of_version_0_1_loads(tmp_path, name):
    """Its layout was written down when 0.1 was current; the weights are sines."""
    old = json.loads((Path(__file__).parent / "format_0" / f"{name}.json").read_text())
    (tmp_path / "checkpoints").mkdir()
    OmegaConf.save(OmegaConf.create(old["config"]), tmp_path / "config.yaml")
    state = {key: _weights(key, *layout) for key, layout in old["state"].items()}
    torch.save({"state_dict": state, "global_step": 6}, tmp_path / "checkpoints" / "last.ckpt")
    model, times = package.load(tmp_path), torch.tensor([0.2, 0.5, 0.9])
    with torch.no_grad():
        out = model.ema.module(X, times, torch.tensor([0, 1, 0])) if name == "bridge" else model.drawing(X, times)
    assert out.flatten().tolist() == pytest.approx(old["output"], abs=1e-5)


def _weights(key, shape, dtype):
    count = torch.Size(shape).numel()
    if dtype != "float32":
        return torch.ones(count).to(getattr(torch, dtype)).reshape(shape)
    sines = 0.3 * torch.sin(torch.arange(1, count + 1, dtype=torch.float64))
    positive = "variance" in key or "affine.scale" in key
    return (sines.abs() if positive else sines).float().reshape(shape)


def test_a_newer_format_is_answered_with_what_to_do(bridge, exported, tmp_path, capsys):
    run = copy(bridge, tmp_path / "run")
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(state | {"sbflow_format": FORMAT + 1}, run / "checkpoints" / "last.ckpt")
    (run / "checkpoints" / "previous.ckpt").unlink(missing_ok=True)
    newer = copy(exported, tmp_path / "export")
    (newer / "export.json").write_text(json.dumps({"sbflow_format": FORMAT + 1}))
    for folder in (run, newer):
        with pytest.raises(ValueError, match="upgrade sbflow"):
            package.load(folder)
    result = sbflow("train", f"resume={run}", capsys=capsys)
    assert result.code == 2 and "upgrade sbflow" in result.err


class Malicious:
    """Unpickled without care it would write a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_malicious_pickle_runs_nothing(bridge, tmp_path, writer, capsys):
    run, trace = copy(bridge, tmp_path / "run"), tmp_path / "trace"
    for file in (run / "checkpoints").glob("*.ckpt"):
        if writer == "torch":
            torch.save({"state_dict": Malicious(trace)}, file)
        else:
            file.write_bytes(pickle.dumps({"state_dict": Malicious(trace)}))
    commands = {
        "train": (f"resume={run}",),
        "evaluate": (f"checkpoint={run}",),
        "export": (f"checkpoint={run}", f"output={tmp_path / 'o'}", "trust=true"),
    }
    for command, arguments in commands.items():
        result = sbflow(command, *arguments, capsys=capsys)
        assert result.code == 2, command
        assert "more than plain data" in result.err
    assert not trace.exists()


@pytest.mark.parametrize(
    "part",
    [
        {"_target_": "os.system", "command": "touch trace"},
        {"_target_": "sbflow.command.export.Path.touch", "self": "trace"},
        {"_target_": "sbflow.network.mlp.MLP", "_args_": [[2]]},
        {"_target_": "sbflow.network.mlp.nn.Module"},
        {"_target_": "sbflow.no.such.Thing"},
        {"_target_": "sbflow.load", "path": "elsewhere", "trust": True},
        {"_target_": "sbflow.target.callable.import_object", "option": "a", "name": "os.system"},
        {"_target_": "sbflow.target.callable.CallableTarget", "log_prob": "os.system", "dim": 2},
        {"_target_": "sbflow.network.mlp.MLP", "event_shape": {"_target_": "builtins.exec", "_args_": ["1/0"]}},
        {"_target_": 3},
    ],
    ids=str,
)
def test_a_malicious_config_calls_nothing(exported, tmp_path, monkeypatch, part, capsys):
    monkeypatch.chdir(tmp_path)
    folder = copy(exported, tmp_path / "export")
    config = OmegaConf.load(folder / "config.yaml")
    config.algorithm.network = part
    OmegaConf.save(config, folder / "config.yaml")
    result = sbflow("evaluate", f"checkpoint={folder}", capsys=capsys)
    assert result.code == 2
    assert "algorithm.network" in result.err and len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "trace").exists()


def test_weights_that_do_not_fit_the_config_are_named(exported, tmp_path):
    folder = copy(exported, tmp_path / "export")
    config = OmegaConf.load(folder / "config.yaml")
    for hidden, message in (([9], "size mismatch"), ([8, 8], "does not fit")):
        config.algorithm.network.hidden = hidden
        OmegaConf.save(config, folder / "config.yaml")
        with pytest.raises(ValueError, match=message):
            package.load(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "config.yaml", "export.json"])
def test_a_broken_export_is_named(exported, tmp_path, file):
    folder = copy(exported, tmp_path / "export")
    (folder / file).write_bytes((folder / file).read_bytes()[: 7 if file == "config.yaml" else 40] + b"\xff{[")
    with pytest.raises(ValueError, match="config.yaml" if file == "config.yaml" else "cannot load export"):
        package.load(folder)
