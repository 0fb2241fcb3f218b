"""log Z by the Particle Denoising Diffusion Sampler, untrained and trained, and by annealed SMC at equal budgets.

python benchmarks/pdds_table.py --targets sonar funnel --seeds 20 --particles 2000

One row of ``results/pdds_table.csv`` for each target, whitening and method; finished rows are skipped, so that the
command can be stopped and run again. ``smc`` has as many evaluations of the density per run as PDDS has, ``smc_total``
as many as one PDDS run and the training of the first refinement together. ``results/pdds_table.png`` is drawn anew each
time. Evaluations and seconds are those of one run; those of training and whitening stand in columns of their own.
"""

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from matplotlib.figure import Figure
from measured import RESULTS, read_rows, write_rows
from torch import Tensor

from sbflow.algorithm import AnnealedSMC, EvidenceSampler, ParticleDenoisingDiffusionSampler
from sbflow.data import ParticleData
from sbflow.network import MLP
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import Evidence
from sbflow.target import GMM40, LGCP, Brownian, Funnel, Ionosphere, ManyWell, Mixture2D, Sonar, Target
from sbflow.whitening import FullRank, Laplace, MeanField, Standard, Whitening

TABLE = "pdds_table.csv"
LEAPFROG = 10
# numbers that one tensor of a sweep holds at most
SWEEP = 10_000_000


class Problem(NamedTuple):
    """A target with its settings.

    Attributes:
        target: class of the density.
        num_steps: steps of the sampler.
        best: the whitening that suits it best.
        options: further options of the sampler.
    """

    target: type[Target]
    num_steps: int
    best: Whitening
    options: Mapping[str, Any] = MappingProxyType({})


# every refinement reaches further into the tails than the one before
FUNNEL = {"num_particles": 10_000, "refinements": 8, "updates_per_refinement": 1000}
PROBLEMS = {
    "sonar": Problem(Sonar, 16, FullRank(), {"updates_per_refinement": 1500}),
    "ionosphere": Problem(Ionosphere, 16, FullRank(), {"updates_per_refinement": 1500}),
    "brownian": Problem(Brownian, 16, FullRank(), {"updates_per_refinement": 1500}),
    "lgcp": Problem(LGCP, 32, Laplace(), {"updates_per_refinement": 500}),
    "funnel": Problem(Funnel, 64, Standard(1.5), FUNNEL),
    "mixture_2d": Problem(Mixture2D, 16, Standard(2.5), {"updates_per_refinement": 2000}),
    "gmm40": Problem(GMM40, 16, Standard(25.0), {"updates_per_refinement": 1500}),
    "many_well": Problem(ManyWell, 16, Standard(1.5), {"updates_per_refinement": 1500}),
}


def main() -> None:
    """Fill the table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--whitenings", nargs="+", choices=("mean_field", "best"), default=["mean_field", "best"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--updates", type=int, help="optimiser steps of a refinement; by default those of the target")
    arguments = parser.parse_args()
    for name in arguments.targets:
        for whitening in arguments.whitenings:
            for row in cells(name, whitening, arguments):
                write_rows(TABLE, [row])
                print(
                    f"{name}, {whitening}, {row['method']}: rmse {row['rmse']:.3g}, bias {row['bias']:.3g}", flush=True
                )
    draw(read_rows(TABLE))


def cells(name: str, whitening: str, arguments: argparse.Namespace) -> Iterator[dict]:
    """Rows of one target and whitening that the table does not hold yet."""
    done = {row["method"] for row in read_rows(TABLE) if (row["target"], row["whitening"]) == (name, whitening)}
    problem = PROBLEMS[name]
    rule = MeanField() if whitening == "mean_field" else problem.best
    head = {"target": name, "whitening": whitening, "rule": type(rule).__name__}
    trained = {f"trained_{k}" for k in range(1, problem.options.get("refinements", 2) + 1)}
    if done >= trained | {"untrained", "smc", "smc_total"}:
        return
    seed_everything(0, verbose=False)
    module = sampler(problem, rule, arguments.updates)
    start = time.perf_counter()
    module.whiten()
    head["whitening_seconds"] = time.perf_counter() - start
    if "untrained" not in done:
        yield head | measure(module, "untrained", arguments, trained=False)
    spent = arguments.particles * (problem.num_steps + 1)
    if "smc" not in done:
        yield head | annealed(problem, rule, "smc", spent, arguments)
    if not done >= trained | {"smc_total"}:
        refinements = Refinements(arguments)
        train(module, refinements)
        yield from (head | row for row in refinements.rows if row["method"] not in done)
        if "smc_total" not in done:
            total = spent + refinements.rows[0]["training_evaluations"]
            yield head | annealed(problem, rule, "smc_total", total, arguments)


def sampler(problem: Problem, rule: Whitening, updates: int | None) -> ParticleDenoisingDiffusionSampler:
    """An untrained sampler."""
    options = {"refinements": 2, **problem.options} | ({"updates_per_refinement": updates} if updates else {})
    target = problem.target()
    network = MLP((target.dim,), hidden=(64, 64))
    return ParticleDenoisingDiffusionSampler(
        target, rule, OrnsteinUhlenbeck(), network, num_steps=problem.num_steps, **options
    )


class Refinements(Callback):
    """Measures the sampler at the end of each refinement, and how long it trained until then."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.rows: list[dict] = []
        self.seconds = 0.0
        self.start = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Stop the clock while the sampler is measured."""
        done, left = divmod(trainer.global_step, module.updates_per_refinement)
        if left:
            return
        self.seconds += time.perf_counter() - self.start
        row = measure(module, f"trained_{done}", self.arguments, trained=True)
        self.rows.append(row | {"training_seconds": self.seconds})
        self.start = time.perf_counter()


def train(module: ParticleDenoisingDiffusionSampler, callback: Callback) -> None:
    """Train in memory."""
    Trainer(
        max_steps=module.max_steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        devices=1,
        callbacks=[callback],
    ).fit(module, ParticleData(module.target))


def annealed(problem: Problem, rule: Whitening, method: str, budget: int, arguments: argparse.Namespace) -> dict:
    """Row of annealed SMC, with as many particles as the budget of evaluations allows."""
    module = AnnealedSMC(problem.target(), rule)
    module.whiten()
    module.prepare(None, trained=False)
    levels = len(module.ladders[None].exponents)
    num_particles = max(budget // (1 + LEAPFROG * levels), 10)
    return measure(module, method, arguments, trained=False, num_particles=num_particles)


def measure(
    module: EvidenceSampler,
    method: str,
    arguments: argparse.Namespace,
    *,
    trained: bool,
    num_particles: int | None = None,
) -> dict:
    """Error of log Ẑ over the seeds, with what each run says of itself and costs."""
    num_particles = num_particles or arguments.particles
    sweep = max(1, min(arguments.seeds, SWEEP // (num_particles * module.target.dim)))
    runs: list[Evidence] = []
    for seed in range(math.ceil(arguments.seeds / sweep)):
        replicates = min(sweep, arguments.seeds - seed * sweep)
        runs.append(
            module.estimate(num_particles=num_particles, replicates=replicates, seed=1000 + seed, trained=trained)
        )
    log_z, stderr = (torch.cat([getattr(run, name) for run in runs]) for name in PER_RUN)
    cost = {
        "evaluations": sum(run.cost.density for run in runs) / arguments.seeds,
        "seconds": sum(run.seconds for run in runs) / arguments.seeds,
        "training_evaluations": runs[0].training_cost.density,
        "whitening_evaluations": runs[0].whitening_cost.density,
        "training_seconds": 0.0,
    }
    ess = torch.cat([run.ess_path[-1] for run in runs]).mean().item() / num_particles
    setting = {"method": method, "num_steps": runs[0].num_steps, "particles": num_particles, "seeds": len(log_z)}
    return setting | errors(log_z, stderr, module.target.log_normalizer) | {"ess": ess} | cost


PER_RUN = ("log_z_replicates", "log_z_stderr_replicates")


def errors(log_z: Tensor, stderr: Tensor, reference: float | None) -> dict[str, float]:
    """Bias, spread and coverage; NaN where log Z is not known."""
    error = log_z - (math.nan if reference is None else reference)
    covered = error.abs() < 1.96 * stderr
    return {
        "log_z": log_z.mean().item(),
        "bias": error.mean().item(),
        "rmse": error.square().mean().sqrt().item(),
        "sd": log_z.std().item(),
        "stderr": stderr.mean().item(),
        "covered": covered.double().mean().item(),
    }


def draw(rows: list[dict[str, str]]) -> Path:
    """Root mean squared error of every method, one panel per whitening."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for axes, whitening in zip(panels, ("mean_field", "best"), strict=True):
        shown = [row for row in rows if row["whitening"] == whitening]
        targets = list(dict.fromkeys(row["target"] for row in shown))
        for i, method in enumerate(methods):
            found = [row for row in shown if row["method"] == method]
            place = [targets.index(row["target"]) + 0.15 * (i - len(methods) / 2) for row in found]
            axes.bar(place, [float(row["rmse"]) for row in found], width=0.15, label=method)
        axes.set(title=f"whitening: {whitening}", yscale="log", xticks=range(len(targets)))
        axes.set_xticklabels(targets, rotation=30)
    panels[0].set_ylabel("RMSE of log Z")
    panels[1].legend()
    machines = {f"{row['machine']}, {row['threads']} threads, commit {row['commit']}" for row in rows}
    figure.suptitle("; ".join(sorted(machines)), fontsize=7)
    file = RESULTS / "pdds_table.png"
    figure.savefig(file, dpi=120)
    return file


if __name__ == "__main__":
    main()
