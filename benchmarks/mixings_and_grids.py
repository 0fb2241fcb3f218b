"""log Z by PDDS with two losses, three coefficients of the proposal and two grids of times.

python benchmarks/mixings_and_grids.py --targets sonar funnel --seeds 20 --particles 2000

A network is trained once per target, loss and coefficient, with the settings of ``configs/experiment/pdds_TARGET.yaml``
but 16 steps, and measured with every number of steps on every grid: ``uniform``, even in the clock of the cosine
schedule, and ``optimal``. One row of ``results/mixings_and_grids.csv`` for each; finished rows are skipped, so that the
command can be stopped and run again. ``variance`` is the measured sum of the variances of the incremental log-weights,
``predicted`` what the grid promises of it. Seconds are those of one run; those of training and of the pilot runs of the
grid stand in columns of their own. ``--print`` shows the table in short and runs nothing.
"""

import argparse
import math
import time
from collections.abc import Iterator
from itertools import product

import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, seed_everything
from measured import read_rows, write_rows
from omegaconf import DictConfig
from pdds_table import SWEEP, errors, train

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.cli import config_dir
from sbflow.command.build import build
from sbflow.tensor import seeded_generator

TABLE = "mixings_and_grids.csv"
TARGETS = ("sonar", "ionosphere", "funnel", "mixture_2d", "brownian")
LOSSES = ("novel", "fisher")
COEFFICIENTS = ("lambda", "tweedie", "exponential")
GRIDS = ("uniform", "optimal")
TRAINED_STEPS = 16
KEY = ("target", "loss", "coefficient", "grid", "num_steps")


def main() -> None:
    """Fill the table."""
    arguments = parser().parse_args()
    if not arguments.print:
        for name, loss, coefficient in product(arguments.targets, arguments.losses, arguments.coefficients):
            for row in cells(name, loss, coefficient, arguments):
                write_rows(TABLE, [row])
                print(", ".join(f"{row[key]}" for key in KEY), f"rmse {row['rmse']:.3g}", flush=True)
    show(read_rows(TABLE))


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    options.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    options.add_argument("--coefficients", nargs="+", choices=COEFFICIENTS, default=list(COEFFICIENTS))
    options.add_argument("--grids", nargs="+", choices=(*GRIDS, "adaptive"), default=list(GRIDS))
    options.add_argument("--steps", nargs="+", type=int, default=[8, 16, 32])
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--particles", type=int, default=2000)
    options.add_argument("--updates", type=int, help="optimiser steps of a refinement; by default those of the target")
    options.add_argument("--print", action="store_true")
    return options


def cells(name: str, loss: str, coefficient: str, arguments: argparse.Namespace) -> Iterator[dict]:
    """Rows of one network that the table does not hold yet."""
    head = {"target": name, "loss": loss, "coefficient": coefficient}
    done = {tuple(row[key] for key in KEY) for row in read_rows(TABLE)}
    wanted = [
        (grid, num_steps)
        for grid, num_steps in product(arguments.grids, arguments.steps)
        if (name, loss, coefficient, grid, str(num_steps)) not in done
    ]
    if not wanted:
        return
    seed_everything(0, verbose=False)
    module = build(settings(name, loss, coefficient, arguments.updates), "algorithm")
    start = time.perf_counter()
    train(module, Callback())
    head |= {"training_seconds": time.perf_counter() - start, "trained": bool(module.trained)}
    for grid, num_steps in wanted:
        yield head | measure(module, grid, num_steps, arguments)


def settings(name: str, loss: str, coefficient: str, updates: int | None) -> DictConfig:
    """The experiment of a target."""
    options = [f"num_steps={TRAINED_STEPS}", f"loss={loss}", f"coefficient={coefficient}"]
    options += [f"updates_per_refinement={updates}"] if updates else []
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [f"experiment=pdds_{name}", *(f"++algorithm.{option}" for option in options)])
    config.event_shape = [build(config, "target").dim]
    return config


@torch.no_grad()
def measure(
    module: ParticleDenoisingDiffusionSampler, grid: str, num_steps: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """Error of log Ẑ over the seeds, on a grid that is made for it."""
    scheme = module.scheme
    scheme.time_grid, scheme.ladders, scheme.grids = grid, {}, {}
    start = time.perf_counter()
    module.prepare(num_steps)
    pilot_seconds = time.perf_counter() - start
    found = scheme.grids[num_steps, bool(module.trained)]
    sweep = max(1, min(arguments.seeds, SWEEP // (arguments.particles * module.target.dim)))
    log_z, variances = [], []
    start = time.perf_counter()
    for seed in range(math.ceil(arguments.seeds / sweep)):
        like = module.like(min(sweep, arguments.seeds - seed * sweep), arguments.particles)
        generator = seeded_generator(1000 + seed, device=module.device)
        particles, path, *_ = module.draw(like, generator, num_steps=num_steps, trained=True)
        log_z.append(particles.log_z)
        variances.append(path.increment_variance[1:].sum(0))
    seconds = (time.perf_counter() - start) / arguments.seeds
    error = errors(torch.cat(log_z), torch.full((), math.nan), module.target.log_normalizer)
    return {
        "grid": grid,
        "num_steps": num_steps,
        "particles": arguments.particles,
        "seeds": arguments.seeds,
        **{name: error[name] for name in ("log_z", "bias", "rmse", "sd")},
        "variance": torch.cat(variances).mean().item(),
        "predicted": math.nan if found is None else found.predicted_variance,
        "seconds": seconds,
        "pilot_seconds": pilot_seconds,
    }


def show(rows: list[dict[str, str]]) -> None:
    """One line per target, loss and coefficient: RMSE, and in brackets the variance, per number of steps and grid."""
    columns = sorted({(int(row["num_steps"]), row["grid"]) for row in rows}, key=lambda pair: (pair[0], pair[1]))
    found = {tuple(row[key] for key in KEY): row for row in rows}
    print("| target | loss | c | " + " | ".join(f"{steps} {grid}" for steps, grid in columns) + " |")
    print("|" + "---|" * (3 + len(columns)))
    for head in dict.fromkeys(tuple(row[key] for key in KEY[:3]) for row in rows):
        cells = [found.get((*head, grid, str(steps))) for steps, grid in columns]
        shown = [f"{float(c['rmse']):.3g} ({float(c['variance']):.3g})" if c else "" for c in cells]
        print("| " + " | ".join((*head, *shown)) + " |")


if __name__ == "__main__":
    main()
