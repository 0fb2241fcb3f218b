"""What a training step costs: stage 2 against stage 1, and stage 1 against the plain loop of torchcfm.

python benchmarks/step_cost.py --tasks gaussian_d50 glyphs --repeats 5

Every row is the median, in processor seconds, of ``--repeats`` runs of a whole Trainer loop, data loading, clipping,
Adam and average included; the ways take turns. Rollouts have the task's number of steps, or 5 where that stands behind
the way; ``halves`` take a step on each half of the pairs of a batch in turn. ``ratio`` is to the stage-1 step of the
same task. ``floor_ms`` is what the matrix products and convolutions of the step (by torch's own counter: K evaluations
of the rollouts, forward and backward of the regression) would take at the measured rate of a large product, and ``gap``
the step over it. Writes ``step_cost.csv`` and ``step_cost.png``. The loop of torchcfm has the same network and as many
rows per step; ``torchcfm_in_trainer`` is its step with clipping in a plain LightningModule. ``--compile`` adds steps
whose network is compiled by torch, which takes a minute and needs a compiler.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from matplotlib.figure import Figure
from measured import RESULTS, write_rows
from seconds import matmul_rate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.coupling import Buffer, MinibatchOT, Online
from sbflow.data import Gaussians, Glyphs
from sbflow.network import MLP, UNet
from sbflow.process import Brownian


class Task(NamedTuple):
    """A data set with its network.

    Attributes:
        data: both ends.
        network: makes the backbone.
        num_steps: of the rollouts.
        steps: of each stage, a multiple of every reuse below.
    """

    data: Callable[[], LightningDataModule]
    network: Callable[[], nn.Module]
    num_steps: int
    steps: int


TASKS = {
    "gaussian_d50": Task(
        lambda: Gaussians(dim=50, num_samples=20_000), lambda: MLP((50,), num_directions=2), num_steps=20, steps=80
    ),
    "glyphs": Task(
        lambda: Glyphs(batch_size=64, num_train=1000, num_test=100),
        lambda: UNet((1, 16, 16), width=16, num_directions=2),
        num_steps=10,
        steps=16,
    ),
}
WAYS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "online": lambda: {"coupling": Online()},
    "online_5": lambda: {"coupling": Online(), "num_steps": 5},
    "halves_5": lambda: {"coupling": Buffer(parts=2), "num_steps": 5},
    "reuse_4": lambda: {"coupling": Buffer(reuse=4)},
    "reuse_8": lambda: {"coupling": Buffer(reuse=8)},
    "reuse_16": lambda: {"coupling": Buffer(reuse=16)},
    "halves_reuse_2": lambda: {"coupling": Buffer(reuse=2, parts=2)},
    "halves_reuse_4": lambda: {"coupling": Buffer(reuse=4, parts=2)},
}

COMPILED = ("online", "halves_reuse_4")


class Clock(Callback):
    """Processor seconds of a step, by stage, from the end of the warm-up on."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.marks: dict[str, list[float]] = {}

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        """Mark the start; what lies between two starts is a step and the loading of its batch."""
        self.marks.setdefault(module.stage, []).append(time.process_time())

    def per_step(self, stage: str) -> float:
        """Seconds of a step."""
        marks = self.marks[stage][self.warmup :]
        return (marks[-1] - marks[0]) / (len(marks) - 1)


def bridge(task: Task, warmup: int, **options: object) -> Clock:
    """Train a few steps of both stages, and one more that only ends the last one."""
    seed_everything(0, verbose=False)
    data = task.data()
    flow = SchrodingerBridgeFlow(
        task.network(),
        Brownian(1.0),
        data.event_shape,
        pretrain_steps=warmup + task.steps + 1,
        finetune_steps=warmup + task.steps + 1,
        guard="off",
        **{"num_steps": task.num_steps} | options,
    )
    return timed(flow, data, flow.max_steps, warmup)


def timed(module: LightningModule, data: LightningDataModule, steps: int, warmup: int) -> Clock:
    """Train without anything that is not the step."""
    clock = Clock(warmup)
    Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)
    return clock


class Matching(LightningModule):
    """What torchcfm's examples write out, without a loop: the Trainer makes it."""

    stage = "pretrain"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.matcher = network, matcher("independent")

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean squared error of the velocity."""
        t, x, velocity = self.matcher.sample_location_and_conditional_flow(batch["x0"], batch["x1"])
        return ((self.network(x, t, torch.zeros(len(x), dtype=torch.long)) - velocity) ** 2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As the loop has it."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def matcher(coupling: str) -> Any:
    """Of torchcfm."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher, SchrodingerBridgeConditionalFlowMatcher

    kind = ConditionalFlowMatcher if coupling == "independent" else SchrodingerBridgeConditionalFlowMatcher
    return kind(sigma=1.0)


def torchcfm(task: Task, warmup: int, *, coupling: str) -> float:
    """Seconds of a step of the loop that torchcfm's examples write out."""
    flow_matcher = matcher(coupling)
    data, network = task.data(), task.network()
    split, rows = data.split("train"), data.batch_size
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    direction = torch.zeros(rows, dtype=torch.long)

    def step() -> None:
        x0, x1 = (x[torch.randint(len(x), (rows,))] for x in (split.x0, split.x1))
        t, x, velocity = flow_matcher.sample_location_and_conditional_flow(x0, x1)
        loss = ((network(x, t, direction) - velocity) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(warmup):
        step()
    start = time.process_time()
    for _ in range(task.steps):
        step()
    return (time.process_time() - start) / task.steps


def operations(task: Task, rows: int) -> tuple[int, int]:
    """Of one evaluation of the network without gradient, and of one with the backward pass."""
    data, network = task.data(), task.network()
    x, t = torch.randn(rows, *data.event_shape), torch.rand(rows)
    direction = torch.zeros(rows, dtype=torch.long)
    counts = []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            out = network(x, t, direction)
            if backward:
                out.sum().backward()
        counts.append(counter.get_total_flops())
    return counts[0], counts[1]


def floors(task: Task) -> dict[str, float]:
    """Seconds of each way's products at the measured rate."""
    data = task.data()
    rate = matmul_rate()
    _, regression = operations(task, data.batch_size)
    # both ends of the data are rolled out, and regressed on
    rollout, finetuning = operations(task, 2 * data.batch_size)
    found = {"stage_1": regression, "minibatch_ot": regression}
    found |= {f"torchcfm_{name}": regression for name in ("independent", "minibatch_ot", "in_trainer")}
    for name, make in WAYS.items():
        options = make()
        coupling, num_steps = options["coupling"], options.get("num_steps", task.num_steps)
        period, parts = getattr(coupling, "refresh_every", 1), getattr(coupling, "parts", 1)
        found[name] = finetuning / parts + num_steps * rollout / period
    found |= {f"{name}_compiled": found[name] for name in ("stage_1", *COMPILED)}
    return {name: count / rate for name, count in found.items()}


def measure(task: Task, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step of every way and turn."""
    found: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(seconds)

    for _ in range(arguments.repeats):
        for name in arguments.ways:
            clock = bridge(task, arguments.warmup, **WAYS[name]())
            note(name, clock.per_step("finetune"))
            note("stage_1", clock.per_step("pretrain"))
        clock = bridge(task, arguments.warmup, pretrain_coupling=MinibatchOT(), **WAYS["reuse_16"]())
        note("minibatch_ot", clock.per_step("pretrain"))
        clock = timed(Matching(task.network()), task.data(), arguments.warmup + task.steps + 1, arguments.warmup)
        note("torchcfm_in_trainer", clock.per_step("pretrain"))
        for coupling in ("independent", "minibatch_ot"):
            note(f"torchcfm_{coupling}", torchcfm(task, arguments.warmup, coupling=coupling))
        if arguments.compile:
            for name in COMPILED:
                clock = bridge(task, arguments.warmup, compile=True, **WAYS[name]())
                note("stage_1_compiled", clock.per_step("pretrain"))
                note(f"{name}_compiled", clock.per_step("finetune"))
    return found


def table(name: str, arguments: argparse.Namespace) -> list[dict]:
    """Rows of one task."""
    task = TASKS[name]
    floor = floors(task)
    seconds = {way: median(times) for way, times in measure(task, arguments).items()}
    return [
        {
            "task": name,
            "way": way,
            "repeats": arguments.repeats,
            "step_ms": round(1e3 * value, 3),
            "ratio": round(value / seconds["stage_1"], 3),
            "floor_ms": round(1e3 * floor[way], 3),
            "gap": round(value / floor[way], 2),
        }
        for way, value in seconds.items()
    ]


def draw(rows: list[dict]) -> None:
    """Steps over the stage-1 step, one panel per task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(5.5 * len(tasks), 3.6), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        shown = [row for row in rows if row["task"] == task]
        axes.barh([row["way"] for row in shown], [row["ratio"] for row in shown])
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(title=f"{task}: step over stage-1 step")
    figure.savefig(RESULTS / "step_cost.png", dpi=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--steps", type=int, help="timed steps of each stage; by default those of the task")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    if arguments.steps:
        for name in arguments.tasks:
            TASKS[name] = TASKS[name]._replace(steps=arguments.steps)
    rows = [row for name in arguments.tasks for row in table(name, arguments)]
    for row in rows:
        print(row, flush=True)
    print(write_rows("step_cost.csv", rows))
    draw(rows)


if __name__ == "__main__":
    main()
