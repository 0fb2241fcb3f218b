"""What the README shows runs as it stands."""

import json
import re
import shlex

import pytest
import torch
from commands import TINY_GLYPHS, TINY_PARTICLES, sbflow
from pictures import fill

import sbflow as package
from sbflow.cli import config_dir
from sbflow.target.dataset import data_root

README = config_dir().parent / "README.md"
TINY_SAMPLE = ("num_particles=50", "num_steps=3")
TINY_IMAGES = (*TINY_GLYPHS, "network.width=8")
TINY_FOLDERS = tuple(option for option in TINY_IMAGES if not option.startswith("data.num_"))
TINY_FOLDERS = (*TINY_FOLDERS, "data.size=16", "data.test_fraction=0.3")


@pytest.fixture
def text():
    if not README.is_file():
        pytest.skip("the README is not part of an installed wheel")
    return README.read_text()


def blocks(text, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for kind, code in found if kind == language]


def commands(text):
    """Every command line of the blocks, without the installation before it."""
    lines = [line for block in blocks(text, "") for line in block.splitlines()]
    return [shlex.split(line.split("sbflow ", 1)[1]) for line in lines if "sbflow " in line]


def test_the_python_block_runs(text, monkeypatch):
    (block,) = blocks(text, "python")
    settings = {"pretrain_steps": 3, "finetune_steps": 2, "num_steps": 2, "batch_size": 8}
    whole = package.fit_bridge
    monkeypatch.setattr(package, "fit_bridge", lambda *sets, **options: whole(*sets, **settings, **options))
    names = {"x0": torch.randn(40, 2), "x1": torch.randn(50, 2)}
    exec(block, names)
    assert names["y1"].shape == (40, 2)
    assert abs(names["evidence"].log_z - 3 * torch.tensor(2.0).log()) < 5 * names["evidence"].log_z_stderr


def test_every_command_is_understood(text):
    inline = [words.split()[1:] for words in re.findall(r"`(sbflow [a-z]+(?: [^`]*)?)`", text)]
    whole = [words for words in inline if not re.search(r"[…\[|A-Z]", " ".join(words))]
    assert len(commands(text)) >= 6 and len(whole) >= 3
    for command in [*commands(text), *whole]:
        # composing checks every name
        assert sbflow(command[0], *command[1:], "--cfg", "job").code == 0, command


def tiny(command):
    """The same command at a size that takes seconds."""
    if command[0] == "train":
        sizes = {"experiment=sbf_folders": TINY_FOLDERS, "experiment=pdds_mixture_2d": TINY_PARTICLES}
        return [*command, *next((sizes[word] for word in command if word in sizes), TINY_IMAGES)]
    if command[0] == "sample":
        return [*command, *TINY_SAMPLE]
    return [*command, "num_steps=2"]


@pytest.mark.slow
def test_every_command_runs_in_the_order_of_the_page(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "A", 12, 1)
    fill(tmp_path / "B", 12, 2)
    (tmp_path / "my_module.py").write_text("def my_log_prob(x):\n    return -x.square().sum(1)\n")
    for command in commands(text):
        if "target=sonar" in command and not (data_root() / "bayes" / "sonar.csv").is_file():
            continue
        assert sbflow(*tiny(command)).code == 0, command
    assert len(list((tmp_path / "translated").glob("*.png"))) == 12
    assert len(list(tmp_path.rglob("report.html"))) >= 5
    log_z = {json.loads(file.read_text())["log_z"] for file in tmp_path.rglob("evidence.json")}
    assert len(log_z) >= 2


def test_pictures_are_there(text):
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(pictures) >= 2 and all((README.parent / file).stat().st_size < 100_000 for file in pictures)


def test_every_named_part_exists(text):
    table = text.split("## Parts")[1].split("## Results")[0]
    for row, group in (
        ("experiments", "experiment"),
        ("networks", "network"),
        ("data", "data"),
        (r"whitening \(reference law\)", "whitening"),
    ):
        (line,) = re.findall(rf"^\| {row} \| (.*) \|$", table, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", line):
            assert (config_dir() / group / f"{name}.yaml").is_file(), name
