"""Error of log Z against time: this package, blackjax's adaptive tempered SMC, and tempering by particles.

python benchmarks/evidence_peers.py --targets sonar ionosphere lgcp --replicates 10

Each method estimates log Z of the same density ``--replicates`` times on one thread. ``seconds`` are of the processor
and of one run: for this package with fitting the whitening and the pilot run, as if every run made them anew; for
blackjax without compilation. ``inefficiency`` is the variance of log Ẑ times seconds, ``mse_inefficiency`` has the mean
squared error from the reference in place of the variance, which also counts the bias. blackjax moves by 5 Hamiltonian
moves of 10 steps, for each of a few step sizes: compare with the best. particles moves by adaptive random walks, with
and without long chains; on lgcp it cannot, as it is. Both start from the prior, as they do by default. ``floor`` is the
time of the matrix products of one evaluation of density and gradient for every particle at the measured rate. Writes
``evidence_peers.csv`` and draws all of its rows into ``evidence_peers.png``.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from measured import RESULTS, read_rows, write_rows
from scipy.special import log_expit
from seconds import matmul_rate, processor_seconds

from sbflow.algorithm import AnnealedSMC, ParticleDenoisingDiffusionSampler
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import LGCP, Ionosphere, Sonar, Target
from sbflow.whitening import Laplace, Whitening


class Problem(NamedTuple):
    """A posterior whose prior is N(0, I) after an affine change, so that each peer can take it as it is.

    Attributes:
        target: the density.
        whitening: of this package.
        num_steps: of the particle denoising sampler.
        step_sizes: of blackjax, to choose from.
        smc_particles: of annealed SMC by this package, None for those asked for.
        peer_particles: particles of the peers.
        peer_replicates: at most so many runs of the peers.
    """

    target: type[Target]
    whitening: type[Whitening]
    num_steps: int
    step_sizes: tuple[float, ...]
    smc_particles: int | None
    peer_particles: int
    peer_replicates: int


PROBLEMS = {
    "sonar": Problem(Sonar, Laplace, 16, (0.05, 0.1, 0.2, 0.4), None, 1000, 10),
    "ionosphere": Problem(Ionosphere, Laplace, 16, (0.05, 0.1, 0.2, 0.4), None, 1000, 10),
    # so that a run takes about a minute by either
    "lgcp": Problem(LGCP, Laplace, 8, (0.1, 0.2, 0.4), 1000, 600, 10),
}
Loglik = Callable[[Any], Any]


class Runs(NamedTuple):
    """log Ẑ of every run, seconds of one, and its particles."""

    log_z: np.ndarray
    seconds: float
    particles: int


def log_likelihood(target: Target, xp: Any) -> Loglik:
    """Of points z ``[n, d]`` with the prior N(0, I), for the array library xp, which is NumPy or JAX's."""
    if isinstance(target, LGCP):
        covariance = np.linalg.inv(target.precision.double().numpy())
        factor = xp.asarray(np.linalg.cholesky(covariance).T, dtype=xp.float32)
        counts, area = xp.asarray(target.counts.numpy()), 1 / target.dim

        def cox(z: Any) -> Any:
            f = target.mean + z @ factor
            return (counts * f - area * xp.exp(f)).sum(-1)

        return cox
    features = xp.asarray(target.signed_features.numpy().T)
    if xp is np:
        return lambda z: log_expit(z @ features).sum(-1)
    from jax.nn import log_sigmoid

    return lambda z: log_sigmoid(z @ features).sum(-1)


def ours(problem: Problem, method: str, particles: int, replicates: int) -> Runs:
    """Whitening, pilot runs and the replicates one by one."""
    target = problem.target()
    if method == "pdds":
        module = ParticleDenoisingDiffusionSampler(
            target, problem.whitening(), OrnsteinUhlenbeck(), num_steps=problem.num_steps
        )
    else:
        module = AnnealedSMC(target, problem.whitening(), num_particles=particles)

    def prepare() -> None:
        torch.manual_seed(0)
        module.whiten()
        module.prepare(None, trained=False)

    once, log_z = processor_seconds(prepare), []

    def estimate() -> None:
        evidence = module.estimate(num_particles=particles, seed=1 + len(log_z), trained=False)
        log_z.append(float(evidence.log_z))

    seconds = once + processor_seconds(estimate, replicates)
    return Runs(np.array(log_z), seconds, particles)


def blackjax(problem: Problem, step_size: float, replicates: int) -> Runs:
    """Adaptive tempered SMC with Hamiltonian moves; half of the particles effective at each temperature."""
    import jax
    import jax.numpy as jnp
    from blackjax import adaptive_tempered_smc, hmc
    from blackjax.smc import extend_params
    from blackjax.smc.resampling import systematic

    target = problem.target()
    dim = target.dim
    sampler = adaptive_tempered_smc(
        lambda z: -0.5 * (z**2).sum() - 0.5 * dim * math.log(2 * math.pi),
        log_likelihood(target, jnp),
        hmc.build_kernel(),
        hmc.init,
        extend_params({"step_size": step_size, "inverse_mass_matrix": jnp.ones(dim), "num_integration_steps": 10}),
        systematic,
        0.5,
        num_mcmc_steps=5,
    )

    @jax.jit
    def run(key: Any) -> Any:
        def step(carry: Any) -> Any:
            key, state, log_z = carry
            key, one = jax.random.split(key)
            state, info = sampler.step(one, state)
            return key, state, log_z + info.log_likelihood_increment

        key, first = jax.random.split(key)
        start = sampler.init(jax.random.normal(first, (problem.peer_particles, dim)))
        return jax.lax.while_loop(lambda carry: carry[1].tempering_param < 1, step, (key, start, 0.0))[2]

    run(jax.random.key(10_000)).block_until_ready()
    log_z: list[float] = []
    seconds = processor_seconds(lambda: log_z.append(float(run(jax.random.key(len(log_z))))), replicates)
    return Runs(np.array(log_z), seconds, problem.peer_particles)


def particles(problem: Problem, len_chain: int, replicates: int) -> Runs:
    """Adaptive tempering without waste, by random walks whose covariance is that of the particles."""
    from particles import SMC, distributions, smc_samplers

    # the release of particles that lives with NumPy 2 uses a name that NumPy has dropped
    vars(np).setdefault("float", float)
    target = problem.target()
    likelihood = log_likelihood(target, np)

    class Posterior(smc_samplers.StaticModel):
        def loglik(self, theta: np.ndarray, t: int | None = None) -> np.ndarray:
            return likelihood(theta["z"]).astype(float)

    prior = distributions.StructDist({"z": distributions.MvNormal(cov=np.eye(target.dim))})
    log_z: list[float] = []

    def run() -> None:
        np.random.seed(len(log_z))  # noqa: NPY002  the library has no other source
        tempering = smc_samplers.AdaptiveTempering(Posterior(prior=prior), wastefree=True, len_chain=len_chain)
        sampler = SMC(fk=tempering, N=max(2 * problem.peer_particles // 10, 1))
        sampler.run()
        log_z.append(float(sampler.logLt))

    seconds = processor_seconds(run, replicates)
    return Runs(np.array(log_z), seconds, len_chain * (2 * problem.peer_particles // 10))


def methods(name: str, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Runs]]]:
    """The ways to estimate the log Z of one density."""
    problem = PROBLEMS[name]
    peer = min(args.replicates, problem.peer_replicates)
    # log Ẑ is skewed: its variance takes many runs, which cost little here
    own = 20 * args.replicates if name != "lgcp" else 2 * args.replicates
    yield "pdds", partial(ours, problem, "pdds", args.particles, own)
    own = 4 * args.replicates if name != "lgcp" else args.replicates
    yield "annealed_smc", partial(ours, problem, "smc", problem.smc_particles or args.particles, own)
    for step_size in problem.step_sizes:
        yield f"blackjax_{step_size}", partial(blackjax, problem, step_size, peer)
    # its random walks want a covariance of full rank: in 1600 dimensions that of 400 or 4000 particles is not
    for len_chain in (10, 100) if name != "lgcp" else ():
        yield f"particles_{len_chain}", partial(particles, problem, len_chain, peer)


def row_of(name: str, method: str, runs: Runs, rate: float) -> dict:
    """One line of the table."""
    target = PROBLEMS[name].target()
    matrix = target.precision if isinstance(target, LGCP) else torch.cat([target.signed_features] * 2)
    floor = 2 * matrix.numel() * runs.particles / rate
    error = runs.log_z - target.log_normalizer
    variance, mse = float(runs.log_z.var(ddof=1)), float((error**2).mean())
    return {
        "target": name,
        "method": method,
        "particles": runs.particles,
        "replicates": len(runs.log_z),
        "seconds": round(runs.seconds, 4),
        "bias": float(f"{error.mean():.4g}"),
        "sd": float(f"{variance**0.5:.4g}"),
        "inefficiency": float(f"{variance * runs.seconds:.4g}"),
        "mse_inefficiency": float(f"{mse * runs.seconds:.4g}"),
        "floor": round(floor, 5),
        "gap": round(runs.seconds / floor, 1),
    }


def draw(rows: list[dict]) -> None:
    """Inefficiency of every method, one panel per target."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    figure = Figure(figsize=(4.5 * len(targets), 3.4), layout="constrained")
    for axes, target in zip(figure.subplots(1, len(targets), squeeze=False)[0], targets, strict=True):
        shown = [row for row in rows if row["target"] == target]
        place = np.arange(len(shown))
        axes.barh(place - 0.2, [float(row["inefficiency"]) for row in shown], 0.4, label="variance × seconds")
        axes.barh(place + 0.2, [float(row["mse_inefficiency"]) for row in shown], 0.4, label="squared error × seconds")
        axes.set(title=target, xscale="log", yticks=place)
        axes.set_yticklabels([row["method"] for row in shown])
    axes.legend(fontsize=7)
    figure.savefig(RESULTS / "evidence_peers.png", dpi=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", help="only those whose names begin so")
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--particles", type=int, default=2000, help="of this package")
    args = parser.parse_args()
    rate, rows = matmul_rate(), []
    for name in args.targets:
        for method, call in methods(name, args):
            if args.methods and not method.startswith(tuple(args.methods)):
                continue
            rows.append(row_of(name, method, call(), rate))
            write_rows("evidence_peers.csv", rows[-1:])
            print(rows[-1], flush=True)
    draw(read_rows("evidence_peers.csv"))


if __name__ == "__main__":
    main()
