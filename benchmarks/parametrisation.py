"""What the network should predict: raw drift, scaled drift or preconditioned end point, one network or two.

python benchmarks/parametrisation.py --seeds 0 1 2

Gaussians of dimension 5 and 20 with deviations 1 and 2 of the far end, ε = 1; the joint Gaussian divergence from the
exact bridge, less its floor, and the generated variances, in both directions. ``--glyphs`` adds rendered digits and
letters: transport cost and energy distance of the translations.
"""

import argparse
import time
from itertools import product

import torch
from gaussian_d50 import measure
from measured import write_rows

import sbflow
from sbflow.algorithm.diagnostics import energy_distance
from sbflow.data import Gaussians, Glyphs
from sbflow.network import MLP, UNet

VARIANTS = {
    "drift": {},
    "scaled": {"parametrisation": "scaled"},
    "endpoint": {"parametrisation": "endpoint"},
    "drift, two networks": {"bidirectional": False},
}


def gaussian_row(dim: int, std1: float, variant: str, seed: int, args: argparse.Namespace) -> dict:
    """Train on one pair of Gaussians and compare with the closed form."""
    data = Gaussians(dim=dim, std1=std1, num_samples=args.samples)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MLP((dim,), num_directions=2)
    split, start = data.split("train"), time.process_time()
    flow = sbflow.fit_bridge(
        split.x0,
        split.x1,
        epsilon=1.0,
        network=network,
        seed=seed,
        pretrain_steps=args.pretrain_steps,
        finetune_steps=args.finetune_steps,
        num_steps=args.num_steps,
        **VARIANTS[variant],
    )
    seconds = time.process_time() - start
    found = measure(flow, data, data.bridge(1.0), 30)
    row = {
        "data": "gaussians",
        "dim": dim,
        "std1": std1,
        "variant": variant,
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
    }
    for way in ("forward", "backward"):
        row[f"kl_excess_{way}"] = round(found[f"kl_{way}"] - found["kl_floor"], 5)
        row[f"variance_error_{way}"] = round(found[f"variance_error_{way}"], 4)
    return row


def glyphs_row(variant: str, seed: int, args: argparse.Namespace) -> dict:
    """Train on rendered digits and letters."""
    data = Glyphs(num_train=5000, num_test=500)
    split, test, start = data.split("train"), data.split("test"), time.process_time()
    flow = sbflow.fit_bridge(
        split.x0,
        split.x1,
        epsilon=0.33,
        network=UNet(data.event_shape, width=16, num_directions=2),
        batch_size=64,
        seed=seed,
        pretrain_steps=args.pretrain_steps,
        finetune_steps=args.finetune_steps // 4,
        num_steps=10,
        last_noise=False,
        cutoff=0.01,
        learning_rate=2e-3,
        **VARIANTS[variant],
    )
    row = {"data": "glyphs", "variant": variant, "seed": seed, "cpu_seconds": round(time.process_time() - start, 1)}
    for way, x, y in (("forward", test.x0, test.x1), ("backward", test.x1, test.x0)):
        made = flow.translate(x, way, seed=0, batch_size=100)
        row[f"energy_distance_{way}"] = round(float(energy_distance(made, y)), 4)
        row[f"msd_{way}"] = round(float((made - x).square().mean()), 4)
    return row


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dims", type=int, nargs="*", default=[5, 20])
    parser.add_argument("--stds", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--pretrain-steps", type=int, default=1000)
    parser.add_argument("--finetune-steps", type=int, default=1000)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--glyphs", action="store_true")
    parser.add_argument("--output", default="parametrisation.csv")
    args = parser.parse_args()

    for variant, seed in product(args.variants, args.seeds):
        for dim, std1 in product(args.dims, args.stds):
            row = gaussian_row(dim, std1, variant, seed, args)
            print(row, flush=True)
            write_rows(args.output, [row])
        if args.glyphs:
            row = glyphs_row(variant, seed, args)
            print(row, flush=True)
            write_rows(args.output.replace(".csv", "_glyphs.csv"), [row])


if __name__ == "__main__":
    main()
