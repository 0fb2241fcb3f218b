"""The mixture benchmark: error of the learned conditional plan against the known one, for dimensions and epsilons.

python benchmarks/mixture_bridge.py --dims 2 16 64 --epsilons 1 --seeds 3 [--scale 0.5] [--options NAME=VALUE ...]

One row for each dimension, epsilon and seed, from runs of the experiments ``sbf_mixture_dD``; ``cbw2_uvp`` includes the
floor that so few draws cost, which stands beside it. Published at epsilon = 1 for D = 2, 16, 64, 128: DSBM 0.3, 1.1,
9.7, 31; LightSB 0.05, 0.09, 0.24, 0.62. At 0.1: DSBM 5.2, 16.8, 37.3, 35.
"""

import argparse
from pathlib import Path

from measured import write_rows
from training_runs import final, train

BARS = {2: 1.0, 16: 2.0, 64: 10.0}
"""Largest cBW2-UVP in percent at epsilon = 1."""

STEPS = {"pretrain_steps": 3000, "finetune_steps": 4000}


def measure(args: argparse.Namespace, dim: int, epsilon: float, seed: int) -> dict:
    """One run and its numbers."""
    steps = [f"algorithm.{name}={max(1, round(args.scale * count))}" for name, count in STEPS.items()]
    folder = args.folder / f"d{dim}-epsilon{epsilon:g}-seed{seed}"
    problem = [f"experiment=sbf_mixture_d{dim}", f"data.epsilon={epsilon}", f"seed={seed}", f"data.seed={seed}"]
    metrics = final(train(folder, *problem, *(steps if args.scale != 1 else []), *args.options))
    return {"dim": dim, "epsilon": epsilon, "seed": seed, "scale": args.scale} | metrics


def verdict(row: dict) -> str:
    """The number beside its bar, where it has one."""
    text = f"D={row['dim']} epsilon={row['epsilon']:g} seed={row['seed']}: cBW2-UVP {row['cbw2_uvp']:.2f} %"
    bar = BARS.get(row["dim"]) if row["epsilon"] == 1 else None
    outcome = "" if bar is None else f", bar {bar}: {'held' if row['cbw2_uvp'] <= bar else 'MISSED'}"
    return f"{text} (floor {row['cbw2_uvp_floor']:.2f}){outcome}, {row.get('seconds', 0):.0f} s"


def main() -> None:
    """Parse, run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 16, 64], choices=[2, 16, 64, 128])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="multiple of the steps of both stages")
    parser.add_argument("--options", nargs="*", default=[], help="further options of sbflow train")
    parser.add_argument("--folder", type=Path, default=Path("runs/mixture_bridge"), help="where the runs are kept")
    parser.add_argument("--output", default="mixture_bridge.csv")
    args = parser.parse_args()
    for epsilon in args.epsilons:
        for dim in args.dims:
            for seed in range(args.seeds):
                row = measure(args, dim, epsilon, seed)
                print(verdict(row), flush=True)
                write_rows(args.output, [row])


if __name__ == "__main__":
    main()
