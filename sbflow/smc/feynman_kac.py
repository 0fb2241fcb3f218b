r"""Feynman–Kac correctors: particles that follow :math:`p_t \propto \prod_i q_{i,t}^{a_i}` where only scores are known.

With :math:`S = \sum_i a_i s_i`, any drift v and noise of variance σ² per unit of the clock τ follow :math:`p_t` if each
particle gains log-weight at the rate

.. math:: h = \partial_\tau \log \tilde p + \nabla \cdot v + v \cdot S - \tfrac12 \sigma^2 (\nabla \cdot S + |S|^2),

up to the discretisation of time. Two choices for which h needs no density are here; both are our own derivation, after
Skreta et al. 2025, whose weights explode along with ∫β for denoising models with :math:`A = \sum_i a_i \ne 1`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.integrator.flow import Flow
from sbflow.potential.geometric import check_exponents
from sbflow.smc.particles import Field
from sbflow.tensor import flat_sum, randn_like

__all__ = ["FeynmanKacDivergence", "FeynmanKacFlow", "GaussianStart", "SampleStart", "Start"]

# coordinates whose derivatives are taken at once: what they hold in memory is that many times one evaluation
AXES_AT_ONCE = 8


@runtime_checkable
class Start(Protocol):
    """The law at which generation begins, Π_i q_i^{a_i} normalised."""

    def sample(self, like: Float[Tensor, "r n d"], generator: torch.Generator | None) -> Float[Tensor, "r n d"]:
        """Draw from it."""

    def log_normalizer(self, dim: int) -> float:
        """Log ∫ Π_i q_i^{a_i}."""


class GaussianStart:
    """N(0, I)^A normalised, which is N(0, I / A): where denoising models begin.

    Args:
        total: A, positive.
        log_det: log |det L| where the models live in whitened coordinates x = m + L z and the integral is over x.

    Raises:
        ValueError: ``total`` is not positive.
    """

    def __init__(self, total: float, log_det: float = 0.0) -> None:
        if not total > 0:
            raise ValueError(f"exponents must have a positive sum, got {total}")
        self.total = total
        self.log_det = log_det

    def sample(self, like: Float[Tensor, "r n d"], generator: torch.Generator | None) -> Float[Tensor, "r n d"]:
        """Draw from it."""
        return randn_like(like, generator) / self.total**0.5

    def log_normalizer(self, dim: int) -> float:
        """½ d (1 − A) log 2π − ½ d log A + (1 − A) log |det L|."""
        of_gaussian = 0.5 * dim * ((1 - self.total) * math.log(2 * math.pi) - math.log(self.total))
        return of_gaussian + (1 - self.total) * self.log_det


class SampleStart:
    """The data π₀ that several bridges share; their exponents must sum to 1, or nothing samples the start.

    Args:
        x0: samples of π₀, from which particles start, drawn with replacement.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, x0: Float[Tensor, "m d"]) -> None:
        if not len(x0):
            raise ValueError("x0 must hold at least one sample, got none")
        self.x0 = x0

    def sample(self, like: Float[Tensor, "r n d"], generator: torch.Generator | None) -> Float[Tensor, "r n d"]:
        """Draw with replacement."""
        device = like.device if generator is None else generator.device
        rows = torch.randint(len(self.x0), like.shape[:2], generator=generator, device=device)
        return self.x0.to(like)[rows.to(like.device)]

    def log_normalizer(self, dim: int) -> float:
        """Zero: π₀ is normalised."""
        return 0.0


class _FeynmanKac:
    """What the two forms share: start, step and weight. The field holds the rate h and the drift v.

    The step is exact for the linear part of the drift at stationarity, so that it is stable however long.
    """

    tempers = False
    # of the drift, its linear rate at stationarity per unit of the flow's decay; of the noise, its share of the flow's
    rate: float
    noise_share: float

    def __init__(self, flows: Sequence[Flow], exponents: Sequence[float], start: Start | None = None) -> None:
        self.exponents = check_exponents(exponents, len(flows))
        self.total = sum(self.exponents)
        first = flows[0]
        kinds = [(flow.noise, flow.decay) for flow in flows]
        if len(set(kinds)) > 1:
            raise ValueError(f"flows must share their noise and decay, got {kinds}")
        if start is None and first.decay == 0:
            raise ValueError("start must be given for bridges: SampleStart(x0) with samples of the end they share")
        if isinstance(start, SampleStart) and abs(self.total - 1) > 1e-9:
            raise ValueError(f"exponents must sum to 1 to start from data, got {list(self.exponents)}")
        self.flows = tuple(flows)
        self.flow = first
        self.begin = GaussianStart(self.total) if start is None else start

    def start(self, like: Float[Tensor, "r n d"], generator: torch.Generator | None = None) -> Float[Tensor, "r n d"]:
        """Draw from the start law."""
        return self.begin.sample(like, generator)

    def start_weight(self, field: Field) -> Float[Tensor, "*batch n"]:
        """The constant of the start law, the same for every particle."""
        return torch.full_like(field.log_g, self.begin.log_normalizer(field.grad_log_g.shape[-1]))

    def propose(self, x: Float[Tensor, "n d"], field: Field, t: Tensor, s: Tensor) -> Gaussian:
        """One step along the drift."""
        step = self._elapsed(t, s)
        rate = self.rate * self.flow.decay
        variance = self.noise_share * self.flow.noise * _decayed(2 * rate, step)
        return Gaussian(x + _decayed(rate, step).to(x.dtype) * field.grad_log_g, variance.sqrt().to(x.dtype))

    def log_weight(
        self, x: Tensor, field: Field, law: Gaussian, x_s: Tensor, field_s: Field, t: Tensor, s: Tensor
    ) -> Float[Tensor, " n"]:
        """Rate at the start of the step, times its length."""
        return self._elapsed(t, s) * field.log_g.double()

    def _elapsed(self, t: Tensor, s: Tensor) -> Tensor:
        return (self.flow.clock(s) - self.flow.clock(t)).abs()

    def _products(self, fields: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, " n"]:
        """Σ a_i ⟨x_i, y_i⟩."""
        return self._sum([flat_sum(x * y) for x, y in fields])

    def _sum(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([a * part for a, part in zip(self.exponents, parts, strict=True)]).sum(0)


class FeynmanKacFlow(_FeynmanKac):
    """The velocity form: v = U + ½ σ² S and h = U · S − Σ a_i u_i · s_i, from scores alone.

    u_i are the velocities of the flows, U = Σ a_i u_i, and σ² = ρ times the noise of the flows. The more noise, the
    less the weights vary, for A above 1 above all: take ρ of 2 to 4 there, with steps to match; with ρ below 1 log Ẑ
    can be far off without a sign of it. What the scores have wrong biases Ẑ, and so does the length of the steps.

    Args:
        flows: of the models, in the same coordinates and on the same clock.
        exponents: a_i.
        noise_ratio: ρ, at least 1.
        start: law at which generation begins; by default that of denoising models.

    Raises:
        ValueError: exponents that do not fit, flows of different noise, bridges without a start, or a ratio below 1.

    References:
        Skreta et al., "Feynman-Kac Correctors in Diffusion: Annealing, Guidance, and Product of Experts", 2025.
    """

    def __init__(
        self,
        flows: Sequence[Flow],
        exponents: Sequence[float],
        *,
        noise_ratio: float = 1.0,
        start: Start | None = None,
    ) -> None:
        super().__init__(flows, exponents, start)
        if not 1 <= noise_ratio < math.inf:
            raise ValueError(f"noise_ratio must be finite and at least 1, got {noise_ratio}")
        self.noise_share = noise_ratio
        self.rate = noise_ratio * self.total

    def field(self, x: Float[Tensor, "n d"], t: Tensor) -> Field:
        """Rate of the log-weight, and drift."""
        fields = [flow.fields(x, t) for flow in self.flows]
        velocity, score = self._sum([f.velocity for f in fields]), self._sum([f.score for f in fields])
        rate = flat_sum(velocity * score) - self._products([(f.velocity, f.score) for f in fields])
        return Field.of(rate, velocity + 0.5 * self.noise_share * self.flow.noise * score)


class FeynmanKacDivergence(_FeynmanKac):
    r"""The divergence form for denoising models: noise 2 / A, v = x + (2/A) S, and h by the exact divergence of S.

    .. math:: h = (1 - A) d - (1 - 1/A)\, \nabla \cdot S + |S|^2 / A - \sum_i a_i |s_i|^2

    Annealing a Gaussian it has no variance at all. A divergence costs d derivatives along coordinates for each model; a
    random probe of it would bias e^h, and is not offered. With A = 1 no divergence is needed.

    Args:
        flows: of the models, from `sbflow.integrator.flow.flow_from_score`, in the same coordinates and on the same
            clock.
        exponents: a_i.
        start: law at which generation begins; by default that of denoising models.

    Raises:
        ValueError: exponents that do not fit, or flows of bridges.

    References:
        Skreta et al., "Feynman-Kac Correctors in Diffusion: Annealing, Guidance, and Product of Experts", 2025.
    """

    rate = 1.0

    def __init__(self, flows: Sequence[Flow], exponents: Sequence[float], *, start: Start | None = None) -> None:
        if any(flow.decay == 0 for flow in flows):
            raise ValueError("flows must be those of denoising models, got one of a bridge: use FeynmanKacFlow")
        super().__init__(flows, exponents, start)
        self.noise_share = 1 / self.total

    def field(self, x: Float[Tensor, "n d"], t: Tensor) -> Field:
        """Rate of the log-weight, and drift."""
        scores = [flow.fields(x, t).score for flow in self.flows]
        score, expansion = self._sum(scores), torch.zeros_like(x[:, 0])
        if self.total != 1:
            expansion = self._sum([_divergence(partial(_score, flow, t), x) for flow in self.flows])
        squares = flat_sum(score**2) / self.total - self._products([(s, s) for s in scores])
        rate = (1 - self.total) * x.shape[-1] - (1 - 1 / self.total) * expansion + squares
        return Field.of(rate, x + self.noise_share * self.flow.noise * score)


def _score(flow: Flow, t: Tensor, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return flow.fields(x, t).score


def _decayed(rate: float, step: Tensor) -> Tensor:
    """∫₀^step e^{−rate τ} dτ."""
    return step if rate == 0 else -torch.expm1(-rate * step) / rate


def _divergence(field: Callable[[Tensor], Tensor], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Divergence of a field that treats points apart, by one forward derivative along each coordinate."""

    def along(axis: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        return torch.func.jvp(field, (x,), (axis.expand_as(x),))[1] @ axis

    axes = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.func.vmap(along, chunk_size=AXES_AT_ONCE)(axes).sum(0)
