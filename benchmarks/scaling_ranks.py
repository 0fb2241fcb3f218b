"""How much faster several processes train a U-Net than one, with as many threads each.

python benchmarks/scaling_ranks.py --processes 1 2 --repeats 5

Weak scaling on the glyphs: every process takes batches of the same size, so that p processes see p times the images of
a step; the ratio is images per second over those of one process. Both stages are timed: bridge matching (``pretrain``)
and online finetuning (``finetune``, rollouts of ``--num-steps``). The numbers of processes take turns, and medians are
written to ``results/scaling_ranks.csv`` together with the floor, the ratio were communication free, which is p.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median

import torch
from lightning import Callback, Trainer, seed_everything
from measured import write_rows

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.data import Glyphs
from sbflow.network import UNet
from sbflow.process import Brownian


class Clock(Callback):
    """Seconds of the steps from ``warmup`` to the end of each stage."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.seconds = {"pretrain": [], "finetune": []}

    def on_train_batch_start(self, trainer: Trainer, module: SchrodingerBridgeFlow, *_: object) -> None:
        """Start."""
        self.stage, self.start = module.stage, time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, module: SchrodingerBridgeFlow, *_: object) -> None:
        """Stop; the gradients were exchanged in between, so that no process runs ahead."""
        self.seconds[self.stage].append(time.perf_counter() - self.start)

    def per_step(self) -> dict[str, float]:
        """Mean seconds of a step by stage."""
        return {stage: sum(times[self.warmup :]) / len(times[self.warmup :]) for stage, times in self.seconds.items()}


def train(args: argparse.Namespace) -> None:
    """Train with ``args.run`` processes; the first one prints its seconds."""
    seed_everything(0, verbose=False)
    torch.set_num_threads(args.threads)
    data = Glyphs(batch_size=args.batch_size, num_train=1000, num_test=100)
    network = UNet(data.event_shape, width=args.width, num_directions=2)
    steps = args.warmup + args.steps
    flow = SchrodingerBridgeFlow(
        network,
        Brownian(0.5),
        data.event_shape,
        pretrain_steps=steps,
        finetune_steps=steps,
        num_steps=args.num_steps,
        guard="off",
    )
    clock = Clock(args.warmup)
    trainer = Trainer(
        accelerator="cpu",
        devices=args.run,
        strategy="ddp" if args.run > 1 else "auto",
        max_steps=flow.max_steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(flow, data)
    if trainer.is_global_zero:
        size = sum(parameter.numel() for parameter in flow.drift.parameters())
        print(json.dumps({"parameters": size, **clock.per_step()}), flush=True)


def measured(processes: int, options: list[str], threads: int) -> dict[str, float]:
    """Seconds per step, from a run in processes of its own."""
    command = [sys.executable, __file__, *options, "--run", str(processes)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--num-steps", type=int, default=20, help="of the rollouts")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each stage")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--run", type=int, help="train once with so many processes, and print the seconds")
    args = parser.parse_args()
    if args.run:
        train(args)
        return
    runs: dict[int, list[dict[str, float]]] = {p: [] for p in args.processes}
    for _ in range(args.repeats):
        for p in args.processes:
            runs[p].append(measured(p, sys.argv[1:], args.threads))
    rows = [row for stage in ("pretrain", "finetune") for row in table(stage, runs, args)]
    for row in rows:
        print(row)
    print(write_rows("scaling_ranks.csv", rows))


def table(stage: str, runs: dict[int, list[dict[str, float]]], args: argparse.Namespace) -> list[dict]:
    """Images per second for each number of processes, and over those of the first."""
    seconds = {p: median(run[stage] for run in found) for p, found in runs.items()}
    rate = {p: p * args.batch_size / value for p, value in seconds.items()}
    first = min(rate)
    return [
        {
            "stage": stage,
            "processes": p,
            "threads_each": args.threads,
            "batch_size": args.batch_size,
            "parameters": runs[p][0]["parameters"],
            "repeats": args.repeats,
            "seconds_per_step": round(seconds[p], 4),
            "images_per_second": round(rate[p], 2),
            "ratio": round(rate[p] / rate[first], 3),
            "floor": p / first,
        }
        for p in rate
    ]


if __name__ == "__main__":
    main()
