"""How often the 95 % interval of a single run covers log Z, over independent runs.

python benchmarks/calibration.py --runs 200 --particles 2000

One row of ``results/calibration.csv`` for each problem: a correlated Gaussian seen from a law that is too wide
(untrained and trained), the mixture of six in the plane (trained), and the logistic regression on sonar (untrained and
trained). ``bias`` and ``sd`` are those of log Ẑ, ``stderr`` the mean of what the runs say of themselves. Three minutes.
"""

import argparse
import time

import torch
from lightning import Callback, seed_everything
from measured import write_rows
from pdds_table import train

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.network import MLP
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import GaussianTarget, Mixture2D, Sonar, Target
from sbflow.whitening import FullRank, Standard, Whitening


def sampler(target: Target, whitening: Whitening, updates: int) -> ParticleDenoisingDiffusionSampler:
    """A sampler, trained for two refinements where there are updates."""
    seed_everything(0, verbose=False)
    network = MLP((target.dim,), hidden=(64, 64)) if updates else None
    options = {"refinements": 2, "updates_per_refinement": updates} if updates else {}
    module = ParticleDenoisingDiffusionSampler(target, whitening, OrnsteinUhlenbeck(), network, num_steps=16, **options)
    if updates:
        train(module, Callback())
    return module


def correlated() -> GaussianTarget:
    """Five dimensions with a mean and a covariance that are nobody's default."""
    root = torch.tril(torch.full((5, 5), 0.4)) + 0.6 * torch.eye(5)
    return GaussianTarget(torch.arange(5.0) / 4, root @ root.T)


PROBLEMS = {
    "gaussian, wide": lambda: sampler(correlated(), Standard(2.0), 0),
    "gaussian, wide, trained": lambda: sampler(correlated(), Standard(2.0), 1000),
    "mixture_2d": lambda: sampler(Mixture2D(), Standard(2.5), 2000),
    "sonar": lambda: sampler(Sonar(), FullRank(), 0),
    "sonar, trained": lambda: sampler(Sonar(), FullRank(), 1500),
}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--sweep", type=int, default=20, help="runs side by side")
    parser.add_argument("--particles", type=int, default=2000)
    args = parser.parse_args()
    for name in args.problems:
        start, module = time.perf_counter(), PROBLEMS[name]()
        parts = [
            module.estimate(num_particles=args.particles, replicates=args.sweep, seed=seed)
            for seed in range(args.runs // args.sweep)
        ]
        log_z = torch.cat([part.log_z_replicates for part in parts])
        stderr = torch.cat([part.log_z_stderr_replicates for part in parts])
        error = log_z - module.target.log_normalizer
        row = {"problem": name, "runs": len(log_z), "particles": args.particles}
        row |= {"covered": float((error.abs() < 1.96 * stderr).double().mean()), "bias": float(error.mean())}
        row |= {"sd": float(error.std()), "stderr": float(stderr.mean())}
        row |= {"seconds": round(time.perf_counter() - start, 1)}
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
        write_rows("calibration.csv", [row])


if __name__ == "__main__":
    main()
