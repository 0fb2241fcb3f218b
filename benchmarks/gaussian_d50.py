"""Schrödinger bridge between two Gaussians: what is learned against the closed form, for four ways of training.

python benchmarks/gaussian_d50.py --dim 50 --form scalar --methods online iterative matching minibatch_ot

One row for each method: cross-covariance, generated variances and the Kullback–Leibler divergence of the joint Gaussian
from the exact one, in both directions, on ``--test`` samples; the floors that so many exact samples would show stand in
the columns that end in ``_floor``. With ``--equal seconds`` every method trains as long as online does.
"""

import argparse
import time

import torch
from measured import write_rows
from torch import Tensor

import sbflow
from sbflow.coupling import Buffer, Iterative, MinibatchOT
from sbflow.data import Gaussians
from sbflow.network import MLP
from sbflow.process import GaussianBridge


def methods(pretrain_steps: int, finetune_steps: int, period: int) -> dict[str, dict]:
    """Options of each method, all with the same number of gradient steps."""
    both = {"pretrain_steps": pretrain_steps, "finetune_steps": finetune_steps}
    one = {"pretrain_steps": pretrain_steps + finetune_steps, "finetune_steps": 0}
    iterative = Iterative(size=max(period // 10, 1), alternate_every=period)
    return {
        "online": both,
        "reuse": both | {"coupling": Buffer(reuse=4)},
        "halves": both | {"coupling": Buffer(reuse=4, parts=2)},
        # as many pairs as online, each used once, with half of the rows in each of twice the steps
        "halves_once": both | {"finetune_steps": 2 * finetune_steps, "coupling": Buffer(parts=2)},
        "iterative": both | {"coupling": iterative},
        "matching": one,
        "minibatch_ot": one | {"pretrain_coupling": MinibatchOT()},
        "sinkhorn": one | {"pretrain_coupling": MinibatchOT(method="sinkhorn")},
    }


def measure(flow: sbflow.SchrodingerBridgeFlow, data: Gaussians, bridge: GaussianBridge, num_steps: int) -> dict:
    """Errors of the joint law of sources and translations, in both directions."""
    test = data.split("test")
    row = {}
    for direction, x, exact in (("forward", test.x0, bridge), ("backward", test.x1, bridge.reversed())):
        y = torch.cat(
            [flow.translate(rows, direction, num_steps=num_steps, seed=i) for i, rows in enumerate(x.split(20_000))]
        )
        row |= {f"{name}_{direction}": value for name, value in errors(x, y, exact).items()}
    dim, n = test.x0.shape[1], len(test.x0)
    noise = (bridge.cross.norm() ** 2 + bridge.cov0.trace() * bridge.cov1.trace()).sqrt() / n**0.5
    row["cross_floor"] = float(noise / bridge.cross.norm())
    row["kl_floor"] = 2 * dim * (2 * dim + 3) / (4 * n)
    return row


def errors(x: Tensor, y: Tensor, exact: GaussianBridge) -> dict[str, float]:
    """Moments of (x, y) against N([m0, m1], [[S0, C], [Cᵀ, S1]])."""
    dim = x.shape[1]
    joint = torch.cat([x, y], 1).double()
    found = joint.T.cov()
    truth = torch.cat([torch.cat([exact.cov0, exact.cross], 1), torch.cat([exact.cross.T, exact.cov1], 1)])
    shift = joint.mean(0) - torch.cat([exact.mean0, exact.mean1])
    ratio = torch.linalg.solve(truth, found)
    kl = 0.5 * (ratio.trace() - 2 * dim - ratio.logdet() + shift @ torch.linalg.solve(truth, shift))
    cross, variance = found[:dim, dim:], found.diagonal()[dim:] / exact.cov1.diagonal()
    return {
        "cross_diagonal_error": float(cross.diagonal().mean() / exact.cross.diagonal().mean() - 1),
        "cross_error": float((cross - exact.cross).norm() / exact.cross.norm()),
        "variance_error": float(variance.mean() - 1),
        "variance_worst": float((variance - 1).abs().max()),
        "kl": float(kl),
    }


def train(data: Gaussians, args: argparse.Namespace, options: dict, seed: int) -> sbflow.SchrodingerBridgeFlow:
    """Fit one flow to the training split."""
    split = data.split("train")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MLP((args.dim,), hidden=args.hidden, num_directions=2)
    return sbflow.fit_bridge(
        split.x0,
        split.x1,
        epsilon=args.epsilon,
        network=network,
        batch_size=args.batch_size,
        seed=seed,
        num_steps=args.num_steps,
        learning_rate=args.learning_rate,
        finetune_learning_rate=args.finetune_learning_rate,
        ema_decay=args.ema_decay,
        parametrisation=args.parametrisation,
        method=args.method,
        **options,
    )


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--form", choices=("scalar", "full"), default="scalar")
    parser.add_argument("--std1", type=float, default=1.0)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--methods", nargs="+", default=["online", "reuse", "iterative", "matching", "minibatch_ot"])
    parser.add_argument("--equal", choices=("steps", "seconds"), default="steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pretrain-steps", type=int, default=1000)
    parser.add_argument("--finetune-steps", type=int, default=2000)
    parser.add_argument("--period", type=int, default=1000)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--test-steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--finetune-learning-rate", type=float, default=1e-3)
    parser.add_argument("--ema-decay", type=float, default=0.999)
    parser.add_argument("--parametrisation", default="drift")
    parser.add_argument("--method", choices=("adams", "euler"), default="adams", help="of rollouts and translations")
    parser.add_argument("--train", type=int, default=200_000)
    parser.add_argument("--test", type=int, default=200_000)
    parser.add_argument("--output", default="gaussian_d50.csv")
    args = parser.parse_args()

    covariance = "random" if args.form == "full" else None
    data = Gaussians(dim=args.dim, std1=args.std1, cov0=covariance, cov1=covariance, num_samples=args.train)
    if args.test != args.train:
        test = Gaussians(dim=args.dim, std1=args.std1, cov0=covariance, cov1=covariance, num_samples=args.test)
    else:
        test = data
    bridge, rows, budget = data.bridge(args.epsilon), [], None
    for seed in args.seeds:
        for name in args.methods:
            options = methods(args.pretrain_steps, args.finetune_steps, args.period)[name]
            if args.equal == "seconds" and budget is not None:
                options = stretched(data, args, name, seed, budget)
            start, cpu = time.perf_counter(), time.process_time()
            flow = train(data, args, options, seed)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            budget = cpu if name == "online" else budget
            row = {
                "form": args.form,
                "dim": args.dim,
                "method": name,
                "seed": seed,
                "equal": args.equal,
                "integrator": args.method,
                "num_steps": args.num_steps,
            }
            row |= {"pretrain": flow.pretrain_steps, "finetune": flow.finetune_steps}
            row |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
            row |= measure(flow, test, bridge, args.test_steps)
            print(
                {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
            rows.append(row)
    write_rows(args.output, rows)


def stretched(data: Gaussians, args: argparse.Namespace, name: str, seed: int, budget: float) -> dict:
    """The same method with as many steps as fit the budget of processor seconds, both stages in proportion.

    The difference of two short trials leaves out what every run costs once.
    """
    low, high = 0.02, 0.12
    short, long = (trial(data, args, name, seed, share) for share in (low, high))
    factor = low + (high - low) * (budget - short) / (long - short)
    options = methods(args.pretrain_steps, args.finetune_steps, args.period)[name]
    return options | {stage: int(options[stage] * factor) for stage in ("pretrain_steps", "finetune_steps")}


def trial(data: Gaussians, args: argparse.Namespace, name: str, seed: int, share: float) -> float:
    """Processor seconds of a run with this share of the steps, and of the period of iterative training."""
    counts = [max(1, round(share * count)) for count in (args.pretrain_steps, args.finetune_steps, args.period)]
    start = time.process_time()
    train(data, args, methods(*counts)[name], seed)
    return time.process_time() - start


if __name__ == "__main__":
    main()
