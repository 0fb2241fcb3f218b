"""The experiments on images run whole, at reduced size, on generated files."""

import inspect
import json
import math
import struct
from pathlib import Path

import pytest
import torch
from commands import sbflow
from pictures import fill

from sbflow.metric.classifier import train_classifier

SMALL = (
    "data.batch_size=4",
    "algorithm.pretrain_steps=2",
    "algorithm.finetune_steps=2",
    "algorithm.num_steps=2",
    "metric.num_samples=8",
    "metric.num_steps=2",
    "figure.num_images=2",
    "figure.num_steps=2",
    "network.width=8",
    "network.num_blocks=1",
    "network.head_width=8",
    "network.embed_dim=8",
    "trainer.accelerator=cpu",
)


@pytest.fixture(autouse=True)
def short_classifier(monkeypatch):
    """Its features are looked at elsewhere."""
    defaults = inspect.unwrap(train_classifier).__kwdefaults__
    monkeypatch.setitem(defaults, "num_steps", 3)
    monkeypatch.setitem(defaults, "batch_size", 8)


def write_idx(path: Path, x: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([0, 0, 8, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.byte().numpy().tobytes())


def train(tmp_path: Path, experiment: str, *options: str, capsys) -> dict[str, float]:
    """Metrics of a short run."""
    result = sbflow("train", f"experiment={experiment}", f"run_dir={tmp_path}/run", *SMALL, *options, capsys=capsys)
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    return json.loads((tmp_path / "run" / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("experiment", "layout", "options"),
    [
        ("sbf_afhq64", ("train/wild", "train/cat", "val/wild", "val/cat"), ("data.size=16",)),
        (
            "sbf_afhq256",
            ("train/wild", "train/cat", "test/wild", "test/cat"),
            ("data.size=32", "trainer.accumulate_grad_batches=2"),
        ),
        ("sbf_cats_dogs64", ("train/A", "train/B", "test/A", "test/B"), ("data.size=16", "data.crop_margin=2")),
    ],
)
def test_an_experiment_on_photographs_runs(tmp_path, capsys, experiment, layout, options):
    for seed, folder in enumerate(layout):
        fill(tmp_path / "set" / folder, 10, seed, size=(24, 20))
    metrics = train(tmp_path, experiment, f"data.root={tmp_path}/set", *options, capsys=capsys)
    assert metrics["test/msd"] > 0 and math.isfinite(metrics["test/frechet"])


def test_the_experiment_on_digits_and_letters_runs(tmp_path, capsys):
    for prefix, n in (("train", 12), ("t10k", 10)):
        write_idx(tmp_path / "MNIST/raw" / f"{prefix}-images-idx3-ubyte", torch.randint(256, (n, 28, 28)))
        write_idx(tmp_path / "MNIST/raw" / f"{prefix}-labels-idx1-ubyte", torch.arange(n) % 10)
    for split, n in (("train", 12), ("test", 10)):
        name = f"EMNIST/raw/emnist-letters-{split}"
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", torch.randint(256, (n, 28, 28)))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", 1 + torch.arange(n) % 5)
    options = (f"data.root={tmp_path}", "data.download=false", "data.size=16")
    metrics = train(tmp_path, "sbf_mnist_emnist", *options, capsys=capsys)
    # measured both ways, as the paper's table is
    assert metrics["test/msd"] > 0 and metrics["test/msd_backward"] > 0


def test_two_folders_of_images_run_and_a_damaged_file_is_named(tmp_path, capsys):
    fill(tmp_path / "a", 12, 1)
    fill(tmp_path / "b", 7, 2, size=(30, 18), mode="L")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    folders = (f"data.folder0={tmp_path}/a", f"data.folder1={tmp_path}/b", "data.test_fraction=0.3")
    with pytest.warns(UserWarning, match=r"skipped 1 of \d+ images in .*a that cannot be read: broken.png"):
        train(tmp_path, "sbf_cats_dogs64", "data=folders", *folders, "data.size=16", capsys=capsys)
