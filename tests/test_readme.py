"""What the README shows runs as it stands."""

import re

import pytest
import torch
from commands import sbflow

import sbflow as package
from sbflow.cli import config_dir

README = config_dir().parent / "README.md"


@pytest.fixture
def text():
    if not README.is_file():
        pytest.skip("the README is not part of an installed wheel")
    return README.read_text()


def test_the_python_block_runs(text, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    settings = {"pretrain_steps": 3, "finetune_steps": 2, "num_steps": 2, "batch_size": 8}
    whole = package.fit_bridge
    monkeypatch.setattr(package, "fit_bridge", lambda *sets, **options: whole(*sets, **settings, **options))
    names = {"x0": torch.randn(40, 2), "x1": torch.randn(50, 2)}
    exec(block, names)
    assert names["y1"].shape == (40, 2)
    assert abs(names["evidence"].log_z - 3 * torch.tensor(2.0).log()) < 5 * names["evidence"].log_z_stderr


def test_every_command_is_understood(text):
    lines = [line for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]
    commands = [line.split("sbflow ")[-1].split() for line in lines if "sbflow " in line]
    assert len(commands) >= 3
    for command in commands:
        # composing checks every name; what the longer ones do is tested beside the commands
        assert sbflow(command[0], *command[1:], "--cfg", "job").code == 0


def test_every_named_part_exists(text):
    table = text.split("## Parts")[1].split("## Results")[0]
    for row, group in (("experiments", "experiment"), ("networks", "network"), ("data", "data")):
        (line,) = re.findall(rf"^\| {row} \| (.*) \|$", table, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", line):
            assert (config_dir() / group / f"{name}.yaml").is_file(), name
