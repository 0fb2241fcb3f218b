"""How time and memory of the particle sampler grow with particles, steps and dimension.

python benchmarks/scaling_particles.py --repeats 3

Processor seconds on the funnel, untrained, for a range of N, of K and of d, with the exponent of a fitted power law
(1 is linear); and the peak memory of processes of their own, torch and all imports included: 2000 particles of the Cox
process (d = 1600), and a million of the funnel, at once and with calls of the density of at most 100 MB. ``floor_mb``
is what the particles with their gradients and weights take, 8 d + 64 bytes each. Writes ``scaling_particles.csv`` and
``scaling_particles.png``.
"""

import argparse
import json
import resource
import subprocess
import sys
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from measured import RESULTS, write_rows
from seconds import interleaved

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import LGCP, Funnel
from sbflow.whitening import Laplace, Standard


class Run(NamedTuple):
    """A run of the sampler."""

    target: str = "funnel"
    particles: int = 10_000
    steps: int = 16
    dim: int = 10
    chunk_size: str | None = None


RANGES = {
    # with fewer, the calls of the operations take the time and not the numbers
    "particles": [8_000, 32_000, 128_000, 512_000],
    "steps": [8, 16, 32, 64],
    "dim": [10, 40, 160],
}
LARGE = (Run("lgcp", 2000, 32, 1600), Run("funnel", 1_000_000, 16, 10))
MEMORY = (*LARGE, *(run._replace(chunk_size="100MB") for run in LARGE))


def sampler(run: Run) -> ParticleDenoisingDiffusionSampler:
    """Untrained."""
    target, whitening = (LGCP(), Laplace()) if run.target == "lgcp" else (Funnel(dim=run.dim), Standard())
    module = ParticleDenoisingDiffusionSampler(
        target,
        whitening,
        OrnsteinUhlenbeck(),
        num_particles=run.particles,
        num_steps=run.steps,
        chunk_size=run.chunk_size,
    )
    module.whiten()
    return module


def timed(axis: str, repeats: int) -> list[dict]:
    """Seconds along one axis and the exponent."""
    runs = [Run()._replace(**{axis: value}) for value in RANGES[axis]]
    modules = {getattr(run, axis): sampler(run) for run in runs}
    seconds = interleaved({value: module.estimate for value, module in modules.items()}, repeats)
    exponent = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
    return [
        row("seconds", run, value, axis=axis, exponent=round(float(exponent), 3), repeats=repeats)
        for run, value in zip(runs, seconds.values(), strict=True)
    ]


def peaks(runs: tuple[Run, ...]) -> list[dict]:
    """Peak memory of each run in a process of its own."""
    found = []
    for run in runs:
        command = [sys.executable, __file__, "--child", json.dumps(run)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        floor = round(run.particles * (8 * run.dim + 64) / 1e6)
        found.append(row("peak_mb", run, float(done.stdout.split()[-1]), axis="memory", floor_mb=floor))
    return found


def row(what: str, run: Run, value: float, **more: object) -> dict:
    """One line of the table."""
    empty = dict.fromkeys(("axis", "exponent", "repeats", "floor_mb"), "")
    return run._asdict() | {"measured": what, "value": round(value, 4)} | empty | more


def draw(rows: list[dict]) -> None:
    """Seconds along each axis."""
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(RANGES)), RANGES, strict=True):
        shown = [row for row in rows if row["axis"] == axis]
        axes.loglog([row[axis] for row in shown], [row["value"] for row in shown], "o-")
        axes.set(xlabel=axis, ylabel="processor seconds", title=f"exponent {shown[0]['exponent']}")
    figure.savefig(RESULTS / "scaling_particles.png", dpi=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help="make this one run and print the peak memory of the process in megabytes")
    arguments = parser.parse_args()
    if arguments.child:
        sampler(Run(*json.loads(arguments.child))).estimate()
        # kilobytes on Linux
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
        return
    # first: a process begins with the peak of the one that starts it
    rows = peaks(MEMORY) + [line for axis in RANGES for line in timed(axis, arguments.repeats)]
    print(*rows, sep="\n")
    print(write_rows("scaling_particles.csv", rows))
    draw(rows)


if __name__ == "__main__":
    main()
