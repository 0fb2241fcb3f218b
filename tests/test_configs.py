"""Every config composes, mirrors the package and instantiates."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from sbflow.cli import COMMANDS, config_dir
from sbflow.command.build import build, check_options

CONFIGS = config_dir()
PARTS = sorted(file for file in CONFIGS.glob("*/*.yaml") if file.parent.name not in ("experiment", "trainer", "logger"))
EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))
NEEDS_DATA = {
    "sonar": "bayes/sonar.csv",
    "ionosphere": "bayes/ionosphere.csv",
    "mnist_letters": "letters",
    "brownian": "bayes/brownian_missing_middle.csv",
    "lgcp": "bayes/finnish_pines.csv",
}


def composed(command, *overrides):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def needs(name):
    """Skip, with the reason, where a part reads files that are not there."""
    from sbflow.target.dataset import data_root

    for key, path in NEEDS_DATA.items():
        if key in name and not (data_root() / path).exists():
            pytest.skip(f"{path} is not under SBFLOW_DATA ({data_root()})")


@pytest.mark.parametrize("file", PARTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_part_names_a_class_of_its_own_package(file):
    config = OmegaConf.load(file)
    package, module, _ = config["_target_"].rsplit(".", 2)
    assert package == f"sbflow.{file.parent.name}"
    cls = get_object(config["_target_"])
    assert cls.__module__ == f"{package}.{module}"
    required = {p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty}
    optional = {p.name for p in inspect.signature(cls).parameters.values() if p.default is not p.empty}
    # defaults live in Python: a yaml wires what has none, and may wire other parts
    wired = {str(key) for key, value in OmegaConf.to_container(config).items() if str(value).startswith("${")}
    assert set(map(str, config)) - {"_target_"} - wired <= required
    assert wired <= required | optional


def test_every_package_folder_of_parts_has_its_configs():
    groups = {file.parent.name for file in PARTS}
    package = Path(inspect.getfile(get_object("sbflow.cli"))).parent
    assert all((package / group).is_dir() for group in groups)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command):
    assert composed(command)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_instantiates_whole(name):
    needs(name.replace("sbf_mnist_emnist", "emnist").replace("fkc_anneal", "sonar"))
    own = ("data.folder0=a", "data.folder1=b", "process.epsilon=1.0") if name == "sbf_folders" else ()
    config = composed("train", f"experiment={name}", *own)
    check_options(config.trainer, "trainer")
    pdds = name.startswith(("pdds", "fkc", "score_diffusion"))
    config.event_shape = [build(config, "target").dim] if pdds else [1, 28, 28] if "mnist" in name else [1, 16, 16]
    algorithm = build(config, "algorithm")
    assert algorithm.max_steps > 0
    for part in ("metric", "figure"):
        assert callable(build(config, part))
    assert instantiate(config.data, _convert_="all").train_dataloader is not None


@pytest.mark.parametrize(
    # a target of the user's own is complete only with the user's function
    "target",
    sorted(file.stem for file in (CONFIGS / "target").glob("*.yaml") if "???" not in file.read_text()),
)
def test_a_target_instantiates(target):
    needs(target)
    assert build(composed("sample", f"target={target}"), "target").dim >= 1
