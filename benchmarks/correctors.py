"""Evidence of tempered densities and of products by samplers trained for the factors, against annealed SMC.

python benchmarks/correctors.py --cases sonar product --replicates 10 --particles 2000

``sonar`` trains one sampler of the sonar posterior and tempers it to the powers ½ and 2; ``product`` trains one sampler
for each of two mixtures in the plane, which share no mode, and multiplies them. One row of ``results/correctors.csv``
for each: log Z by `sbflow.combine` with the trained and with the naive potentials, log Z by
annealed SMC on the combined density itself, the difference in standard errors, and log Z in closed form where there is
one. ``pilot_ess`` is the share of particles that count in a short run without resampling.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from lightning import seed_everything
from measured import write_rows
from pdds_table import PROBLEMS, Problem, sampler, train
from torch.distributions import MultivariateNormal

from sbflow import estimate_log_z
from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.algorithm.combination import combine
from sbflow.callback import Progress
from sbflow.smc import Evidence
from sbflow.target import GaussianMixture, Mixture2D
from sbflow.target.geometric import GeometricTarget
from sbflow.whitening import Standard

TABLE = "correctors.csv"
OTHER = (
    [[1.5, 1.0], [-1.0, -0.5], [0.5, -2.0]],
    [[[1.2, -0.5], [-0.5, 0.6]], [[0.8, 0.4], [0.4, 1.0]], [[0.5, 0.0], [0.0, 0.9]]],
    [0.5, 0.3, 0.2],
)


def main() -> None:
    """Measure and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--updates", type=int, help="optimiser steps of a refinement; by default those of the target")
    arguments = parser.parse_args()
    for case in arguments.cases:
        for row in CASES[case](arguments):
            write_rows(TABLE, [row])
            print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})


def sonar(arguments: argparse.Namespace) -> Iterator[dict]:
    """The tempered posterior of the sonar data."""
    module = trained(PROBLEMS["sonar"], arguments.updates)
    for exponent in (0.5, 2.0):
        yield {"case": "sonar", "exponents": exponent} | compare([module], [exponent], "laplace", math.nan, arguments)


def product(arguments: argparse.Namespace) -> Iterator[dict]:
    """The product of two mixtures."""
    rule = Standard(2.5)
    one, other = Mixture2D(), GaussianMixture(*OTHER)
    options = {"refinements": 1, "updates_per_refinement": 2000}
    modules = [
        trained(Problem(lambda target=target: target, 16, rule, options), arguments.updates) for target in (one, other)
    ]
    exact = log_overlap(one, other)
    yield {"case": "product", "exponents": "1 1"} | compare(modules, [1.0, 1.0], rule, exact, arguments)


CASES = {"sonar": sonar, "product": product}


def trained(problem: Problem, updates: int | None) -> ParticleDenoisingDiffusionSampler:
    """A sampler after training."""
    seed_everything(0, verbose=False)
    module = sampler(problem, problem.best, updates)
    train(module, Progress())
    return module.eval()


def compare(
    modules: Sequence[ParticleDenoisingDiffusionSampler],
    exponents: Sequence[float],
    whitening: str | Standard,
    exact: float,
    arguments: argparse.Namespace,
) -> dict:
    """One row."""
    combined = combine(modules, exponents)
    runs = {
        name: timed(lambda name=name: combined.estimate(trained=name == "trained", **settings(arguments)))
        for name in ("trained", "naive")
    }
    density = GeometricTarget([module.target.target for module in modules], exponents)
    runs["smc"] = timed(lambda: estimate_log_z(density, method="smc", whitening=whitening, **settings(arguments)))
    row = {"particles": arguments.particles, "replicates": arguments.replicates, "exact": exact}
    for name, (evidence, seconds) in runs.items():
        row |= {
            f"{name}_log_z": evidence.log_z,
            f"{name}_stderr": evidence.log_z_stderr,
            f"{name}_pilot_ess": evidence.quality.get("pilot_ess", math.nan),
            f"{name}_evaluations": evidence.cost.density,
            f"{name}_seconds": seconds,
        }
    difference = row["trained_log_z"] - row["smc_log_z"]
    return row | {"standard_errors": difference / math.hypot(row["trained_stderr"], row["smc_stderr"])}


def settings(arguments: argparse.Namespace) -> dict[str, int]:
    """Size of every estimate."""
    return {"num_particles": arguments.particles, "replicates": arguments.replicates, "seed": 1000}


def timed(run: Callable[[], Evidence]) -> tuple[Evidence, float]:
    """A run and its seconds, preparations included."""
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def log_overlap(one: GaussianMixture, other: GaussianMixture) -> float:
    """Log ∫ of the product of two mixtures, Σ_kl w_k w_l N(m_k; m_l, S_k + S_l)."""
    covariances = one.covariances.double()[:, None] + other.covariances.double()
    gaps = one.means.double()[:, None] - other.means.double()
    log_weights = (one.weights.double()[:, None] * other.weights.double()).log()
    return float(
        (log_weights + MultivariateNormal(torch.zeros_like(gaps), covariances).log_prob(gaps)).logsumexp((0, 1))
    )


if __name__ == "__main__":
    main()
