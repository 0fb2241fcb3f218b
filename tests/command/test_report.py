"""The report of a run: valid, whole in one file, and nothing in it that fetches or runs."""

import base64
import json
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import TINY_BRIDGE, sbflow
from PIL import Image

from sbflow.command.report import write_report

VOID = {"meta", "img", "br"}
FETCHING = {"script", "link", "iframe", "object", "embed", "video", "audio", "source", "form", "base"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.images, self.words = [], set(), [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        values = dict(attributes)
        assert not [name for name in values if name.startswith("on")]
        self.links += [value for name, value in attributes if name == "href"]
        self.images += [(values["alt"], values["src"])] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def page(folder: Path) -> Page:
    text = (folder / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    found = Page(text)
    assert not found.tags & FETCHING
    assert all(link.startswith("https://arxiv.org/abs/") for link in found.links)
    assert all(source.startswith("data:image/png;base64,") for _, source in found.images)
    # no other address, neither in the style sheet nor in an attribute
    assert text.count("http") - text.count("http-equiv") == len(found.links)
    return found


@pytest.fixture
def folder(tmp_path):
    """A run folder with everything in it, and with names that would be markup."""
    run = tmp_path / "run <b>1</b>"
    (run / "figures" / "best").mkdir(parents=True)
    Image.new("L", (3, 2), 7).save(run / "figures" / "my_result.png")
    Image.new("L", (3, 2), 9).save(run / "figures" / "loss.png")
    Image.new("L", (3, 2), 9).save(run / "figures" / "best" / "zebra.png")
    (run / "config.yaml").write_text(
        "algorithm:\n  _target_: sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow\n  num_steps: 30\n"
        "  process: ${process}\nprocess:\n  _target_: sbflow.process.brownian.Brownian\n  epsilon: 0.123456789\n"
        'data:\n  _target_: sbflow.data.folders.Folders\n  folder0: "<script>alert(1)</script>"\nseed: 3\n'
    )
    (run / "metrics.json").write_text(json.dumps({"test/frechet": 1.23456789, "pretrain/test/frechet": 9.5}))
    (run / "metrics-best.json").write_text(json.dumps({"test/frechet": 1.125, "test/<i>": float("nan")}))
    (run / "metrics.csv").write_text("step,epoch,test/frechet,train/loss\n0,0,,5.5\n7,1,,0.25\n8,1,3.0,\n")
    (run / "command.txt").write_text("sbflow train 'data.folder0=<x>'\n")
    return run


def test_everything_in_the_folder_is_on_the_page(folder):
    assert write_report(folder) == folder / "report.html"
    found = page(folder)
    for word in ("SchrodingerBridgeFlow on Folders", "num_steps = 30", "0.25", "1.2346", "9.5", "1.125", "nan"):
        assert any(word in text for text in found.words), word
    assert "epsilon = 0.123457" in found.words and "sbflow train 'data.folder0=<x>'" in found.words
    assert {"at the end", "pretrain", "best"} <= set(found.words)
    # the option of the part that is a part is in a row of its own
    assert not any("${process}" in text for text in found.words if "algorithm:" not in text)


def test_figures_are_part_of_the_page_with_the_training_curves_last(folder):
    write_report(folder)
    images = page(folder).images
    assert [name for name, _ in images] == ["best/zebra", "my result", "loss"]
    embedded = base64.b64decode(images[1][1].partition(",")[2])
    assert embedded == (folder / "figures" / "my_result.png").read_bytes()


def test_names_and_options_are_text_and_not_markup(folder):
    write_report(folder)
    assert {"script", "b", "i"}.isdisjoint(page(folder).tags)


def test_the_page_forbids_the_browser_to_fetch(folder):
    text = write_report(folder).read_text()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


@pytest.mark.parametrize("kept", [(), ("config.yaml",), ("metrics.json",), ("metrics.csv",)])
def test_a_folder_that_holds_less_has_a_shorter_report(folder, kept):
    for file in [file for file in folder.rglob("*") if file.is_file() and file.name not in kept]:
        file.unlink()
    write_report(folder)
    found = page(folder)
    assert found.images == []
    assert ("Metrics" in found.words) == ("metrics.json" in kept)


def test_sampling_writes_a_report_with_its_evidence_and_command(tmp_path):
    options = ("target=gaussian", "num_particles=50", "num_steps=3", "algorithm.ess_threshold=0.5")
    assert sbflow("sample", *options, f"run_dir={tmp_path}").code == 0
    found = page(tmp_path)
    assert [name for name, _ in found.images] == ["evidence"]
    assert f"sbflow sample {' '.join(options)}" in found.words
    assert any(word.startswith("log Z = ") for word in found.words) and "verdict" in found.words


@pytest.mark.slow
def test_training_writes_a_report_and_evaluation_writes_it_again(tmp_path):
    assert sbflow("train", *TINY_BRIDGE, f"run_dir={tmp_path}").code == 0
    found = page(tmp_path)
    assert [name for name, _ in found.images] == ["coupling", "loss"]
    assert shlex.join(["sbflow", "train", *TINY_BRIDGE]) in found.words
    (tmp_path / "report.html").unlink()
    assert sbflow("evaluate", f"checkpoint={tmp_path}").code == 0
    assert page(tmp_path).words == found.words


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_without_a_network_renders_the_page_without_a_complaint(folder, tmp_path):
    picture = tmp_path / "page.png"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=800,1200", "--enable-logging=stderr")
    options += ("--host-resolver-rules=MAP * ~NOTFOUND", f"--screenshot={picture}", f"--user-data-dir={tmp_path}/user")
    page_address = write_report(folder).as_uri()
    done = subprocess.run(["chromium", *options, page_address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr and "Refused to" not in done.stderr
    colours = Image.open(picture).convert("RGB").getcolors(maxcolors=2**24)
    # text, lines and backgrounds: more than one empty sheet
    assert len(colours) > 20
