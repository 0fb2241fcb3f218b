"""Error of an estimated log normalising constant over independent replicates."""

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sbflow.metric.protocol import check_least

__all__ = ["Evaluation", "LogNormalizer", "Sampler"]


@runtime_checkable
class Evaluation(Protocol):
    """Replicates of one estimate."""

    @property
    def log_z_replicates(self) -> Float[Tensor, " replicates"]:
        """Independent estimates of log Z in nats, double precision."""

    @property
    def log_z_stderr_replicates(self) -> Float[Tensor, " replicates"]:
        """Standard error of each, from its own run."""

    @property
    def num_steps(self) -> int:
        """Steps of the sampler."""

    weight_variance: float
    predicted_variance: float


@runtime_checkable
class _Normalized(Protocol):
    log_normalizer: float | None


@runtime_checkable
class Sampler(Protocol):
    """A particle sampler with a trained and an untrained potential."""

    if TYPE_CHECKING:
        # a module keeps its submodules out of sight of the run-time check
        target: _Normalized

    def estimate(
        self, *, num_particles: int, num_steps: int | None, replicates: int, seed: int, trained: bool
    ) -> Evaluation:
        """Run the sampler once per replicate."""


class LogNormalizer:
    """Mean, spread and error of log Ẑ, with the trained potential and with the untrained one.

    Keys; those of the untrained potential end in ``_untrained``, and bias and rmse are there where the target knows its
    log Z:

    - ``test/log_z_mean``: mean over the replicates.
    - ``test/log_z_sd``: standard deviation of one replicate (n − 1 in the denominator).
    - ``test/log_z_bias``: mean minus log Z; its standard error is sd / √num_seeds.
    - ``test/log_z_rmse``: root of the mean squared error of one replicate.
    - ``test/weight_variance``: sum of the variances of the incremental log-weights, and
      ``test/weight_variance_predicted``, where the grid of times was chosen and promises one.
    - ``test/log_z_stderr``: standard error of one replicate by its own account, root mean square.

    The reference may have an error of its own, ``target.log_normalizer_stderr``. ``test/num_steps`` is the same for
    both and has no suffix.

    Args:
        num_particles: particles of each replicate.
        num_seeds: replicates, at least 2.
        num_steps: steps of the sampler; None for the module's own.
        seed: seed of the replicates, the same for both potentials.
    """

    def __init__(
        self, *, num_particles: int = 2000, num_seeds: int = 20, num_steps: int | None = None, seed: int = 0
    ) -> None:
        check_least(1, num_particles=num_particles)
        check_least(2, num_seeds=num_seeds)
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_steps must be at least 1 or null, got {num_steps}")
        self.num_particles = num_particles
        self.num_seeds = num_seeds
        self.num_steps = num_steps
        self.seed = seed

    def __call__(self, module: Sampler, data: object = None) -> dict[str, float]:
        """Run the replicates; ``data`` is there for the common signature of metrics and is not used."""
        return self._measure(module, trained=True, suffix="") | self._measure(
            module, trained=False, suffix="_untrained"
        )

    def _measure(self, module: Sampler, *, trained: bool, suffix: str) -> dict[str, float]:
        evaluation = module.estimate(
            num_particles=self.num_particles,
            num_steps=self.num_steps,
            replicates=self.num_seeds,
            seed=self.seed,
            trained=trained,
        )
        log_z = evaluation.log_z_replicates.double()
        stderr = evaluation.log_z_stderr_replicates.double()
        values = {"mean": log_z.mean(), "sd": log_z.std(), "stderr": stderr.square().mean().sqrt()}
        if module.target.log_normalizer is not None:
            error = log_z - module.target.log_normalizer
            values |= {"bias": error.mean(), "rmse": error.square().mean().sqrt()}
        metrics = {f"test/log_z_{name}{suffix}": value.item() for name, value in values.items()}
        spread = {"": evaluation.weight_variance, "_predicted": evaluation.predicted_variance}
        metrics |= {f"test/weight_variance{name}{suffix}": v for name, v in spread.items() if not math.isnan(v)}
        return metrics | {"test/num_steps": float(evaluation.num_steps)}
