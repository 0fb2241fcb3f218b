r"""What the steps of a grid of times cost a sampler, measured on noised samples of the target.

A cost is a squared length: on a fine grid its root adds up to a length of the path of laws that does not depend on the
grid, and `sbflow.process.equalise` goes that length in equal steps.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.integrator.kernel import VectorField
from sbflow.process import ReferenceProcess
from sbflow.process.schedule import path_length
from sbflow.tensor import Generators, flat_sum

__all__ = ["Velocity", "corrector_cost", "path_cost"]

Velocity = Callable[[Tensor], Tensor]
"""times ``[k]`` -> speed of the corrector at each of them ``[k]``, positive."""

# by how much the length of a path may depend on the grid that it was measured on
TOLERANCE = 0.05


class _Level(NamedTuple):
    time: Tensor
    x: Tensor
    value: Tensor


@torch.no_grad()
def path_cost(
    field: VectorField,
    process: ReferenceProcess,
    x0: Float[Tensor, "n *event"],
    times: Float[Tensor, " k"],
    *,
    generator: Generators = None,
) -> Float[Tensor, " l"]:
    r"""Cost of each step of a stochastic denoiser whose field is :math:`\nabla \log g_t`.

    For :math:`X_t \sim N(a X_s, b^2 I)` noised from :math:`X_s`, s < t, a step from t down to s costs

    .. math:: C(s, t) = b^2\, E \lVert a \nabla \log g_s(X_s) - \nabla \log g_t(X_t) \rVert^2.

    The bracket has mean zero given :math:`X_t`, by the identity that novel score matching rests on. For short steps of
    `guided_denoising` the incremental log-weight has variance C / 2, and the step adds C / 4 to the Kullback–Leibler
    divergence of the paths; so K steps that all cost the same make log-weights whose variances add up to
    :math:`\Lambda^2 / (2 K)`, with Λ the `path_length`. This cost is our own derivation.

    Args:
        field: ∇ log g, exact or learned.
        process: noising process.
        x0: samples of the target; a thousand place a step to within 0.005.
        times: increasing grid from 0, a fine one: a step so long that it forgets its start costs nothing.
        generator: source of the noise.

    Returns:
        Cost of each step, in the order of ``times``, in float64.

    Raises:
        ValueError: fewer than two times, or times that do not increase from 0.

    Warns:
        UserWarning: the path is longer or shorter by more than 5 % on every other time.
    """

    def cost(before: _Level, after: _Level) -> Tensor:
        a, b = process.transition(before.time, after.time)
        return b.double() ** 2 * flat_sum((a * before.value.double() - after.value.double()) ** 2).mean()

    return _measured(_levels(field, process, x0, times, generator), cost)


@torch.no_grad()
def corrector_cost(
    score: VectorField,
    process: ReferenceProcess,
    x0: Float[Tensor, "n *event"],
    times: Float[Tensor, " k"],
    *,
    velocity: Literal["sigma", "one"] | Velocity = "sigma",
    velocity_at: Literal["noisy", "clean"] = "noisy",
    generator: Generators = None,
) -> Float[Tensor, " l"]:
    r"""Cost of each step for a corrector that starts from the samples as they are (Williams et al. 2024).

    The first work of Langevin dynamics of speed v that is to turn samples of :math:`p_t` into samples of :math:`p_s`,
    s < t, is

    .. math:: L(s, t) = v^2\, E_{X \sim p_t} \lVert \nabla \log p_s(X) - \nabla \log p_t(X) \rVert^2.

    The paper takes v where the step arrives. A speed of 0 there, as that of ``"sigma"`` at time 0, makes the last step
    free however long it is, and grids that are measured again and again then grow it without end; by default v is taken
    where the step starts. The measure depends on the coordinates: it is another one in x and in x / a.

    Args:
        score: ∇ log p_t.
        process: noising process.
        x0: samples of the target.
        times: increasing grid from 0.
        velocity: v as a function of time; ``"sigma"`` is the standard deviation of the noise, ``"one"`` is 1.
        velocity_at: end of a step at which v is taken, ``"clean"`` as in the paper or ``"noisy"``.
        generator: source of the noise.

    Returns:
        Cost of each step, in the order of ``times``, in float64.

    Raises:
        ValueError: times as for `path_cost`, an unknown name, or a velocity that is not positive.

    Warns:
        UserWarning: the path is longer or shorter by more than 5 % on every other time.

    References:
        Williams, Campbell, Doucet, Syed, "Score-Optimal Diffusion Schedules", 2024.
    """
    if velocity_at not in ("noisy", "clean"):
        raise ValueError(f"velocity_at must be 'noisy' or 'clean', got {velocity_at!r}")
    speed = _speed(velocity, process)
    _check_speed(speed, times[1:] if velocity_at == "noisy" else times[:-1])

    def cost(before: _Level, after: _Level) -> Tensor:
        v = speed((after if velocity_at == "noisy" else before).time)
        change = score(after.x, before.time) - after.value
        return v.double() ** 2 * flat_sum(change.double() ** 2).mean()

    return _measured(_levels(score, process, x0, times, generator), cost)


def _speed(velocity: Literal["sigma", "one"] | Velocity, process: ReferenceProcess) -> Velocity:
    if velocity == "sigma":
        return lambda t: process.transition(torch.zeros_like(t), t)[1]
    if velocity == "one":
        return torch.ones_like
    if not callable(velocity):
        raise ValueError(f"velocity must be 'sigma', 'one' or a function of time, got {velocity!r}")
    return velocity


def _check_speed(speed: Velocity, times: Float[Tensor, " k"]) -> None:
    idle = times[~(speed(times) > 0)]
    if len(idle):
        raise ValueError(
            f"velocity must be positive, got {float(speed(idle)[0]):.3g} at time {float(idle[0]):.3g}, where the step "
            "would be free; use velocity_at='noisy' or another velocity"
        )


def _levels(
    field: VectorField, process: ReferenceProcess, x0: Tensor, times: Float[Tensor, " k"], generator: Generators
) -> Iterator[_Level]:
    """One path of the noising process per sample, with the field along it."""
    if len(times) < 2 or times[0] != 0 or not (times.diff() > 0).all():
        raise ValueError(f"times must increase from 0, got {[round(t, 4) for t in times.tolist()]}")
    x = x0
    for k, t in enumerate(times):
        if k:
            x = process.kernel(x, times[k - 1], t).sample(generator)
        yield _Level(t, x, field(x, t))


def _measured(levels: Iterable[_Level], cost: Callable[[_Level, _Level], Tensor]) -> Float[Tensor, " l"]:
    """Cost of each step; and, for comparison, of each pair of steps taken as one."""
    last: deque[_Level] = deque(maxlen=2)
    single, double = [], []
    for k, level in enumerate(levels):
        if k:
            single.append(cost(last[-1], level))
        if k and k % 2 == 0:
            double.append(cost(last[0], level))
        last.append(level)
    costs = torch.stack(single)
    if double:
        _check_resolution(costs[: 2 * len(double)], torch.stack(double))
    return costs


def _check_resolution(single: Float[Tensor, " l"], double: Float[Tensor, " m"]) -> None:
    """A length that depends on the grid belongs to a grid that is too coarse, or to a field that is not smooth."""
    fine, coarse = path_length(single), path_length(double)
    if abs(fine - coarse) > TOLERANCE * max(fine, coarse):
        warnings.warn(
            f"the path is {fine:.4g} long in {len(single)} steps and {coarse:.4g} in {len(double)}: measure it in more "
            "steps, or check that the field is smooth in time",
            stacklevel=5,
        )
