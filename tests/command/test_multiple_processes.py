"""Several processes on one machine: the same run, distinct data and noise, complete output."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import TINY_BRIDGE, TINY_PARTICLES, sbflow
from omegaconf import OmegaConf
from PIL import Image

from sbflow.command.build import build
from sbflow.smc import Evidence

TWO = ("trainer.devices=2", "trainer.accelerator=cpu")
PARTICLES = ("target=mixture_2d", "whitening=standard", "whitening.std=2.5", "num_particles=200", "num_steps=8")


def start(*arguments):
    """A command in a process of its own: Lightning repeats the command line of a process to start the others."""
    return subprocess.Popen(
        [sys.executable, "-m", "sbflow.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "SBFLOW_TRACEBACK"}
        | {"OMP_NUM_THREADS": "1"},
    )


def run(*arguments, code=0):
    process = start(*arguments)
    out, err = process.communicate(timeout=250)
    assert process.returncode == code, err
    return out, err


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same_tensors(first, second):
    """Bit for bit, in whatever nesting."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_tensors(first[key], second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_same_tensors(one, other)
    elif isinstance(first, torch.Tensor):
        assert first.equal(second)
    else:
        assert first == second


def losses(folder):
    with (folder / "metrics.csv").open(newline="") as lines:
        return [float(row["train/loss"]) for row in csv.DictReader(lines) if row["train/loss"]]


BUFFERED = (*TINY_BRIDGE, *TWO, "algorithm.coupling=buffer", "callback.every_steps=10")


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    """A run of two processes, 8 + 6 steps, with a checkpoint after 10 of them."""
    folder = tmp_path_factory.mktemp("two") / "run"
    out, err = run("train", *BUFFERED, f"run_dir={folder}")
    return folder, out, err


def test_two_processes_make_one_run(bridge):
    folder, out, err = bridge
    assert err == ""
    assert out.count("run folder") == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["run"]
    assert json.loads((folder / "metrics.json").read_text())
    assert (folder / "report.html").is_file() and (folder / "figures" / "loss.png").is_file()


def test_each_process_simulates_pairs_of_its_own_from_data_of_its_own(bridge):
    state = checkpoint(bridge[0])
    (other,) = state["other_ranks"]
    kept = [
        torch.cat([torch.cat(pairs[:2]) for pairs in one["schrodinger_bridge_flow"]["coupling"]["batches"].values()])
        for one in (state, other)
    ]
    assert kept[0].shape == kept[1].shape
    # a batch is drawn with replacement from 300 rows, so that two may share a few
    shared = (kept[0][:, None] == kept[1]).all(-1).any(1).double().mean()
    assert shared < 0.25


def test_two_processes_resume_bit_for_bit_as_if_undisturbed(bridge, tmp_path):
    whole, folder = bridge[0], tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    # what a run that was cut off after its checkpoint of step 10 would have left
    shutil.copy(whole / "config.yaml", folder)
    shutil.copy(whole / "metrics.csv", folder)
    shutil.copy(whole / "checkpoints" / "previous.ckpt", folder / "checkpoints" / "last.ckpt")
    shutil.copy(whole / "checkpoints" / "stage-pretrain.ckpt", folder / "checkpoints")
    assert checkpoint(folder)["global_step"] == 10
    out, _ = run("train", f"resume={folder}")
    assert out.count("at step 10 of 14") == 1
    one, other = checkpoint(folder), checkpoint(whole)
    for key in ("state_dict", "optimizer_states", "schrodinger_bridge_flow", "other_ranks", "global_step"):
        assert_same_tensors(one[key], other[key])
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_islands_are_put_together_without_bias(tmp_path):
    folder = tmp_path / "run"
    _, err = run("sample", *PARTICLES, "replicates=2", "devices=2", "quality=true", f"run_dir={folder}")
    whole = Evidence.load(folder)
    config = OmegaConf.load(folder / "config.yaml")
    sampler = build(config, "algorithm")
    islands = [sampler.estimate(num_particles=200, num_steps=8, replicates=2, island=k) for k in range(2)]
    log_z = torch.cat([island.log_z_replicates for island in islands])
    assert whole.log_z_replicates.allclose(log_z, rtol=0, atol=1e-5)
    assert len(log_z.unique()) == 4
    assert math.isclose(whole.log_z, float(torch.logsumexp(log_z, 0)) - math.log(4), abs_tol=1e-5)
    assert whole.samples.allclose(torch.cat([island.samples for island in islands]), atol=1e-4)
    assert whole.quality and len(whole.samples) == 800
    # what it says of so few steps, once
    assert err.startswith("sbflow: unreliable") and len(err.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """Run folder of a translation of 8 x 8 images, made without training."""
    folder = tmp_path_factory.mktemp("translator")
    (folder / "checkpoints").mkdir(parents=True)
    network = {"_target_": "sbflow.network.unet.UNet", "event_shape": [1, 8, 8], "width": 8, "num_directions": 2}
    algorithm = {
        "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
        "network": network,
        "process": {"_target_": "sbflow.process.brownian.Brownian", "epsilon": 0.5},
        "event_shape": [1, 8, 8],
    }
    OmegaConf.save({"algorithm": algorithm}, folder / "config.yaml")
    model = build(OmegaConf.create({"algorithm": algorithm}), "algorithm")
    with torch.no_grad():
        for parameter in model.ema.module.parameters():
            # away from the zero output of the initialisation, so that the drift depends on the image
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save({"state_dict": model.state_dict(), "sbflow_format": 1}, folder / "checkpoints" / "last.ckpt")
    return folder


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_processes_share_the_images_and_write_the_bytes_that_one_writes(translator, tmp_path, capsys):
    source = tmp_path / "source"
    (source / "deeper").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for k in range(11):
        image = Image.fromarray(noise.integers(0, 255, (8, 8), dtype=np.uint8))
        image.save(source / ("deeper" if k % 3 else "") / f"{k}.png")
    (source / "7.png").write_bytes(b"no image")
    options = (f"checkpoint={translator}", f"input={source}", "batch_size=2", "num_steps=3", "device=cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = sbflow("translate", *options, f"output={tmp_path / 'one'}", capsys=capsys)
    torch.set_num_threads(threads)
    out, err = run("translate", *options, f"output={tmp_path / 'two'}", "devices=2", code=1)
    assert one.code == 1
    assert out.strip().replace("two", "one") == one.out.strip()
    assert err.count("skipped 7.png") == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one") and len(contents(tmp_path / "one")) == 11


@pytest.mark.slow
def test_a_sweep_starts_the_processes_of_each_job_anew(tmp_path):
    options = ("algorithm.pretrain_steps=2", "algorithm.finetune_steps=0", f"run_dir={tmp_path / 'sweep'}")
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    mine = "# @package _global_\ndefaults:\n  - sbf_gaussian\n  - _self_\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(mine)
    own = ("--config-dir", tmp_path / "own", "experiment=mine")
    out, _ = run("train", "-m", *own, *TINY_BRIDGE[1:], *TWO, *options, "seed=0,1")
    assert out.count("run folder") == 2
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == ["0", "1"]
    weights = [checkpoint(tmp_path / "sweep" / job)["state_dict"] for job in "01"]
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_particle_samplers_train_on_pools_of_their_own(tmp_path):
    run("train", "experiment=pdds_mixture_2d", *TINY_PARTICLES, *TWO, f"run_dir={tmp_path / 'run'}")
    state = checkpoint(tmp_path / "run")
    pools = [one["particle_denoising_diffusion_sampler"]["pool"][0] for one in (state, *state["other_ranks"])]
    assert len(pools) == 2
    assert not (pools[0][:, None] == pools[1]).all(-1).any()


ONLINE_GRIDS = """
import sys, torch
from lightning import Trainer
from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.data import ParticleData
from sbflow.network import MLP
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import Mixture2D
from sbflow.whitening import Standard

module = ParticleDenoisingDiffusionSampler(
    Mixture2D(), Standard(2.5), OrnsteinUhlenbeck(), MLP((2,), hidden=(8,)),
    num_steps=8, num_particles=200, refinements=1, updates_per_refinement=30, time_grid="online",
)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=module.max_steps, max_epochs=-1, **quiet)
trainer.fit(module, ParticleData(module.target, refresh_every=10))
torch.save(module.scheme.online.times, f"{sys.argv[1]}/{module.global_rank}.pt")
"""


@pytest.mark.slow
def test_all_processes_follow_one_grid_of_times(tmp_path):
    (tmp_path / "train.py").write_text(ONLINE_GRIDS)
    command = [sys.executable, tmp_path / "train.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    # their particles differ, so that grids of their own would too
    assert first.equal(second) and len(first) == 9
    assert not torch.allclose(first, torch.linspace(1, 0, 9, dtype=first.dtype))


@pytest.mark.slow
def test_weights_in_shards_are_trained_and_saved_whole(tmp_path):
    sharded = ("trainer=fsdp", *TWO, "trainer.precision=32", f"run_dir={tmp_path / 'run'}")
    run("train", *TINY_BRIDGE, *sharded)
    state = checkpoint(tmp_path / "run")["state_dict"]
    model = build(OmegaConf.load(tmp_path / "run" / "config.yaml"), "algorithm").state_dict()
    assert {name: value.shape for name, value in state.items()} == {n: value.shape for n, value in model.items()}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())


@pytest.mark.slow
def test_two_processes_learn_as_one_with_the_doubled_batch(tmp_path):
    steps = ("algorithm.pretrain_steps=600", "algorithm.finetune_steps=0", "trainer.log_every_n_steps=1")
    options = (*TINY_BRIDGE, *steps, "network.hidden=[32]")
    run("train", *options, *TWO, "data.batch_size=64", f"run_dir={tmp_path / 'two'}")
    run("train", *options, "data.batch_size=128", f"run_dir={tmp_path / 'one'}")
    two, one = (torch.tensor(losses(tmp_path / name)).double() for name in ("two", "one"))
    assert len(two) == len(one) == 600
    for part in (slice(0, 100), slice(100, 300), slice(300, 600)):
        a, b = two[part], one[part]
        # the curve falls within a part by the same amount in both; its spread counts as noise, which only widens this
        stderr = float((a.var() / len(a) + b.var() / len(b)).sqrt())
        assert abs(float(a.mean() - b.mean())) < 5 * stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
def test_a_killed_run_of_two_processes_goes_on_as_the_undisturbed_one(tmp_path, kind):
    options = (*TINY_BRIDGE, *TWO, "algorithm.pretrain_steps=400", "callback.every_steps=10")
    process = start("train", *options, f"run_dir={tmp_path / 'killed'}")
    while not (tmp_path / "killed" / "checkpoints" / "previous.ckpt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(getattr(signal, kind))
    _, err = process.communicate(timeout=120)
    assert process.returncode == (-9 if kind == "SIGKILL" else 143)
    assert "Traceback" not in err
    assert err.count(f"resume={tmp_path / 'killed'}") == (kind == "SIGTERM")
    run("train", f"resume={tmp_path / 'killed'}")
    run("train", *options, f"run_dir={tmp_path / 'whole'}")
    assert_same_tensors(checkpoint(tmp_path / "killed")["state_dict"], checkpoint(tmp_path / "whole")["state_dict"])


@pytest.mark.slow
def test_where_one_process_fails_all_end_with_its_message(tmp_path):
    (tmp_path / "fragile_density.py").write_text(
        "import os\n\n\ndef gaussian(x):\n"
        "    if os.environ.get('LOCAL_RANK') == '1':\n        raise RuntimeError('no licence here')\n"
        "    return -0.5 * x.square().sum(1)\n"
    )
    target = ("target=callable", "target.log_prob=fragile_density.gaussian", "target.dim=2", "target.batched=true")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "sbflow.cli", "sample", *target, "whitening=standard", "devices=2", "num_steps=3",
         f"run_dir={tmp_path / 'run'}"],
        capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("no licence here") == 1 and len(done.stderr.strip().splitlines()) == 1
