"""Whatever is wrong, the answer is one line that names what to change, and exit code 2."""

import numpy as np
import pytest
import torch
from commands import sbflow
from omegaconf import OmegaConf
from PIL import Image

from sbflow.command.build import build

PDDS = "experiment=pdds_funnel"
GAUSSIAN = ("experiment=sbf_gaussian", "data.num_samples=50", "network.hidden=[4]")
ARRAYS = ("~experiment", "network=mlp", "metric=wasserstein", "figure=coupling", "data=arrays")
FUNNEL = ("target=funnel", "whitening=standard")

# what is wrong -> the line must hold every one of these
BAD = {
    # commands and options
    ("bogus",): ("unknown command 'bogus'", "train"),
    ("train", "foo=1"): ("foo is not an option of sbflow train", "algorithm"),
    ("train", "algoritm.num_steps=3"): ("algoritm is not an option", "algorithm"),
    ("train", "algorithm.foo=1"): ("algorithm.foo", "allowed:", "cutoff"),
    ("train", "data.batchsize=1"): ("data.batchsize", "batch_size"),
    ("train", "network.with=8"): ("network.with", "width"),
    ("train", "trainer.foo=1"): ("trainer.foo", "accelerator"),
    ("train", "callback.every=3"): ("callback.every", "every_steps"),
    ("train", "metric.steps=3"): ("metric.steps", "num_steps"),
    ("train", "figure.steps=3"): ("figure.steps", "num_steps"),
    ("train", "logger.project=3"): ("logger has options but no class", "logger=NAME"),
    ("sample", "data.size=3"): ("data is not an option of sbflow sample",),
    ("evaluate", "checkpoint=x", "metric.num_steps=3"): ("metric is not an option of sbflow evaluate",),
    ("translate", "checkpoint=x", "input=a", "output=b", "steps=3"): ("steps", "num_steps"),
    # groups
    ("train", "experiment=nope"): ("experiment/nope", "pdds_funnel"),
    ("train", "data=nope"): ("data/nope", "glyphs"),
    ("train", "network=nope"): ("network/nope", "unet"),
    ("train", "algorithm=nope"): ("algorithm/nope", "schrodinger_bridge_flow"),
    ("train", "logger=nope"): ("logger/nope", "tensorboard"),
    ("train", "callback=nope"): ("callback/nope", "checkpoints"),
    ("sample", "target=nope"): ("target/nope", "sonar"),
    ("sample", "target=gaussian", "whitening=nope"): ("whitening/nope", "laplace"),
    # kinds of values
    ("train", "seed=x"): ("seed must be int", "'x'"),
    ("train", "seed=1.5"): ("seed must be int", "1.5"),
    ("train", "algorithm.num_steps=abc"): ("algorithm.num_steps must be int", "'abc'"),
    ("train", "algorithm.num_steps=true"): ("algorithm.num_steps must be int", "True"),
    ("train", "algorithm.learning_rate=fast"): ("algorithm.learning_rate must be float",),
    ("train", "algorithm.last_noise=maybe"): ("algorithm.last_noise must be bool",),
    ("train", "callback.every_minutes=soon"): ("callback.every_minutes must be",),
    ("train", *GAUSSIAN, "network.hidden=2"): ("network.hidden must be a list, got 2",),
    ("train", "process.schedule=linear"): ("process.schedule is not an option of Brownian",),
    ("evaluate", "checkpoint=3"): ("checkpoint must be str",),
    ("export", "checkpoint=x", "output=3"): ("output must be str",),
    ("translate", "checkpoint=x", "input=3", "output=b"): ("input must be str",),
    ("translate", "checkpoint=x", "input=a", "output=b", "grid=perhaps"): ("grid must be bool",),
    ("sample", *FUNNEL, "num_particles=many"): ("num_particles must be int or null",),
    # syntax
    ("train", "algorithm.num_steps"): ("algorithm.num_steps",),
    ("train", "data.x=[1,2"): ("[1,2",),
    # values out of range
    ("train", "seed=-1"): ("seed must be at least 0, got -1",),
    ("train", "process.epsilon=-1.0"): ("epsilon must be positive", "-1"),
    ("train", "process.epsilon=0.0"): ("epsilon must be positive",),
    ("train", "process.epsilon=nan"): ("epsilon must be positive", "nan"),
    ("train", "process.epsilon=big"): ("process.epsilon must be float", "'big'"),
    ("train", *GAUSSIAN, "algorithm.num_steps=0"): ("num_steps must be at least 1, got 0",),
    ("train", *GAUSSIAN, "algorithm.pretrain_steps=0"): ("pretrain_steps >= 1",),
    ("train", *GAUSSIAN, "algorithm.finetune_steps=-1"): ("finetune_steps >= 0",),
    ("train", *GAUSSIAN, "algorithm.ema_decay=1.5"): ("ema_decay must lie in [0, 1), got 1.5",),
    ("train", *GAUSSIAN, "algorithm.learning_rate=0.0"): ("learning_rate must be positive",),
    ("train", *GAUSSIAN, "algorithm.cutoff=0.7"): ("cutoff must lie in (0, 0.5), got 0.7",),
    ("train", "data.batch_size=0"): ("batch_size must be at least 1, got 0",),
    ("train", "callback.every_steps=0"): ("every_steps must be at least 1, got 0",),
    ("train", "callback.every_minutes=-1.0"): ("every_minutes must be positive or null",),
    ("train", "callback.patience=3"): ("patience", "monitor"),
    ("train", "callback.mode=least"): ("'min'", "'max'"),
    ("train", *GAUSSIAN, "data.dim=0"): ("dim",),
    ("train", *GAUSSIAN, "data.std0=-1.0"): ("std0",),
    ("train", *GAUSSIAN, "data.num_samples=0"): ("num_samples",),
    ("train", PDDS, "algorithm.coefficient=best"): ("algorithm.coefficient", "'tweedie'"),
    ("train", PDDS, "algorithm.ess_threshold=2.0"): ("ess_threshold must lie in [0, 1], got 2.0",),
    ("train", PDDS, "process.schedule=linear"): ("process.schedule must be null or a Schedule",),
    ("train", PDDS, "target.dim=1"): ("dim",),
    ("train", PDDS, "whitening=standard", "whitening.std=-2.0"): ("std must be positive",),
    ("sample", *FUNNEL, "seed=-1"): ("seed must be at least 0",),
    ("sample", *FUNNEL, "num_steps=0"): ("num_steps must be at least 1, got 0",),
    ("sample", *FUNNEL, "num_particles=0"): ("num_particles must be at least 1, got 0",),
    ("sample", *FUNNEL, "replicates=0"): ("replicates must be at least 1, got 0",),
    # combinations
    ("train", "trainer.max_steps=3"): ("trainer.max_steps is set by sbflow",),
    ("train", "trainer.callbacks=null"): ("trainer.callbacks is set by sbflow",),
    ("train", *GAUSSIAN, "trainer.accelerator=quantum"): ("quantum",),
    ("train", *GAUSSIAN, "trainer.precision=7"): ("trainer", "7"),
    ("train", *GAUSSIAN, "metric=translation"): ("metric",),
    ("train", "target=gaussian", "algorithm=particle_denoising_diffusion_sampler"): ("whitening",),
    ("train", "resume=nowhere"): ("resume=nowhere", "config.yaml"),
    ("sample",): ("checkpoint=RUN", "target=NAME"),
    ("sample", "target=sonar", "checkpoint=x"): ("either",),
    ("sample", "checkpoint=nowhere", "whitening=standard"): ("whitening cannot be changed",),
    ("sample", "target=mixture_2d"): ("whitening=standard",),
    # paths
    ("sample", "checkpoint=nowhere"): ("nowhere",),
    ("evaluate",): ("checkpoint",),
    ("evaluate", "checkpoint=nowhere"): ("nowhere",),
    ("evaluate", "checkpoint=empty"): ("checkpoint=empty",),
    ("export", "checkpoint=nowhere", "output=o"): ("nowhere",),
    ("export", "checkpoint=bridge"): ("output",),
    ("export", "checkpoint=bridge", "output=pictures"): ("output=pictures", "empty folder"),
    ("translate",): ("checkpoint",),
    ("translate", "checkpoint=nowhere", "input=pictures", "output=o"): ("nowhere",),
    ("translate", "checkpoint=bridge", "input=nowhere", "output=o"): ("input=nowhere", "folder"),
    ("translate", "checkpoint=bridge", "input=empty", "output=o"): ("input=empty", "holds no image"),
    ("translate", "checkpoint=bridge", "input=pictures", "output=pictures"): ("output", "outside input"),
    ("translate", "checkpoint=bridge", "input=pictures/a.png", "output=b.jpg"): ("output", ".png"),
    ("translate", "checkpoint=bridge", "input=pictures", "output=text"): ("output=text", "folder"),
    ("translate", "checkpoint=bridge", "input=pictures", "output=o"): ("[2]", "not images"),
    # options of translate
    ("translate", "checkpoint=x", "input=a", "output=b", "direction=left"): ("direction", "'backward'"),
    ("translate", "checkpoint=x", "input=a", "output=b", "num_steps=0"): ("num_steps must be at least 1",),
    ("translate", "checkpoint=x", "input=a", "output=b", "num_samples=0"): ("num_samples must be at least 1",),
    ("translate", "checkpoint=x", "input=a", "output=b", "batch_size=0"): ("batch_size must be at least 1",),
    ("translate", "checkpoint=x", "input=a", "output=b", "sampler=best"): ("sampler", "'ode'"),
    ("translate", "checkpoint=x", "input=a", "output=b", "precision=64"): ("precision", "'bf16'"),
    ("translate", "checkpoint=x", "input=a", "output=b", "sampler=ode", "num_samples=2"): (
        "sampler=ode",
        "num_samples",
    ),
    ("translate", "checkpoint=x", "input=pictures", "output=b", "device=tpu9"): ("device=tpu9", "auto"),
    ("train", "algorithm=[0]"): ("a group takes the name of a part",),
    ("train", "network=[[]]"): ("a group takes the name of a part",),
    # files that are something else
    ("evaluate", "checkpoint=text"): ("text",),
    ("evaluate", "checkpoint=garbage"): ("cannot load checkpoint", "last.ckpt"),
    ("evaluate", "checkpoint=list"): ("config.yaml", "not a config"),
    ("evaluate", "checkpoint=binary"): ("config.yaml", "not a readable config"),
    ("evaluate", "checkpoint=dangling"): ("config.yaml", "Interpolation key 'b' not found"),
    ("evaluate", "checkpoint=circular"): ("config.yaml", "not a readable config"),
    ("sample", "checkpoint=bridge"): ("checkpoint=bridge", "cannot estimate"),
    ("sample", "target=sonar"): ("SBFLOW_DATA",),
    ("train", "experiment=sbf_folders", "data.folder0=pictures", "data.folder1=empty"): ("folder1",),
    ("train", "experiment=sbf_folders"): ("data.folder0",),
    ("train", "experiment=sbf_folders", "data.folder0=nowhere", "data.folder1=pictures"): ("folder0",),
    ("train", *ARRAYS, "data.x0=nan.npy", "data.x1=good.npy"): ("x0",),
    ("train", *ARRAYS, "data.x0=good.npy", "data.x1=wide.npy"): ("shape",),
    ("train", *ARRAYS, "data.x0=text", "data.x1=good.npy"): ("text",),
    ("train", *ARRAYS, "data.x0=objects.npy", "data.x1=good.npy"): ("objects.npy",),
    # densities
    ("sample", "target=callable", "target.log_prob=nowhere.f", "target.dim=2"): ("nowhere",),
    ("sample", "target=callable", "target.log_prob=math.sin", "target.dim=2"): ("log_prob",),
    ("sample", "target=callable", "target.log_prob=math.sin", "target.dim=0"): ("dim",),
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with something of every kind."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    (folder / "text").write_text("hello")
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8), 3).save(folder / "pictures" / "a.png")
    _bridge(folder / "bridge")
    for name, config in (
        ("list", "- 1\n"),
        ("dangling", "algorithm:\n  network: ${b}\n"),
        ("circular", "algorithm:\n  network: ${algorithm.network}\n"),
        ("binary", "\x00\x01: {"),
        ("garbage", (folder / "bridge/config.yaml").read_text()),
    ):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "config.yaml").write_text(config)
        (folder / name / "checkpoints" / "last.ckpt").write_bytes(b"\x80garbage")
    _arrays(folder)
    return folder


def _bridge(folder):
    """Run folder of an untrained bridge in two dimensions."""
    config = OmegaConf.create(
        {
            "algorithm": {
                "_target_": "sbflow.algorithm.schrodinger_bridge_flow.SchrodingerBridgeFlow",
                "network": {"_target_": "sbflow.network.mlp.MLP", "event_shape": [2], "num_directions": 2},
                "process": {"_target_": "sbflow.process.brownian.Brownian"},
                "event_shape": [2],
            }
        }
    )
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(config, folder / "config.yaml")
    torch.save({"state_dict": build(config, "algorithm").state_dict()}, folder / "checkpoints" / "last.ckpt")


def _arrays(folder):
    good = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.save(folder / "good.npy", good)
    np.save(folder / "wide.npy", np.zeros((20, 3), dtype=np.float32))
    np.save(folder / "nan.npy", np.where(good > 1, np.nan, good))
    np.save(folder / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)


def test_there_are_enough_of_them():
    assert len(BAD) >= 60


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_answered_by_one_line_that_names_what_to_change(arguments, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("SBFLOW_DATA", str(workplace / "empty"))
    result = sbflow(*arguments, capsys=capsys)
    assert result.code == 2, result.out
    missing = [words for words in BAD[arguments] if words not in result.err]
    assert not missing, result.err
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert "Traceback" not in result.err
