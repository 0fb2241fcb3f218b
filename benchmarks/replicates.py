"""Twenty independent runs of the particle sampler: in one sweep, one after the other, and by another version of sbflow.

python benchmarks/replicates.py --other PATH_OF_ANOTHER_CHECKOUT --repeats 3

Untrained on sonar, 2000 particles and 16 steps a run. ``batched`` is one call with as many replicates, ``separate`` one
sampler after the other, each with its own whitening, and ``sweeps`` the same runs of one sampler. Every way runs in
processes of its own that take turns; medians in processor seconds, start and imports left out. ``floor`` is what the
two matrix products of the likelihood take at the measured rate. ``memory`` says whether the environment lets glibc keep
freed memory, as the commands do. Writes ``replicates.csv`` and ``replicates.png``.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from measured import RESULTS, write_rows
from seconds import matmul_rate, processor_seconds

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import Sonar
from sbflow.whitening import Laplace

WAYS = ("batched", "sweeps", "separate")


def run(way: str, args: argparse.Namespace) -> float:
    """Seconds of all replicates."""

    def sampler() -> ParticleDenoisingDiffusionSampler:
        return ParticleDenoisingDiffusionSampler(
            Sonar(), Laplace(), OrnsteinUhlenbeck(), num_particles=args.particles, num_steps=args.steps
        )

    def batched() -> None:
        sampler().estimate(replicates=args.replicates)

    def sweeps() -> None:
        module = sampler()
        for seed in range(args.replicates):
            module.estimate(seed=seed)

    def separate() -> None:
        for seed in range(args.replicates):
            sampler().estimate(seed=seed)

    sampler().estimate()
    return processor_seconds({"batched": batched, "sweeps": sweeps, "separate": separate}[way])


def measured(way: str, tree: Path, options: list[str]) -> float:
    """Seconds by the package of a tree, in a process of its own."""
    command = [sys.executable, __file__, *options, "--run", way]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="root of another version of this repository")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--run", choices=WAYS, help="run in this way and print the seconds")
    args = parser.parse_args()
    if args.run:
        print(run(args.run, args))
        return
    here = Path(__file__).resolve().parent.parent
    trees = {"this": here} | ({"other": args.other.resolve()} if args.other else {})
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.repeats):
        for version, tree in trees.items():
            for way in WAYS:
                found.setdefault((version, way), []).append(measured(way, tree, sys.argv[1:]))
    rows = table(found, args)
    print(*rows, sep="\n")
    print(write_rows("replicates.csv", rows))
    draw(rows)


def table(found: dict[tuple[str, str], list[float]], args: argparse.Namespace) -> list[dict]:
    """One row for each version and way."""
    target = Sonar()
    products = 4 * target.signed_features.numel() * args.particles * (args.steps + 1) * args.replicates
    floor = products / matmul_rate()
    batched = median(found["this", "batched"])
    return [
        {
            "version": version,
            "way": way,
            "replicates": args.replicates,
            "particles": args.particles,
            "steps": args.steps,
            "repeats": args.repeats,
            "memory": "kept" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "given back",
            "seconds": round(median(seconds), 3),
            "over_batched": round(median(seconds) / batched, 3),
            "floor": round(floor, 3),
            "gap": round(median(seconds) / floor, 2),
        }
        for (version, way), seconds in found.items()
    ]


def draw(rows: list[dict]) -> None:
    """Seconds of each way."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh([f"{row['version']}, {row['way']}" for row in rows], [row["seconds"] for row in rows])
    axes.axvline(rows[0]["floor"], color="black", linewidth=0.8)
    axes.set(xlabel="processor seconds; the line is the floor")
    figure.savefig(RESULTS / "replicates.png", dpi=120)


if __name__ == "__main__":
    main()
