"""``sbflow translate search=…``: what is found, what is recorded, what is refused."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from commands import sbflow
from omegaconf import OmegaConf
from PIL import Image

from sbflow.command import translate as translation
from sbflow.command.build import build
from sbflow.metric.classifier import train_classifier

QUICK = ("num_steps=5", "search.search_steps=5", "batch_size=8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run folder of an untrained translation of small glyphs, made without training."""
    folder = tmp_path_factory.mktemp("search") / "run"
    (folder / "checkpoints").mkdir(parents=True)
    shape = [1, 8, 8]
    network = {"_target_": "sbflow.network.unet.UNet", "event_shape": shape, "width": 8, "num_directions": 2}
    config = OmegaConf.create(
        {
            "algorithm": {
                "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
                "network": network,
                "process": {"_target_": "sbflow.process.brownian.Brownian", "epsilon": 0.5},
                "event_shape": shape,
            },
            "data": {"_target_": "sbflow.data.glyphs.Glyphs", "size": 8, "num_train": 300, "num_test": 10},
        }
    )
    OmegaConf.save(config, folder / "config.yaml")
    algorithm = build(config, "algorithm")
    with torch.no_grad():
        for parameter in algorithm.ema.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save({"state_dict": algorithm.state_dict(), "sbflow_format": 1}, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k in range(5):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder


def translate(run, source, output, *options, capsys=None):
    return sbflow("translate", f"checkpoint={run}", f"input={source}", f"output={output}", *options, capsys=capsys)


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in folder.glob("*.png")}


def record_of(folder):
    return json.loads((folder / "search.json").read_text())


@pytest.fixture(scope="module")
def plain(run, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    assert translate(run, source, folder, "num_steps=5", "batch_size=8", "method=euler").code == 0
    return bytes_of(folder)


@pytest.mark.parametrize(
    "search",
    [
        ("search=best_of_n", "search.num_candidates=1"),
        ("search=zero_order", "search.num_rounds=0"),
        ("search=paths", "search.width=1", "search.branches=1"),
    ],
)
def test_a_search_without_choice_writes_the_bytes_of_the_plain_translation(run, source, plain, tmp_path, search):
    assert translate(run, source, tmp_path, *QUICK, "verifier=squared_distance", *search).code == 0
    assert bytes_of(tmp_path) == plain


def test_a_search_has_one_method(run, source, tmp_path, capsys):
    options = (*QUICK, "search=best_of_n", "verifier=squared_distance", "method=adams")
    result = translate(run, source, tmp_path, *options, capsys=capsys)
    assert result.code == 2 and "leave out method=adams" in result.err


def test_a_search_is_recorded_and_its_bytes_do_not_depend_on_the_neighbours(run, source, plain, tmp_path, capsys):
    options = (*QUICK, "search=paths", "search.width=2", "search.branches=4", "verifier=squared_distance")
    result = translate(run, source, tmp_path / "all", *options, capsys=capsys)
    assert result.code == 0 and "36 network evaluations per result, score" in result.out
    record, images = record_of(tmp_path / "all"), bytes_of(tmp_path / "all")
    # 2 steps of 2 paths, 8 candidates for 2 steps and the look-ahead, 8 for the last step
    assert record["drift_evaluations"] == 2 * 2 + 8 * 3 + 8 and record["verifier_evaluations"] == 16
    assert record["held_out_score"] is None and record["warning"] is None
    assert sorted(record["images"]) == sorted(images) and images.keys() == plain.keys()
    rows = [row for rows in record["images"].values() for row in rows]
    assert record["score"] == pytest.approx(np.mean([row["score"] for row in rows]))
    assert record["score"] > record["baseline_score"]
    for row in rows:
        # the verifier adds up over 64 pixels what the distance averages
        assert row["score"] == pytest.approx(-64 * row["squared_distance"], rel=1e-4)
    # one image alone, and the rest in a second call, which keeps the record of the first
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.png").write_bytes(images["0.png"])
    assert translate(run, source, tmp_path / "one", *options).code == 0
    assert bytes_of(tmp_path / "one") == images and record_of(tmp_path / "one") == record
    (tmp_path / "one" / "3.png").unlink()
    (tmp_path / "one" / "search.json").write_text(json.dumps(record | {"images": {"0.png": [{"score": 1}]}}))
    assert translate(run, source / "3.png", tmp_path / "one", *options).code == 0
    assert list(record_of(tmp_path / "one")["images"]) == ["3.png"]
    (tmp_path / "one" / "search.json").write_text(json.dumps(record))
    (tmp_path / "one" / "3.png").unlink()
    assert translate(run, source / "3.png", tmp_path / "one", *options, "seed=0").code == 0
    assert bytes_of(tmp_path / "one")["3.png"] == images["3.png"] and record_of(tmp_path / "one") == record


def test_a_search_that_is_stopped_leaves_the_record_of_its_images(run, source, tmp_path, monkeypatch):
    options = (
        "num_steps=5",
        "batch_size=2",
        "search=best_of_n",
        "search.num_candidates=3",
        "verifier=squared_distance",
    )
    assert translate(run, source, tmp_path / "all", *options).code == 0
    write, written = translation._write, []

    def stopped(task, name, *rest):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(name)
        return write(task, name, *rest)

    monkeypatch.setattr(translation, "_write", stopped)
    assert translate(run, source, tmp_path / "part", *options).code == 130
    assert (
        set(bytes_of(tmp_path / "part"))
        <= set(record_of(tmp_path / "part")["images"])
        < set(record_of(tmp_path / "all")["images"])
    )
    monkeypatch.undo()
    assert translate(run, source, tmp_path / "part", *options).code == 0
    assert record_of(tmp_path / "part") == record_of(tmp_path / "all")


def test_every_sample_of_an_image_is_searched_on_its_own(run, source, plain, tmp_path):
    options = (*QUICK, "search=best_of_n", "search.num_candidates=3", "verifier=squared_distance", "num_samples=2")
    assert translate(run, source, tmp_path, *options).code == 0
    record, images = record_of(tmp_path), bytes_of(tmp_path)
    assert len(images) == 10 and images["0-0.png"] != images["0-1.png"]
    assert all(len(rows) == 2 for rows in record["images"].values())


def test_a_class_is_searched_with_classifiers_trained_on_two_halves_of_the_data(
    run, source, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sbflow.command.search.train_classifier", partial(train_classifier, num_steps=30))
    class_verifier = ("search=best_of_n", "search.budget=40", "verifier=class_probability")
    result = translate(run, source, tmp_path, *QUICK, *class_verifier, "verifier.label=2", capsys=capsys)
    assert result.code == 0 and "held out score" in result.out
    record = record_of(tmp_path)
    assert record["drift_evaluations"] == 40 and record["score"] > record["baseline_score"]
    assert record["held_out_score"] != record["score"] and record["held_out_score"] < 0
    refused = translate(run, source, tmp_path / "no", *QUICK, *class_verifier, "verifier.label=10", capsys=capsys)
    assert refused.code == 2 and "verifier.label must be a class of the results, from 0 to 9, got 10" in refused.err
    missing = translate(run, source, tmp_path / "no", *QUICK, *class_verifier, capsys=capsys)
    assert missing.code == 2 and "label" in missing.err


def test_a_function_of_ones_own_needs_trust(run, source, tmp_path, capsys, monkeypatch):
    (tmp_path / "own_judges.py").write_text("def dark(x_in, x_out):\n    return -x_out.flatten(1).mean(1)\n")
    monkeypatch.chdir(tmp_path)
    options = ("search=best_of_n", "search.num_candidates=2", "verifier=callable", "verifier.function=own_judges.dark")
    refused = translate(run, source, "out", *QUICK, *options, capsys=capsys)
    assert refused.code == 2 and "allow it with trust=true" in refused.err
    held_out = (*QUICK[1:], "search=best_of_n", "verifier=squared_distance", "held_out=own_judges.dark")
    refused = translate(run, source, "out", *held_out, capsys=capsys)
    assert refused.code == 2 and "held_out would run own_judges.dark" in refused.err
    assert not (tmp_path / "out").exists()
    result = translate(run, source, "out", *QUICK, *options, "held_out=own_judges.dark", "trust=true", capsys=capsys)
    assert result.code == 0
    record = record_of(tmp_path / "out")
    assert record["held_out_score"] == record["score"] > record["baseline_score"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("search=paths",), "search needs a judge: choose one with verifier=NAME"),
        (("verifier=squared_distance",), "verifier is an option of a search: choose one with search=NAME"),
        (("held_out=a.b",), "held_out is an option of a search"),
        (("search=paths", "verifier=squared_distance", "sampler=ode"), "search varies the noise of sampler=sde"),
        (("search.width=3",), "search has options but no class"),
        (("search=paths", "verifier=squared_distance", "search.depth=3"), "search.depth is not an option of Paths"),
        (("search=paths", "verifier=squared_distance", "search.width=0"), "width must be at least 1, got 0"),
        (("search=paths", "verifier=squared_distance", "search.budget=3"), "budget must be at least"),
    ],
)
def test_what_does_not_go_together_is_refused(run, source, tmp_path, capsys, options, message):
    result = translate(run, source, tmp_path / "out", *options, capsys=capsys)
    assert result.code == 2 and message in result.err
    assert not list(tmp_path.rglob("*.png"))
