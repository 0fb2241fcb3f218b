"""The command line end to end on tiny runs, and its answers to bad input."""

import json
import subprocess
import sys

import pytest
import torch
from commands import TINY_GLYPHS, TINY_PARTICLES, sbflow
from omegaconf import OmegaConf
from PIL import Image

from sbflow.cli import COMMANDS

KEYS = ("frechet", "frechet_source", "frechet_floor", "target_class_share", "msd", "msd_random_pair")
KEYS = (*KEYS, "msd_optimal_transport")


@pytest.fixture(scope="session")
def glyph_run(tmp_path_factory):
    """Run folder of a barely trained translation."""
    folder = tmp_path_factory.mktemp("glyphs") / "run"
    assert sbflow("train", f"run_dir={folder}", *TINY_GLYPHS).code == 0
    return folder


@pytest.fixture(scope="session")
def particle_run(tmp_path_factory):
    """Run folder of a barely trained particle sampler."""
    folder = tmp_path_factory.mktemp("particles") / "run"
    assert sbflow("train", "experiment=pdds_mixture_2d", f"run_dir={folder}", *TINY_PARTICLES).code == 0
    return folder


@pytest.fixture
def images(tmp_path):
    """A folder of pictures of several sizes and modes, with a sub-folder."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    Image.new("L", (16, 16), 40).save(folder / "grey.png")
    Image.new("RGB", (40, 30), (255, 0, 0)).save(folder / "colour.jpg")
    Image.new("L", (16, 16), 200).save(folder / "deeper" / "grey.png")
    return folder


@pytest.mark.slow
def test_train_leaves_a_whole_run_folder(glyph_run):
    files = {str(file.relative_to(glyph_run)) for file in glyph_run.rglob("*") if file.is_file()}
    assert {"config.yaml", "metrics.csv", "metrics.json", "checkpoints/last.ckpt"} <= files
    assert {"checkpoints/stage-pretrain.ckpt", "figures/translation.png", "figures/loss.png"} <= files
    metrics = json.loads((glyph_run / "metrics.json").read_text())
    assert {f"test/{key}" for key in KEYS} <= set(metrics)
    assert {"pretrain/test/frechet", "pretrain/test/msd", "pretrain/test/target_class_share"} <= set(metrics)
    assert all(isinstance(value, float) for value in metrics.values())


@pytest.mark.slow
def test_saved_config_is_resolved_and_names_the_event_shape(glyph_run):
    config = OmegaConf.load(glyph_run / "config.yaml")
    assert list(config.event_shape) == [1, 16, 16]
    assert "${" not in (glyph_run / "config.yaml").read_text()


@pytest.mark.slow
def test_checkpoints_hold_plain_data_only(glyph_run, particle_run):
    for folder in (glyph_run, particle_run):
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert any(name.startswith("ema.") for name in state["state_dict"])


@pytest.mark.slow
def test_evaluate_reproduces_the_metrics_of_training(glyph_run, capsys):
    before = json.loads((glyph_run / "metrics.json").read_text())
    assert sbflow("evaluate", f"checkpoint={glyph_run}", capsys=capsys).code == 0
    after = json.loads((glyph_run / "metrics.json").read_text())
    assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.slow
def test_translate_writes_one_image_per_input_whatever_the_batch(glyph_run, images, tmp_path, capsys):
    for batch_size in (1, 3):
        output = tmp_path / f"out{batch_size}"
        arguments = (f"checkpoint={glyph_run}", f"input={images}", f"output={output}", f"batch_size={batch_size}")
        assert sbflow("translate", *arguments, capsys=capsys).code == 0
    names = ["colour.png", "deeper/grey.png", "grey.png"]
    for name in names:
        first, second = ((tmp_path / f"out{b}" / name).read_bytes() for b in (1, 3))
        assert first == second
        source = next(file for file in images.rglob("*") if file.stem == name.split("/")[-1][:-4])
        assert Image.open(tmp_path / "out1" / name).size == Image.open(source).size
    assert sorted(str(f.relative_to(output)) for f in output.rglob("*") if f.is_file()) == names


@pytest.mark.slow
def test_translate_keeps_inputs_apart_that_share_a_stem(glyph_run, images, tmp_path):
    Image.new("L", (16, 16), 90).save(images / "grey.bmp")
    output = tmp_path / "o"
    assert (
        sbflow("translate", f"checkpoint={glyph_run}", f"input={images}", f"output={output}", "num_steps=2").code == 0
    )
    names = sorted(str(file.relative_to(output)) for file in output.rglob("*") if file.is_file())
    assert names == ["colour.png", "deeper/grey.png", "grey.bmp.png", "grey.png.png"]


@pytest.mark.slow
def test_translate_seed_changes_the_result(glyph_run, images, tmp_path):
    for seed in (1, 2):
        output = tmp_path / f"out{seed}"
        assert (
            sbflow("translate", f"checkpoint={glyph_run}", f"input={images}", f"output={output}", f"seed={seed}").code
            == 0
        )
    assert (tmp_path / "out1" / "grey.png").read_bytes() != (tmp_path / "out2" / "grey.png").read_bytes()


@pytest.mark.slow
def test_translate_names_and_skips_an_unreadable_image(glyph_run, images, tmp_path, capsys):
    (images / "broken.png").write_bytes(b"not a picture")
    result = sbflow(
        "translate", f"checkpoint={glyph_run}", f"input={images}", f"output={tmp_path / 'o'}", capsys=capsys
    )
    assert result.code == 1
    assert "broken.png" in result.err
    assert len(list((tmp_path / "o").rglob("*.png"))) == 3


@pytest.mark.slow
def test_sample_from_a_checkpoint_writes_evidence_and_samples(particle_run, tmp_path, capsys):
    folder = tmp_path / "s"
    arguments = (f"checkpoint={particle_run}", "num_particles=40", "num_steps=2", "replicates=3", f"run_dir={folder}")
    result = sbflow("sample", *arguments, capsys=capsys)
    assert result.code == 0
    assert "log Z" in result.out
    evidence = json.loads((folder / "evidence.json").read_text())
    keys = {"log_z", "log_z_stderr", "ess", "num_steps", "num_particles", "density_evaluations", "seconds"}
    assert keys <= set(evidence)
    assert (evidence["num_steps"], evidence["num_particles"], evidence["replicates"]) == (2, 40, 3)
    samples = torch.load(folder / "samples.pt", weights_only=True)
    assert samples["samples"].shape == (120, 2)
    assert torch.logsumexp(samples["log_weights"], 0).abs() < 1e-9


def test_sample_without_a_checkpoint_reaches_a_known_constant(tmp_path, capsys):
    result = sbflow("sample", "target=gaussian", f"run_dir={tmp_path}", "num_steps=4", capsys=capsys)
    assert result.code == 0
    evidence = json.loads((tmp_path / "evidence.json").read_text())
    # Laplace whitening makes a Gaussian target the reference itself
    assert abs(evidence["log_z"]) < 1e-3
    assert evidence["log_z_stderr"] >= 0


def test_the_same_seed_gives_the_same_evidence(tmp_path):
    for name in ("a", "b"):
        arguments = ("target=funnel", "whitening=standard", "num_particles=100", f"run_dir={tmp_path / name}")
        assert sbflow("sample", *arguments).code == 0
    first, second = (json.loads((tmp_path / name / "evidence.json").read_text()) for name in ("a", "b"))
    assert first["log_z"] == second["log_z"]


@pytest.mark.slow
def test_a_sweep_gives_every_job_its_folder(tmp_path):
    arguments = ("-m", "target=gaussian,funnel", "whitening=standard", "num_particles=50", "num_steps=2")
    assert sbflow("sample", *arguments, f"run_dir={tmp_path / 'mine'}").code == 0
    assert sorted(file.parent for file in tmp_path.rglob("evidence.json")) == [tmp_path / "mine" / job for job in "01"]


def test_a_users_own_config_folder_is_found(tmp_path, capsys):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "wide.yaml").write_text("_target_: sbflow.target.funnel.Funnel\ndim: 3\n")
    arguments = ("--config-dir", tmp_path, "target=wide", "whitening=standard", "num_particles=50", "num_steps=2")
    assert sbflow("sample", *arguments, f"run_dir={tmp_path / 'run'}", capsys=capsys).code == 0
    assert torch.load(tmp_path / "run" / "samples.pt", weights_only=True)["samples"].shape == (50, 3)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_config_are_shown(command, capsys):
    assert "sbflow" in sbflow(command, "--help", capsys=capsys).out
    assert sbflow(command, "--cfg", "job", capsys=capsys).code == 0


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['sbflow', 'train', '--help']\n"
        "import sbflow.cli\n"
        "try:\n    sbflow.cli.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_data_names_the_variable_and_the_source(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SBFLOW_DATA", str(tmp_path))
    result = sbflow("sample", "target=sonar", f"run_dir={tmp_path}", capsys=capsys)
    assert result.code == 2
    assert "SBFLOW_DATA" in result.err
    assert "http" in result.err


@pytest.mark.slow
def test_the_checkpoint_of_the_other_algorithm_is_refused(glyph_run, particle_run, images, capsys):
    result = sbflow("translate", f"checkpoint={particle_run}", f"input={images}", "output=o", capsys=capsys)
    assert result.code == 2
    assert "cannot translate" in result.err
    result = sbflow("sample", f"checkpoint={glyph_run}", capsys=capsys)
    assert result.code == 2
    assert "cannot estimate" in result.err


@pytest.mark.slow
def test_a_truncated_checkpoint_is_refused(particle_run, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text((particle_run / "config.yaml").read_text())
    whole = (particle_run / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    result = sbflow("sample", f"checkpoint={tmp_path}", capsys=capsys)
    assert result.code == 2
    assert "cannot load checkpoint" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("target", ["os.system", "torch.hub.load", "sbflow.tensor.torch.hub.load"])
def test_a_foreign_config_calls_nothing_outside_sbflow(particle_run, tmp_path, target, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes((particle_run / "checkpoints" / "last.ckpt").read_bytes())
    config = OmegaConf.load(particle_run / "config.yaml")
    config.target._target_ = target
    config.algorithm.target._target_ = target
    OmegaConf.save(config, tmp_path / "config.yaml")
    result = sbflow("sample", f"checkpoint={tmp_path}", capsys=capsys)
    assert result.code == 2
    assert "trust=true" in result.err


@pytest.mark.slow
def test_a_run_folder_is_not_trained_over(particle_run, capsys):
    result = sbflow("train", "experiment=pdds_mixture_2d", f"run_dir={particle_run}", *TINY_PARTICLES, capsys=capsys)
    assert result.code == 2
    assert "already holds" in result.err


def test_two_default_run_folders_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert sbflow("sample", "target=gaussian", "num_particles=20", "num_steps=2").code == 0
    assert len(list(tmp_path.rglob("evidence.json"))) == 2


def test_tiny_overrides_are_real_options(glyph_run):
    text = (glyph_run / "config.yaml").read_text()
    assert all(option.rpartition("=")[0].rpartition(".")[2] in text for option in TINY_GLYPHS)
