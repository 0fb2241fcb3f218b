"""How long each way of training takes to find the bridge between two Gaussians, and how good it is in the end.

python benchmarks/time_to_quality.py --ways online reuse_8 iterative ot_reuse_8 --seeds 0 1 2
python benchmarks/time_to_quality.py --until 0.1 --every 25 --pretrain-steps 100 200 600 --finetune-steps 600

Measured while training, the clock stopped: the relative Frobenius error of the cross-covariance, the worse of both
directions, at points and noises that come in pairs of opposite sign, so that a linear drift is measured without
sampling error. ``seconds_to_10`` are processor seconds until it first falls below a tenth (interpolated), ``inf`` if it
does not; with ``--until`` training ends there. Rollouts have 20 steps, or 2, 4 or 6 where that stands behind
``online``, ``halves``, ``iterative`` or ``ot``; behind ``reuse`` it is how often a pair is used. ``floor`` is the time
of the matrix products of the steps that were made, at the measured rate. Writes ``time_to_quality.csv`` and
``time_to_quality.png``.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer, seed_everything
from matplotlib.figure import Figure
from measured import RESULTS, write_rows
from seconds import matmul_rate
from torch import Tensor

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.coupling import Buffer, Iterative, MinibatchOT
from sbflow.data import Gaussians
from sbflow.integrator import euler_maruyama, simulate, time_grid
from sbflow.network import MLP
from sbflow.process import Brownian

DIM, EPSILON, NUM_STEPS = 50, 1.0, 20
WAYS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "online": dict,
    "online_euler": lambda: {"method": "euler"},
    "online_6": lambda: {"num_steps": 6},
    "online_4": lambda: {"num_steps": 4},
    "online_2": lambda: {"num_steps": 2},
    "halves_2": lambda: {"coupling": Buffer(parts=2), "num_steps": 2},
    "halves_4": lambda: {"coupling": Buffer(parts=2), "num_steps": 4},
    "reuse_4": lambda: {"coupling": Buffer(reuse=4)},
    "reuse_8": lambda: {"coupling": Buffer(reuse=8)},
    "reuse_16": lambda: {"coupling": Buffer(reuse=16)},
    "halves_reuse_2": lambda: {"coupling": Buffer(reuse=2, parts=2)},
    "halves_reuse_4": lambda: {"coupling": Buffer(reuse=4, parts=2)},
    "iterative": lambda: {"coupling": Iterative(size=10, alternate_every=100)},
    "iterative_4": lambda: {"coupling": Iterative(size=10, alternate_every=100), "num_steps": 4},
    "reuse_8_short": lambda: {"coupling": Buffer(reuse=8), "num_steps": NUM_STEPS // 2},
    "ot": lambda: {"pretrain_coupling": MinibatchOT()},
    "ot_4": lambda: {"pretrain_coupling": MinibatchOT(), "num_steps": 4},
    "ot_reuse_8": lambda: {"pretrain_coupling": MinibatchOT(), "coupling": Buffer(reuse=8)},
    "sinkhorn_reuse_8": lambda: {"pretrain_coupling": MinibatchOT(method="sinkhorn"), "coupling": Buffer(reuse=8)},
}


class Probe(NamedTuple):
    """What was measured at one moment.

    Attributes:
        step: optimiser steps so far.
        seconds: of training so far.
        cross_error: relative error of the cross-covariance.
        variance_error: relative error of the mean generated variance, the worse of both directions.
    """

    step: int
    seconds: float
    cross_error: float
    variance_error: float


class Trace(Callback):
    """Measures every so many steps, with the clock stopped."""

    def __init__(self, data: Gaussians, every: int, until: float) -> None:
        self.exact = data.bridge(EPSILON)
        self.every = every
        self.until = until
        self.probes: list[Probe] = []
        self.seconds = 0.0
        self.start = 0.0

    def on_train_start(self, trainer: Trainer, module: SchrodingerBridgeFlow) -> None:
        """Start the clock."""
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, module: SchrodingerBridgeFlow, *_: object) -> None:
        """Stop the clock while measuring."""
        if trainer.global_step % self.every:
            return
        self.seconds += time.process_time() - self.start
        self.probes.append(Probe(trainer.global_step, self.seconds, *measure(module, self.exact.cross, 250)))
        trainer.should_stop = self.probes[-1].cross_error < self.until
        self.start = time.process_time()

    def seconds_to(self, error: float) -> float:
        """When the error first fell below, interpolated on a logarithmic scale."""
        for before, after in pairwise(self.probes):
            if after.cross_error < error <= before.cross_error:
                share = math.log(before.cross_error / error) / math.log(before.cross_error / after.cross_error)
                return before.seconds + share * (after.seconds - before.seconds)
        return math.inf


@torch.no_grad()
def measure(module: SchrodingerBridgeFlow, cross: Tensor, n: int) -> tuple[float, float]:
    """Errors of cross-covariance and variance, the worse of both directions; 4 n paths each."""
    # a source of its own: training goes on as if it had not been measured
    generator = torch.Generator().manual_seed(0)
    drift, found = module.ema.module.eval(), []
    for flag in (0, 1):
        x = torch.randn(n, DIM, generator=generator)
        x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / n), x.T, upper=False).T
        noise = torch.randn(NUM_STEPS, n, DIM, generator=generator)
        signs = list(product((1, -1), (1, -1)))
        start = torch.cat([a * x for a, _ in signs])
        rows = torch.full((len(start),), flag)
        kernel = euler_maruyama(
            lambda x, u, rows=rows: drift(x, u.to(x.dtype).reshape(1), rows), Brownian(EPSILON).diffusion
        )
        end = simulate(
            kernel, start, time_grid("uniform", NUM_STEPS), noise=torch.cat([b * noise for _, b in signs], 1)
        )
        made = start.T @ end / len(start)
        found.append(((made - cross).norm() / cross.norm(), (end.var(0).mean() - 1).abs()))
    return max(float(error) for error, _ in found), max(float(error) for _, error in found)


def train(way: str, pretrain_steps: int, seed: int, args: argparse.Namespace) -> tuple[SchrodingerBridgeFlow, Trace]:
    """Train in one way and look on."""
    seed_everything(seed, verbose=False)
    data = Gaussians(dim=DIM, mean0=0.0, mean1=0.0, num_samples=50_000, batch_size=args.batch_size, seed=seed)
    options = {"num_steps": NUM_STEPS, "finetune_steps": args.finetune_steps} | WAYS[way]()
    flow = SchrodingerBridgeFlow(
        MLP((DIM,), num_directions=2),
        Brownian(EPSILON),
        (DIM,),
        pretrain_steps=pretrain_steps,
        learning_rate=args.learning_rate,
        finetune_learning_rate=args.finetune_learning_rate,
        guard="off",
        **options,
    )
    trace = Trace(data, args.every, args.until)
    Trainer(
        accelerator="cpu",
        max_steps=flow.max_steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[trace],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(flow, data)
    return flow, trace


def floor(flow: SchrodingerBridgeFlow, way: str, batch_size: int, rate: float) -> float:
    """Seconds of the products alone: three passes for a step, one for a step of a rollout."""
    weights = sum(p.numel() for p in flow.drift.network.layers.parameters())
    first, second = min(flow.global_step, flow.pretrain_steps), max(0, flow.global_step - flow.pretrain_steps)
    period = getattr(flow.coupling, "refresh_every", 1) / getattr(flow.coupling, "size", 1)
    ends, parts = 1 if way == "iterative" else 2, getattr(flow.coupling, "parts", 1)
    rows = 3 * first * batch_size + ends * batch_size * second * (3 / parts + flow.num_steps / period)
    return 2 * weights * rows / rate


def draw(traces: dict[str, Trace]) -> None:
    """Error against time, the first seed of each way."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, trace in traces.items():
        axes.plot([p.seconds for p in trace.probes], [p.cross_error for p in trace.probes], label=name)
    axes.axhline(0.1, color="black", linewidth=0.8)
    axes.set(yscale="log", xlabel="processor seconds of training", ylabel="relative error of the cross-covariance")
    axes.legend(fontsize=7)
    figure.savefig(RESULTS / "time_to_quality.png", dpi=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pretrain-steps", type=int, nargs="+", default=[500])
    parser.add_argument("--finetune-steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=50, help="steps between two measurements")
    parser.add_argument("--until", type=float, default=0.0, help="end training below this error")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--finetune-learning-rate", type=float, default=1e-3)
    args = parser.parse_args()
    rate, rows, traces = matmul_rate(), [], {}
    for seed, pretrain, way in product(args.seeds, args.pretrain_steps, args.ways):
        flow, trace = train(way, pretrain, seed, args)
        cross, variance = measure(flow, trace.exact.cross, 2000)
        rows.append(
            {
                "way": way,
                "seed": seed,
                "batch_size": args.batch_size,
                "pretrain": pretrain,
                "finetune": args.finetune_steps,
                "rates": f"{args.learning_rate:g}, {args.finetune_learning_rate:g}",
                "steps": flow.global_step,
                "seconds": round(trace.seconds, 2),
                "seconds_to_10": round(trace.seconds_to(0.1), 2),
                "cross_error": round(cross, 4),
                "variance_error": round(variance, 4),
                "floor": round(floor(flow, way, args.batch_size, rate), 2),
            }
        )
        rows[-1]["gap"] = round(trace.seconds / rows[-1]["floor"], 2)
        traces.setdefault(f"{way}, {pretrain} steps of stage 1", trace)
        print(rows[-1], flush=True)
    print(write_rows("time_to_quality.csv", rows))
    draw(traces)


if __name__ == "__main__":
    main()
