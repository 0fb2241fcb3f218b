"""The recipes of the contributing guide, followed to the letter in a copy of the package's folders."""

import re
import shlex
import subprocess
import sys
from importlib import import_module

import pytest
import torch
import yaml
from commands import TINY_BRIDGE, sbflow

from sbflow.cli import config_dir
from sbflow.process import OrnsteinUhlenbeck

ROOT = config_dir().parent
GUIDE = ROOT / "CONTRIBUTING.md"
RECIPES = ("target", "network", "process", "metric", "experiment")
SCREEN = 50
CHOSEN = ("experiment", "network.hidden", "metric.num_samples")
TINY = {
    "sample": ("num_particles=50", "num_steps=3"),
    # all but the parts that the recipes choose, and their options
    "train": tuple(word for word in TINY_BRIDGE if word.split("=")[0] not in CHOSEN),
}

if not GUIDE.is_file():
    pytest.skip("the guide is not part of an installed wheel", allow_module_level=True)


def section(name):
    article = "an" if name[0] in "aeiou" else "a"
    (text,) = re.findall(rf"^## Add {article} {name}\n(.*?)(?=^## |\Z)", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return text


def blocks(name, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section(name), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def put(block, folder):
    """Write a block into the file that its first line names, and return that name."""
    path, _, text = block.partition("\n")
    file = folder / path.removeprefix("# ")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return path.removeprefix("# ")


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Write the files of a recipe beside the package and return them; the modules become part of it for one test."""

    def write(name):
        files = [put(block, tmp_path) for language in ("python", "yaml") for block in blocks(name, language)]
        for file in files:
            if file.endswith(".py"):
                dotted = file.removesuffix(".py").replace("/", ".")
                package = import_module(dotted.rpartition(".")[0])
                folder = str((tmp_path / file).parent)
                monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
                # forget it again
                monkeypatch.setitem(sys.modules, dotted, import_module(dotted))
                monkeypatch.setattr(package, dotted.rpartition(".")[2], sys.modules[dotted], raising=False)
        return files

    return write


def run(name, folder):
    """Run the command of a recipe on a small scale, with the folder's configs."""
    (line,) = blocks(name, "")
    program, command, *words = shlex.split(line)
    assert program == "sbflow"
    # what the recipe sets goes last
    overrides = [*words[:1], *TINY[command], *words[1:], f"run_dir={folder / 'run'}"]
    return sbflow(command, "--config-dir", folder / "configs", *overrides).code


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_on_a_screen(name):
    assert section(name).strip().count("\n") < SCREEN


@pytest.mark.parametrize("name", ["target", "process"])
def test_a_density_or_schedule_made_by_the_recipe_is_sampled(name, follow, tmp_path):
    follow(name)
    assert run(name, tmp_path) == 0
    assert torch.load(tmp_path / "run" / "samples.pt", weights_only=True)["samples"].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["network", "metric", "experiment"])
def test_a_part_made_by_the_recipe_is_trained(name, follow, tmp_path):
    follow(name)
    assert run(name, tmp_path) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    metrics = yaml.safe_load((tmp_path / "run" / "metrics.json").read_text())
    assert ("Plain" in config["network"]["_target_"]) == (name == "network")
    assert ("test/displacement" in metrics) == (name == "metric")
    assert (config["network"].get("hidden") == [512, 512]) == (name == "experiment")


def test_the_schedule_of_the_recipe_is_one(follow):
    follow("process")
    schedule = import_module("sbflow.process.late").Late()
    t = torch.linspace(0, 1, 50, dtype=torch.float64)[1:].requires_grad_()
    (slope,) = torch.autograd.grad(schedule.alpha_bar(t).log().sum(), t)
    assert schedule.alpha_bar(torch.zeros(())) == 1
    assert torch.allclose(schedule.beta(t), -0.5 * slope)
    a, b = OrnsteinUhlenbeck(schedule).transition(t[:1], t[-1:])
    assert torch.allclose(a**2 + b**2, torch.ones_like(a))


@pytest.mark.parametrize("name", ["target", "network", "process", "metric"])
def test_the_code_of_a_recipe_passes_the_linter(name, tmp_path):
    files = [put(block, tmp_path) for block in blocks(name, "python")]
    own = 'lint.isort.known-first-party = ["sbflow"]'
    options = ["--config", str(ROOT / "pyproject.toml"), "--config", own]
    for command in (["check", *options], ["format", "--check", *options]):
        done = subprocess.run(["ruff", *command, *files], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_the_guide_names_are_there():
    text = GUIDE.read_text()
    named = set(re.findall(r"`((?:sbflow|tests|configs)/[\w/]+(?:\.\w+)?)`", text))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
