"""Translating folders: what is written, what is skipped, and what a kill leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import sbflow
from omegaconf import OmegaConf
from PIL import Image

from sbflow.command.build import build
from sbflow.command.run import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run folder of an untrained translation of 8 x 8 images, made without training."""
    folder = tmp_path_factory.mktemp("translate") / "run"
    (folder / "checkpoints").mkdir(parents=True)
    config = OmegaConf.create(
        {
            "algorithm": {
                "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
                "network": {
                    "_target_": "sbflow.network.unet.UNet",
                    "event_shape": [1, 8, 8],
                    "width": 8,
                    "num_directions": 2,
                },
                "process": {"_target_": "sbflow.process.brownian.Brownian", "epsilon": 0.5},
                "event_shape": [1, 8, 8],
                "last_noise": False,
            },
            "event_shape": [1, 8, 8],
        }
    )
    OmegaConf.save(config, folder / "config.yaml")
    algorithm = build(config, "algorithm")
    with torch.no_grad():
        for parameter in algorithm.ema.module.parameters():
            # away from the zero output of the initialisation, so that the drift depends on the image
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save({"state_dict": algorithm.state_dict(), "sbflow_format": 1}, folder / "checkpoints" / "last.ckpt")
    return folder


def pictures(folder, count):
    rng = np.random.default_rng(0)
    for k in range(count):
        file = folder / ("deeper" if k % 3 == 0 else "") / f"{k:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (10 + k % 3, 12), dtype=np.uint8)).save(file)
    return folder


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def translate(run, source, output, *options, capsys=None):
    return sbflow("translate", f"checkpoint={run}", f"input={source}", f"output={output}", *options, capsys=capsys)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"), 10)


def test_what_exists_is_skipped_and_the_rest_is_the_same_bytes(run, source, tmp_path, capsys):
    assert translate(run, source, tmp_path / "whole", "batch_size=4", "num_steps=3").code == 0
    whole = contents(tmp_path / "whole")
    assert len(whole) == 10
    part = tmp_path / "part"
    for name in list(whole)[::3]:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_bytes(whole[name])
    (part / "deeper" / ".000.png.999999999.partial").write_bytes(b"half")
    untouched = {name: (part / name).stat().st_mtime_ns for name in list(whole)[::3]}
    result = translate(run, source, part, "batch_size=4", "num_steps=3", capsys=capsys)
    assert "translated 6 images, 4 were there already" in result.out
    assert contents(part) == whole
    assert untouched == {name: (part / name).stat().st_mtime_ns for name in untouched}


def test_an_existing_result_is_made_again_only_on_request(run, source, tmp_path):
    output = tmp_path / "out"
    assert translate(run, source, output, "num_steps=2").code == 0
    before = contents(output)
    assert translate(run, source, output, "num_steps=2", "seed=1").code == 0
    assert contents(output) == before
    assert translate(run, source, output, "num_steps=2", "seed=1", "overwrite=true").code == 0
    assert contents(output).keys() == before.keys()
    assert all(contents(output)[name] != before[name] for name in before)


def test_results_have_the_size_of_the_input_or_of_the_model(run, source, tmp_path):
    for keep, size in (("true", (12, 11)), ("false", (8, 8))):
        assert translate(run, source, tmp_path / keep, "num_steps=2", f"keep_size={keep}").code == 0
        assert Image.open(tmp_path / keep / "001.png").size == size


def test_several_samples_differ_and_the_first_is_that_of_a_single_one(run, source, tmp_path):
    assert translate(run, source, tmp_path / "one", "num_steps=2").code == 0
    assert translate(run, source, tmp_path / "three", "num_steps=2", "num_samples=3").code == 0
    one, three = contents(tmp_path / "one"), contents(tmp_path / "three")
    assert len(three) == 30
    assert three["001-0.png"] == one["001.png"]
    assert len({three[f"001-{k}.png"] for k in range(3)}) == 3


def test_a_grid_shows_the_input_beside_its_samples(run, source, tmp_path):
    options = ("num_steps=2", "num_samples=2", "keep_size=false")
    assert translate(run, source, tmp_path / "grid", *options, "grid=true").code == 0
    assert translate(run, source, tmp_path / "flat", *options).code == 0
    grid = np.asarray(Image.open(tmp_path / "grid" / "001.png"))
    assert grid.shape == (8, 24)
    for k in range(2):
        sample = np.asarray(Image.open(tmp_path / "flat" / f"001-{k}.png"))
        assert (grid[:, 8 * (k + 1) : 8 * (k + 2)] == sample).all()
    shrunk = np.asarray(Image.open(source / "001.png").resize((8, 8), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(grid[:, :8] - shrunk).mean() < 3


def test_the_probability_flow_draws_no_noise(run, source, tmp_path):
    for seed in (0, 1):
        assert translate(run, source, tmp_path / str(seed), "num_steps=3", "sampler=ode", f"seed={seed}").code == 0
    assert contents(tmp_path / "0") == contents(tmp_path / "1")


def test_half_precision_stays_near_single_precision(run, source, tmp_path):
    for precision in ("32", "bf16"):
        options = ("num_steps=3", f"precision={precision}", "keep_size=false")
        assert translate(run, source, tmp_path / precision, *options).code == 0
    first, second = (np.asarray(Image.open(tmp_path / p / "001.png"), dtype=float) for p in ("32", "bf16"))
    assert 0 < np.abs(first - second).mean() < 8


def test_the_last_noise_is_an_option(run, source, tmp_path):
    for noise in ("true", "false"):
        options = ("num_steps=2", f"last_noise={noise}")
        assert translate(run, source / "001.png", tmp_path / noise, *options).code == 0
    assert contents(tmp_path / "true") != contents(tmp_path / "false")


def test_one_image_is_translated_as_it_is_in_its_folder(run, source, tmp_path):
    assert translate(run, source, tmp_path / "out", "num_steps=2").code == 0
    assert translate(run, source / "001.png", tmp_path / "one.png", "num_steps=2").code == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out" / "001.png").read_bytes()


def test_unreadable_images_are_named_skipped_and_tried_again(run, source, tmp_path, capsys):
    folder = pictures(tmp_path / "in", 5)
    (folder / "002.png").write_bytes(b"not a picture")
    (folder / "004.png").write_bytes((folder / "004.png").read_bytes()[:60])
    (folder / "link.png").symlink_to(source / "001.png")
    for _ in range(2):
        result = translate(run, folder, tmp_path / "out", "num_steps=2", "batch_size=2", capsys=capsys)
        assert result.code == 1
        assert all(name in result.err for name in ("002.png", "004.png", "link.png"))
        assert sorted(contents(tmp_path / "out")) == ["001.png", "deeper/000.png", "deeper/003.png"]
    assert "translated 0 images, 3 were there already, skipped 3" in result.out


def test_a_result_whose_name_would_be_too_long_is_skipped_and_the_rest_goes_on(run, tmp_path, capsys):
    folder = pictures(tmp_path / "in", 3)
    (folder / "001.png").rename(folder / f"{'x' * 251}.png")
    result = translate(run, folder, tmp_path / "out", "num_steps=2", "num_samples=2", capsys=capsys)
    assert result.code == 1 and "translated 2 images, skipped 1 ->" in result.out
    assert result.err.count("sbflow: skipped xxx") == 1 and "File name too long: xxx" in result.err
    assert sorted(contents(tmp_path / "out")) == [
        *("002-0.png", "002-1.png"),
        *("deeper/000-0.png", "deeper/000-1.png"),
    ]


def test_names_that_are_not_utf_8_are_translated_and_named(run, tmp_path, capsys):
    folder = pictures(tmp_path / "in", 2)
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"th\xe9.png")]
    (folder / "001.png").rename(folder / names[0])
    (folder / names[1]).write_bytes(b"not a picture")
    result = translate(run, folder, tmp_path / "out", "num_steps=2", capsys=capsys)
    assert result.code == 1 and "sbflow: skipped th?.png" in result.err
    assert sorted(contents(tmp_path / "out")) == sorted([names[0], "deeper/000.png"])


def test_an_input_is_never_changed(run, source, tmp_path):
    before = contents(source)
    assert translate(run, source, tmp_path / "out", "num_steps=2", "overwrite=true").code == 0
    assert contents(source) == before


def test_a_bridge_between_vectors_is_refused(tmp_path, source, capsys):
    config = {
        "algorithm": {
            "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
            "network": {"_target_": "sbflow.network.mlp.MLP", "event_shape": [2], "hidden": [4], "num_directions": 2},
            "process": {"_target_": "sbflow.process.brownian.Brownian"},
            "event_shape": [2],
        }
    }
    (tmp_path / "checkpoints").mkdir()
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    state = build(OmegaConf.create(config), "algorithm").state_dict()
    torch.save({"state_dict": state}, tmp_path / "checkpoints" / "last.ckpt")
    result = translate(tmp_path, source, tmp_path / "out", capsys=capsys)
    assert result.code == 2
    assert "samples of shape [2], not images" in result.err
    assert load_run(tmp_path, needs="translate").algorithm.event_shape == (2,)


@pytest.mark.slow
def test_a_killed_translation_ends_with_the_bytes_of_an_undisturbed_one(run, tmp_path):
    source = pictures(tmp_path / "in", 40)
    options = ("num_steps=12", "batch_size=2")
    assert translate(run, source, tmp_path / "whole", *options).code == 0
    command = ["translate", f"checkpoint={run}", f"input={source}", f"output={tmp_path / 'killed'}", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "sbflow.cli", *command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])},
        stdout=subprocess.DEVNULL,
    )
    while len(list((tmp_path / "killed").rglob("[0-9]*.png"))) < 10:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 10 <= len(list((tmp_path / "killed").rglob("[0-9]*.png"))) < 40
    assert translate(run, source, tmp_path / "killed", *options).code == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_the_speculative_sampler_says_what_it_cost(run, tmp_path, capsys):
    source, output = pictures(tmp_path / "in", 3), tmp_path / "out"
    options = [f"checkpoint={run}", f"input={source}", f"output={output}", "sampler=speculative", "num_steps=40"]
    first = sbflow("translate", *options, "batch_size=2", "device=cpu", capsys=capsys)
    line = first.out.splitlines()[-1]
    found = re.match(r"speculation: ([\d.]+) calls in sequence for 40 steps, ([\d.]+) rows a step, kept by off", line)
    assert first.code == 0 and float(found[1]) < 20 and float(found[2]) >= 0.9
    assert len(list(output.rglob("*.png"))) == 3
    again = sbflow("translate", *options, "device=cpu", capsys=capsys)
    assert again.code == 0 and "speculation" not in again.out
