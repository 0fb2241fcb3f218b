"""Kill training, sampling and translating at random moments; go on; compare with the undisturbed run.

``python benchmarks/kill_study.py --kills 30`` prints one line per kill and exits with 1 if any result differs.
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

TRAIN = ("train", "algorithm.num_steps=3", "data.num_train=400", "data.num_test=80", "data.batch_size=16")
TRAIN = (*TRAIN, "algorithm.pretrain_steps=120", "algorithm.finetune_steps=60", "callback.every_steps=10")
TRAIN = (*TRAIN, "metric.num_samples=40", "metric.num_steps=2", "figure.num_images=4")
TRANSLATE = ("translate", "num_steps=10", "batch_size=16")
SAMPLE = ("sample", "target=funnel", "whitening=standard", "num_particles=20000", "num_steps=64", "replicates=4")


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


def kill_training(folder: Path, seconds: float, kind: signal.Signals) -> bool:
    """Kill a training; go on with it, or start again if it had not begun."""
    killed = folder / "killed"
    run((*TRAIN, f"run_dir={killed}"), seconds, kind)
    begun = (killed / "config.yaml").exists()
    run(("train", f"resume={killed}") if begun else (*TRAIN, f"run_dir={killed}"))
    return same_training(killed, folder / "train")


def kill_translating(folder: Path, seconds: float, kind: signal.Signals) -> bool:
    """Kill a translation and start it again."""
    command = (*TRANSLATE, f"checkpoint={folder / 'train'}", f"input={folder / 'in'}", f"output={folder / 'killed'}")
    run(command, seconds, kind)
    run(command)
    return tree(folder / "killed") == tree(folder / "translate")


def kill_sampling(folder: Path, seconds: float, kind: signal.Signals) -> bool:
    """Kill a sampling and start it again in the same folder."""
    run((*SAMPLE, f"run_dir={folder / 'killed'}"), seconds, kind)
    run((*SAMPLE, f"run_dir={folder / 'killed'}"))
    return same_evidence(folder / "killed", folder / "sample")


STUDIES = {"train": kill_training, "translate": kill_translating, "sample": kill_sampling}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=200)
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
        failures = 0
        for kill in range(options.kills):
            study = list(STUDIES)[kill % len(STUDIES)]
            kind = chance.choice((signal.SIGKILL, signal.SIGTERM))
            seconds = chance.uniform(0.2, 1.0) * whole[study]
            same = STUDIES[study](folder, seconds, kind)
            failures += not same
            print(f"{kill} {study} {kind.name} after {seconds:.1f} s: {'same' if same else 'DIFFERENT'}", flush=True)
            shutil.rmtree(folder / "killed", ignore_errors=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
