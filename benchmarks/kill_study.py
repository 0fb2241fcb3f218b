"""Kill training, sampling and translating at random moments; go on; compare with the undisturbed run.

``python benchmarks/kill_study.py --kills 30`` prints one line per kill and exits with 1 if any result differs, or if a
training lost more than the steps since its last checkpoint. Ten minutes of one core.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sbflow.callback.metrics_file import read_rows
from sbflow.command.checkpoint import newest_checkpoint, read_checkpoint

INTERVAL = 10
TRAIN = ("train", "algorithm.num_steps=2", "data.num_train=400", "data.num_test=80", "data.batch_size=16")
TRAIN = (*TRAIN, "algorithm.pretrain_steps=60", "algorithm.finetune_steps=30", f"callback.every_steps={INTERVAL}")
TRAIN = (*TRAIN, "metric.num_samples=40", "metric.num_steps=2", "figure.num_images=4", "trainer.log_every_n_steps=1")
TRANSLATE = ("translate", "num_steps=5", "batch_size=8")
SAMPLE = ("sample", "target=funnel", "whitening=standard", "num_particles=4000", "num_steps=32", "replicates=4")


def run(arguments: tuple[str, ...], seconds: float | None = None, kind: signal.Signals = signal.SIGKILL) -> bool:
    """Run a command, killing it after some seconds; True if it ended by itself."""
    command = [sys.executable, "-m", "sbflow.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(kind)
        process.communicate()
        return False
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {err}")
    return True


def timed(arguments: tuple[str, ...]) -> float:
    """Seconds of an undisturbed run."""
    start = time.perf_counter()
    run(arguments)
    return time.perf_counter() - start


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def same_training(first: Path, second: Path) -> bool:
    """Whether two runs ended with the same weights and the same table of metrics."""
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (first, second)]
    tables = [(run / "metrics.csv").read_bytes() for run in (first, second)]
    return all(states[0][name].equal(states[1][name]) for name in states[0]) and tables[0] == tables[1]


def same_evidence(first: Path, second: Path) -> bool:
    """Whether two samplings gave the same estimate; a killed one leaves nothing or the whole."""
    return len({json.loads((run / "evidence.json").read_text())["log_z"] for run in (first, second)}) == 1


def make_images(folder: Path, count: int) -> None:
    """Random pictures."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for k in range(count):
        Image.fromarray(rng.integers(0, 255, (20, 20), dtype=np.uint8)).save(folder / f"{k:04d}.png")


def kill_training(folder: Path, seconds: float, kind: signal.Signals) -> tuple[bool, bool]:
    """Kill a training; go on with it, or start again if it had not begun. Whether it ended before, and is the same."""
    killed = folder / "killed"
    ended = run((*TRAIN, f"run_dir={killed}"), seconds, kind)
    lost = lost_steps(killed)
    begun = (killed / "config.yaml").exists()
    run(("train", f"resume={killed}") if begun else (*TRAIN, f"run_dir={killed}"))
    return ended, same_training(killed, folder / "train") and lost <= INTERVAL


def lost_steps(folder: Path) -> int:
    """Steps that were logged and are not in the newest checkpoint."""
    logged = max((int(row["step"]) + 1 for row in read_rows(folder / "metrics.csv")), default=0)
    newest = newest_checkpoint(folder / "checkpoints")
    return logged - (0 if newest is None else read_checkpoint(newest)["global_step"])


def kill_translating(folder: Path, seconds: float, kind: signal.Signals) -> tuple[bool, bool]:
    """Kill a translation and start it again; no image may be half written under its name."""
    killed, whole = folder / "killed", tree(folder / "translate")
    command = (*TRANSLATE, f"checkpoint={folder / 'train'}", f"input={folder / 'in'}", f"output={killed}")
    ended = run(command, seconds, kind)
    sound = all(whole.get(name, content) == content for name, content in tree(killed).items())
    run(command)
    return ended, sound and tree(killed) == whole


def kill_sampling(folder: Path, seconds: float, kind: signal.Signals) -> tuple[bool, bool]:
    """Kill a sampling and start it again in the same folder."""
    ended = run((*SAMPLE, f"run_dir={folder / 'killed'}"), seconds, kind)
    if not (folder / "killed" / "evidence.json").exists():
        run((*SAMPLE, f"run_dir={folder / 'killed'}"))
    return ended, same_evidence(folder / "killed", folder / "sample")


STUDIES = {"train": kill_training, "translate": kill_translating, "sample": kill_sampling}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "in", options.images)
        whole = {"train": timed((*TRAIN, f"run_dir={folder / 'train'}"))}
        files = (f"checkpoint={folder / 'train'}", f"input={folder / 'in'}", f"output={folder / 'translate'}")
        whole["translate"] = timed((*TRANSLATE, *files))
        whole["sample"] = timed((*SAMPLE, f"run_dir={folder / 'sample'}"))
        print({name: round(seconds, 1) for name, seconds in whole.items()}, flush=True)
        failures = kills = 0
        while kills < options.kills:
            study = list(STUDIES)[kills % len(STUDIES)]
            kind = chance.choice((signal.SIGKILL, signal.SIGTERM))
            seconds = chance.uniform(0.3, 1.0) * whole[study]
            ended, same = STUDIES[study](folder, seconds, kind)
            failures += not same
            kills += not ended
            when = "had ended before" if ended else f"after {seconds:.1f} s"
            print(f"{kills} {study} {kind.name} {when}: {'same' if same else 'DIFFERENT'}", flush=True)
            if ended:
                # the machine is faster now than when the undisturbed run was timed
                whole[study] *= 0.8
            shutil.rmtree(folder / "killed", ignore_errors=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
