"""Speculative sampling: sequential calls, rows, acceptance and seconds beside those of plain simulation.

python benchmarks/speculative.py [--run RUN] [--steps 30 100 300] [--windows 4 8 16] [--dims 2 50] [--samples 16]

Without ``--run`` on the Schrödinger bridge between standard Gaussians at epsilon = 1, whose drift costs nothing, so
that its seconds show what speculation itself costs; with it on the translation of a trained run folder. Calls and rows
are means over ``--samples`` trajectories, the seconds those of one sample alone, the least of ``--repeats``; plain
simulation is by Euler's steps. With
``--law N`` the first sample is sent N times in both ways: ``law_p`` is the least p-value of two-sample
Kolmogorov–Smirnov tests along the five directions of most variance and five random ones, times their number.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from measured import write_rows
from scipy.stats import ks_2samp
from torch import Tensor

from sbflow.command.build import build
from sbflow.command.run import load_run
from sbflow.integrator import SpeculationInfo, euler_maruyama, simulate, simulate_speculative
from sbflow.process import Brownian, gaussian_bridge, uniform_times
from sbflow.tensor import expand_to, seeded_generator


class Problem(NamedTuple):
    """Starting points, and the two ways to their ends."""

    name: str
    x: Tensor
    plain: Callable[[Tensor, int], Tensor]
    speculative: Callable[[Tensor, int, dict], tuple[Tensor, SpeculationInfo]]


def gaussian(dim: int, samples: int) -> Problem:
    """The bridge between N(0, I) and N(0, I) at epsilon = 1."""
    cross = gaussian_bridge(torch.eye(1), torch.eye(1), 1.0).item()

    def drift(x: Tensor, t: Tensor) -> Tensor:
        variance = (1 - t) ** 2 + t**2 + t * (1 - t) * (2 * cross + 1)
        return expand_to(((1 - t) * (cross - 1) + t * (1 - cross) - t) / variance, x) * x

    kernel = euler_maruyama(drift, Brownian(1.0).diffusion)
    x = torch.randn(samples, dim, dtype=torch.float64, generator=seeded_generator(0))
    return Problem(
        f"gaussian d={dim}",
        x,
        lambda x, steps: simulate(kernel, x, uniform_times(steps)),
        lambda x, steps, options: simulate_speculative(kernel, x, uniform_times(steps), **options),
    )


def trained(folder: str, samples: int) -> Problem:
    """The forward translation of a run folder, from its own test samples."""
    run = load_run(folder, needs="translate")
    x = build(run.config, "data").split("test").x0[:samples].float()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = run.algorithm.to(device)
    return Problem(
        run.folder.name,
        x.to(device),
        lambda x, steps: model.translate(x, num_steps=steps, seed=1, method="euler"),
        lambda x, steps, options: model.translate_speculatively(
            x, num_steps=steps, seed=list(range(len(x))), **options
        ),
    )


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The least time of some repetitions."""

    def once() -> float:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return min(once() for _ in range(repeats))


def law(problem: Problem, steps: int, options: dict, num: int) -> float:
    """Least p-value, times the number of tests, of the hypothesis that both ways draw from one law."""
    x = problem.x[:1].expand(num, *problem.x.shape[1:])
    plain = problem.plain(x, steps).flatten(1).double().cpu()
    speculative = problem.speculative(x, steps, options)[0].flatten(1).double().cpu()
    # of both together: the widest directions of one sample fit its own noise
    both = torch.cat([plain, speculative])
    widest = torch.linalg.svd(both - both.mean(0), full_matrices=False).Vh[:5]
    directions = torch.cat([widest, torch.randn(5, plain.shape[1], generator=seeded_generator(1), dtype=torch.float64)])
    tests = [ks_2samp(plain @ direction, speculative @ direction).pvalue for direction in directions]
    return min(1.0, len(tests) * min(tests))


def measure(problem: Problem, steps: int, repeats: int, num_law: int, options: dict) -> dict:
    """One row of the table."""
    _, info = problem.speculative(problem.x, steps, options)
    one = problem.x[:1]
    calls = info.sequential_calls.double().mean().item()
    return {
        "problem": problem.name,
        "steps": steps,
        "window": options["window"],
        "policy": options["policy"],
        "draft": options["draft"] or "frozen",
        "calls": round(calls, 2),
        "saved": round(1 - calls / steps, 3),
        "rows_per_step": round(info.rows_per_step, 2),
        "acceptance": round((info.accepted.sum() / info.tried.sum()).item(), 4),
        "seconds": round(seconds(lambda: problem.speculative(one, steps, options), repeats), 4),
        "plain_seconds": round(seconds(lambda: problem.plain(one, steps), repeats), 4),
        "law_samples": num_law,
        "law_p": round(law(problem, steps, options, num_law), 4) if num_law else "",
    }


def main() -> None:
    """Parse, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="run folder of a trained bridge")
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--windows", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--policies", nargs="+", default=["stale", "root"], choices=["stale", "root"])
    parser.add_argument("--drafts", nargs="+", default=["frozen", "secant"], choices=["frozen", "secant"])
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 50, 784], help="of the Gaussian bridge")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--law", type=int, default=0, help="samples of each way in the test of the law; 0 omits it")
    parser.add_argument("--output", default="speculative.csv")
    args = parser.parse_args()
    makers = [partial(trained, args.run)] if args.run else [partial(gaussian, dim) for dim in args.dims]
    for problem in (make(args.samples) for make in makers):
        for steps in args.steps:
            for window, policy, draft in product(args.windows, args.policies, args.drafts):
                options = {"window": window, "policy": policy, "draft": None if draft == "frozen" else draft}
                row = measure(problem, steps, args.repeats, args.law, options)
                print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
                write_rows(args.output, [row])


if __name__ == "__main__":
    main()
