r"""Error of a learned bridge where the conditional plan is known, in percent of the unexplained variance.

.. math:: \mathrm{cBW}_2^2\text{-}\mathrm{UVP} = 100 E_{π_0} BW_2^2(\hatπ(·|x), π^*(·|x)) / (½ \mathrm{Var}(π_1)),
    \qquad \mathrm{BW}_2^2\text{-}\mathrm{UVP} = 100 BW_2^2(\hatπ_1, π_1) / (½ \mathrm{Var}(π_1))

with BW₂² the squared 2-Wasserstein distance of the Gaussians fitted to two laws (Gushchin et al. 2023).
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.metric.protocol import BridgeTranslator, TwoSided, check_least, check_translates, translate_all
from sbflow.metric.wasserstein import Gaussians, bures_wasserstein, fitted_gaussian
from sbflow.tensor import seeded_generator

__all__ = ["ConditionalPlan", "KnownPlan", "PlannedData"]

Conditional = Callable[[Tensor], Tensor]
"""(x0 ``[n, d]``) -> one draw of X1 for each ``[n, d]``."""


@runtime_checkable
class KnownPlan(Protocol):
    """A coupling whose conditional law is known."""

    def conditional_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[n, d]`` and covariance ``[n, d, d]`` of X1 given X0 = x."""

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One X1 for each X0 = x."""


@runtime_checkable
class PlannedData(TwoSided, Protocol):
    """Data with a known bridge for one reference process."""

    bridge: KnownPlan
    epsilon: float


class ConditionalPlan:
    """Compares the conditional plan and the marginals of a module with the known ones.

    - ``test/cbw2_uvp``: of the forward conditional plan, over ``num_inputs`` test samples, each translated
      ``num_per_input`` times.
    - ``test/cbw2_uvp_floor``: the same for exact draws of the plan: what the finite number of draws costs.
    - ``test/bw2_uvp``, ``test/bw2_uvp_backward``: of the generated π₁ and π₀ against the training samples.
    - ``test/bw2_uvp_floor``, ``test/bw2_uvp_floor_backward``: the same for the test samples themselves.

    Args:
        num_inputs: inputs over which the conditional distance is averaged.
        num_per_input: draws for each of them, at least 2; the floor falls as its inverse.
        num_samples: test samples of each end for the marginals, at least 2.
        num_steps: steps of the sampler, whose discretisation is part of what is measured.
        seed: seed of the noise.
        batch_size: samples translated at once.
    """

    def __init__(
        self,
        *,
        num_inputs: int = 200,
        num_per_input: int = 1000,
        num_samples: int = 20_000,
        num_steps: int = 30,
        seed: int = 0,
        batch_size: int = 20_000,
    ) -> None:
        check_least(1, num_inputs=num_inputs, num_steps=num_steps, batch_size=batch_size)
        check_least(2, num_per_input=num_per_input, num_samples=num_samples)
        self.num_inputs = num_inputs
        self.num_per_input = num_per_input
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.seed = seed
        self.batch_size = batch_size

    def check(self, module: object, data: object) -> None:
        """Refuse data without a known plan, or a module whose reference is not the one the plan belongs to.

        Raises:
            ValueError: says which.
        """
        check_translates(self, module, data)
        if not isinstance(data, PlannedData):
            raise ValueError(
                f"metric ConditionalPlan needs data with a known plan (data=mixture_bridge), got {type(data).__name__}"
            )
        epsilon = getattr(getattr(module, "process", None), "epsilon", None)
        if epsilon is None or abs(epsilon - data.epsilon) > 1e-6 * data.epsilon:
            raise ValueError(
                f"process.epsilon must equal data.epsilon, for which the plan is known: {epsilon} and {data.epsilon}"
            )

    def __call__(self, module: BridgeTranslator, data: PlannedData) -> dict[str, float]:
        """Translate the test split and compare."""
        self.check(module, data)
        train, test = data.split("train"), data.split("test")
        generator = seeded_generator(self.seed)

        def forward(x: Tensor) -> Tensor:
            return self._translate(module, x, "forward", generator)

        backward = self._translate(module, test.x1[: self.num_samples], "backward", generator)
        inputs = test.x0[: self.num_inputs]
        variance = train.x1.double().var(0).sum().item()
        return {
            "test/cbw2_uvp": self._conditional(forward, inputs, data.bridge) / variance * 200,
            "test/cbw2_uvp_floor": self._exact(data.bridge, inputs) / variance * 200,
            "test/bw2_uvp": _unexplained(forward(test.x0[: self.num_samples]), train.x1),
            "test/bw2_uvp_backward": _unexplained(backward, train.x0),
            "test/bw2_uvp_floor": _unexplained(test.x1[: self.num_samples], train.x1),
            "test/bw2_uvp_floor_backward": _unexplained(test.x0[: self.num_samples], train.x0),
        }

    def _exact(self, plan: KnownPlan, inputs: Tensor) -> float:
        generator = seeded_generator(self.seed, 1)
        return self._conditional(lambda x: plan.sample(x, generator), inputs, plan)

    def _conditional(self, draw: Conditional, inputs: Float[Tensor, "n d"], plan: KnownPlan) -> float:
        """Mean squared distance of the conditional laws; the draws of a few inputs at a time."""
        distances = []
        for x in inputs.split(max(1, self.batch_size // self.num_per_input)):
            draws = draw(x.repeat_interleave(self.num_per_input, dim=0))
            fitted = fitted_gaussian(draws.reshape(len(x), self.num_per_input, -1))
            distances.append(bures_wasserstein(fitted, Gaussians(*plan.conditional_moments(x.double()))))
        return torch.cat(distances).mean().item()

    def _translate(self, module: BridgeTranslator, x: Tensor, direction: str, generator: torch.Generator) -> Tensor:
        return translate_all(
            module, x, direction, num_steps=self.num_steps, generator=generator, batch_size=self.batch_size
        )


def _unexplained(x: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> float:
    """BW₂²-UVP of one set against another, in percent."""
    law = fitted_gaussian(reference)
    variance = law.covariance.diagonal().sum()
    return (200 * bures_wasserstein(fitted_gaussian(x), law) / variance).item()
