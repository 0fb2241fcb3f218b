"""What the steps of a simulated bridge cost: the joint law of both ends against the exact one, by method and grid.

python benchmarks/discretisation.py --dim 50 --steps 10 20 30 100

The drift is the exact one of the bridge between two Gaussians with random full covariances, so nothing is learned or
sampled: with a linear drift both methods keep the law Gaussian, and its covariance is carried along by matrices. One
row of ``results/discretisation.csv`` for each method, spacing, number of steps and direction. Takes seconds.
"""

import argparse
from itertools import pairwise, product

import torch
from measured import write_rows
from torch import Tensor

from sbflow.data import Gaussians
from sbflow.integrator import time_grid
from sbflow.process import GaussianBridge


def joint_covariance(bridge: GaussianBridge, times: Tensor, method: str) -> Tensor:
    """Covariance of (X_0, X_1) as simulated along a grid, ``[2 d, 2 d]``.

    What is carried along is the covariance of (X_t, the drift of the step before, X_0).
    """
    dim = len(bridge.mean0)
    now, before, start = (slice(k * dim, (k + 1) * dim) for k in range(3))
    one = torch.eye(dim, dtype=torch.float64)
    moments = torch.zeros(3 * dim, 3 * dim, dtype=torch.float64)
    for a, b in product((now, start), repeat=2):
        moments[a, b] = bridge.cov0
    previous = None
    for t, s in pairwise(times.tolist()):
        mean = bridge.marginal(t)[0]
        slope = (bridge.drift(mean + one, t) - bridge.drift(mean[None], t)).T
        step = s - t
        rho = step / (2 * previous) if method == "adams" and previous else 0.0
        move = torch.zeros_like(moments)
        move[now, now], move[now, before] = one + step * (1 + rho) * slope, -step * rho * one
        move[before, now], move[start, start] = slope, one
        moments = move @ moments @ move.T
        moments[now, now] += bridge.epsilon * step * one
        previous = step
    ends = torch.cat([torch.arange(3 * dim)[part] for part in (start, now)])
    return moments[ends][:, ends]


def divergence(found: Tensor, bridge: GaussianBridge) -> float:
    """Kullback–Leibler divergence of the simulated joint law from the exact one."""
    exact = torch.cat([torch.cat([bridge.cov0, bridge.cross], 1), torch.cat([bridge.cross.T, bridge.cov1], 1)])
    ratio = torch.linalg.solve(exact, found)
    return float(0.5 * (ratio.trace() - len(exact) - ratio.logdet()))


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 15, 20, 30, 100])
    args = parser.parse_args()
    forward = Gaussians(dim=args.dim, cov0="random", cov1="random", num_samples=2).bridge(args.epsilon)
    directions = {"forward": forward, "backward": forward.reversed()}
    rows = []
    for spacing, num_steps, direction in product(("uniform", "quadratic"), args.steps, directions):
        bridge, times = directions[direction], time_grid(spacing, num_steps).double()
        for method in ("euler", "adams"):
            row = {"dim": args.dim, "epsilon": args.epsilon, "direction": direction, "spacing": spacing}
            row |= {"num_steps": num_steps, "method": method}
            row["kl"] = round(divergence(joint_covariance(bridge, times, method), bridge), 6)
            print(", ".join(str(value) for value in row.values()), flush=True)
            rows.append(row)
    write_rows("discretisation.csv", rows)


if __name__ == "__main__":
    main()
