"""Ways of stage 2 from one and the same stage 1, by the metrics of the experiment.

python benchmarks/finetuning.py --experiment sbf_glyphs --ways online halves_reuse_4 --seeds 0 1 2 --runs FOLDER

For each seed ``sbflow train`` makes stage 1 alone, measured in both directions, and then every way goes on from its
last checkpoint with as many steps. One row of ``finetuning.csv`` for each; finished rows are skipped, and a stage 1
that stands in ``--runs`` already is taken as it is. ``seconds`` are of the processor, the measurement included.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from measured import read_rows, write_rows
from omegaconf import OmegaConf

TABLE = "finetuning.csv"
BUFFER = "sbflow.coupling.Buffer"
HALVES = {"_target_": BUFFER, "parts": 2, "reuse": 4}
WAYS: dict[str, dict] = {
    "online": {"coupling": "online"},
    "online_euler": {"coupling": "online", "method": "euler"},
    "reuse_4": {"coupling": {"_target_": BUFFER, "reuse": 4}},
    "halves": {"coupling": {"_target_": BUFFER, "parts": 2}},
    "halves_reuse_4": {"coupling": HALVES},
    # half the rows a step: as many rows in all take twice the steps, each half as long
    "halves_reuse_2_6": {
        "coupling": {"_target_": BUFFER, "parts": 2, "reuse": 2},
        "num_steps": 6,
        "finetune_learning_rate": 1.5e-4,
    },
    # slower, for twice the steps
    "halves_reuse_4_slow": {"coupling": HALVES, "finetune_ema_decay": 0.9993},
    # and at the rate of stage 1
    "halves_reuse_4_slow_rate_2e-3": {
        "coupling": HALVES,
        "finetune_ema_decay": 0.9993,
        "finetune_learning_rate": 2e-3,
    },
    "online_rate_2e-3": {"coupling": "online", "finetune_learning_rate": 2e-3},
    "halves_reuse_4_8": {"coupling": HALVES, "num_steps": 8},
}
PLAIN = {"finetune_ema_decay": None, "finetune_learning_rate": 3e-4}
"""Of stage 2, where a way does not say, whatever the experiment has there."""
NAMES = ("frechet", "msd", "target_class_share")


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="sbf_glyphs")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["online", "halves_reuse_4"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--finetune-steps", type=int, help="of stage 2; by default those of the experiment")
    parser.add_argument("--runs", type=Path, required=True, help="where the run folders are kept")
    args = parser.parse_args()
    done = {(row["experiment"], row["seed"], row["way"], row["finetune_steps"]) for row in read_rows(TABLE)}
    for seed in args.seeds:
        first = args.runs / f"{args.experiment}-{seed}"
        if not (first / "metrics.json").is_file():
            options = [f"experiment={args.experiment}", f"seed={seed}", f"run_dir={first}"]
            options += ["metric.directions=[forward,backward]", "++algorithm.finetune_steps=0"]
            spent = sbflow("train", *options)
            write_rows(TABLE, [row(args.experiment, seed, "stage 1", 0, spent, first)])
        for way in args.ways:
            steps = args.finetune_steps or planned(args.experiment)
            if (args.experiment, str(seed), way, str(steps)) in done:
                continue
            folder = args.runs / f"{first.name}-{way}-{steps}"
            branch(first, folder, WAYS[way] | {"finetune_steps": steps})
            spent = sbflow("train", f"resume={folder}")
            write_rows(TABLE, [row(args.experiment, seed, way, steps, spent, folder)])
    for found in read_rows(TABLE):
        print(", ".join(f"{name} {found[name]}" for name in list(found)[:11]))


def sbflow(*arguments: str) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "sbflow.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def planned(experiment: str) -> int:
    """Steps of stage 2 in the config of an experiment."""
    command = [sys.executable, "-m", "sbflow.cli", "train", f"experiment={experiment}", "--cfg", "job"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return OmegaConf.create(shown).algorithm.finetune_steps


def branch(first: Path, folder: Path, options: dict) -> None:
    """A run that stands at the end of stage 1, with other options of stage 2."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(first / "checkpoints" / "last.ckpt", folder / "checkpoints" / "last.ckpt")
    config = OmegaConf.load(first / "config.yaml")
    # a coupling takes the place of the experiment's own, and is not merged into it
    config.algorithm = {**config.algorithm, **PLAIN, **options}
    config.run_dir = str(folder)
    OmegaConf.save(config, folder / "config.yaml")


def row(experiment: str, seed: int, way: str, steps: int, seconds: float, folder: Path) -> dict:
    """Metrics of both directions."""
    metrics = json.loads((folder / "metrics.json").read_text())
    found = {f"{name}{side}": round(metrics[f"test/{name}{side}"], 4) for side in ("", "_backward") for name in NAMES}
    head = {"experiment": experiment, "seed": seed, "way": way, "finetune_steps": steps}
    return head | {"seconds": round(seconds, 1)} | found


if __name__ == "__main__":
    main()
