r"""Speculative stepping: several steps of a Gaussian chain for one sequential call of its costly field.

A window of L steps is drafted with a cheap guess of the field: the value that it had at the window's start, a line
through it, or a small model. Then the field is evaluated at all drafted states in one batched call, and every step of
the draft is turned into a step of the chain by `reflection_maximal`: kept, or reflected, which ends the window. The
result has exactly the law that `simulate` has, whatever the guess; only the number of calls depends on it.

With a frozen field the shift of step j is ‖Δ_j‖ = (b / s) ‖r(Y_j) − r(Y_0)‖, and a step is rejected with a probability
of about ‖Δ‖ / √(2π). For Euler–Maruyama with K steps of the unit of time, a drift of Jacobian J and windows without
end, this sums up to about 0.46 · mean(‖J‖_F^{2/3}) · K^{1/3} rejections, so that

.. math:: \text{sequential calls} ≈ K / L + \text{rejections},

an upper estimate (our derivation; the noise of the chain cancels). The gain is for many small steps. The secant draft,
ours as well, replaces J by J − β I with the slope β of the window before, and so the field's isotropic part drops out:
the pull of a posterior mean to a point, or that of a Gaussian to its centre.

References:
    De Bortoli, Galashov, Gretton, Doucet, Accelerated Diffusion Models via Speculative Sampling, 2025.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sbflow.gaussian import Gaussian, reflection_maximal
from sbflow.integrator.kernel import FieldKernel, VectorField
from sbflow.tensor import Generators, expand_to, flat_sum

__all__ = ["Draft", "Policy", "SpeculationInfo", "simulate_speculative"]

Draft = VectorField | Literal["secant"] | None
"""Guess of the field within a window: a model, frozen plus a slope times the way gone, or frozen (None)."""

Policy = Literal["stale", "root"]
"""What a draft without a model starts from after a rejection; see `simulate_speculative`."""


class SpeculationInfo(NamedTuple):
    """What speculation cost and how often it was right.

    Attributes:
        sequential_calls: calls of the field that had to wait for each other, for each trajectory.
        rows: states that the field was evaluated at, over all trajectories: what a saturated device pays for.
        accepted: draft steps that were kept, by their offset in the window.
        tried: draft steps that came to be judged, by offset; steps without noise are not counted.
        steps: K, the steps of each trajectory, which plain simulation makes one call each for.
    """

    sequential_calls: Int[Tensor, " n"]
    rows: int
    accepted: Int[Tensor, " window"]
    tried: Int[Tensor, " window"]
    steps: int

    @property
    def rows_per_step(self) -> float:
        """Field evaluations over those of plain simulation."""
        return self.rows / (self.steps * len(self.sequential_calls))

    @classmethod
    def combined(cls, parts: Sequence["SpeculationInfo"]) -> "SpeculationInfo":
        """Of all trajectories of several runs with the same steps and window."""
        calls, rows, accepted, tried, steps = zip(*parts, strict=True)
        return cls(torch.cat(calls), sum(rows), torch.stack(accepted).sum(0), torch.stack(tried).sum(0), steps[0])


def simulate_speculative(
    kernel: FieldKernel,
    x: Float[Tensor, "n *event"],
    times: Float[Tensor, " k"],
    *,
    window: int = 8,
    policy: Policy = "stale",
    draft: Draft = None,
    last_noise: bool = True,
    generator: Generators = None,
) -> tuple[Float[Tensor, "n *event"], SpeculationInfo]:
    """Apply a kernel along a grid of times with few sequential calls of its field; the law is that of `simulate`.

    Each trajectory goes at its own pace, so that the field is asked for rows with different times ``[m]`` and must give
    a row the same value whatever rows are beside it. Draws differ from those of `simulate` with the same generator.

    Args:
        kernel: law of one step.
        x: states at ``times[0]``.
        times: monotone grid, in either direction.
        window: steps that are drafted at once, at least 1; one call evaluates up to ``window + 1`` rows a trajectory.
        policy: a draft without a model goes on after a rejection with the field at the rejected state, which is known
            already (``"stale"``), or asks for it at the state itself (``"root"``: one call more, a better guess).
        draft: cheap stand-in for the field, called once a step; by default the field is frozen; ``"secant"`` adds
            β (x − x_frozen), with β for each trajectory by least squares over the states of its last window.
        last_noise: draw the last step from its law; False takes its mean.
        generator: source of the noise; with one for each sample, a result does not depend on the other samples.

    Returns:
        The states at ``times[-1]``, and the costs.

    Raises:
        ValueError: ``window`` is below 1, ``policy`` or ``draft`` is unknown, or there are fewer than two times.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    if policy not in ("stale", "root"):
        raise ValueError(f"policy must be 'stale' or 'root', got {policy!r}")
    if isinstance(draft, str) and draft != "secant":
        raise ValueError(f"draft must be 'secant', a function of (x, t) or None, got {draft!r}")
    if len(times) < 2:
        raise ValueError(f"times must hold at least 2 times, got {len(times)}")
    walk = _Walk(kernel, x, times.to(x.device), window, draft, last_noise, generator)
    ask_first = draft is None or draft == "secant"
    while True:
        if ask_first or policy == "root":
            walk.ask_at_root()
        # nothing asked: every trajectory has arrived, or makes its last step from a state whose field is known
        if walk.advance() == 0:
            return walk.x, walk.info()
        ask_first = False


class _Walk:
    """Trajectories under way: their states, the steps that each has made, and the field that its draft starts from.

    Attributes:
        value: field to be frozen, at the state itself where ``known``, else at one close to it, the ``anchor``.
        slope: of the secant draft, zero for the frozen one.
    """

    def __init__(
        self,
        kernel: FieldKernel,
        x: Tensor,
        times: Tensor,
        window: int,
        draft: Draft,
        last_noise: bool,
        generator: Generators,
    ) -> None:
        self.kernel, self.draft, self.times, self.generator = kernel, draft, times, generator
        self.steps = len(times) - 1
        self.window = min(window, self.steps)
        self.noisy_steps = self.steps if last_noise else self.steps - 1
        self.x, self.anchor, self.value = x, x, torch.zeros_like(x)
        self.slope = x.new_zeros(len(x))
        self.done = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.known = torch.zeros_like(self.done, dtype=torch.bool)
        self.calls, self.rows = torch.zeros_like(self.done), 0
        self.accepted, self.tried = self.done.new_zeros(2, self.window)

    def info(self) -> SpeculationInfo:
        """Costs so far."""
        return SpeculationInfo(self.calls, self.rows, self.accepted, self.tried, self.steps)

    def ask_at_root(self) -> None:
        """Evaluate the field at the present states, where it is not known and still needed."""
        needed = (self.done < self.steps) & ~self.known
        self.value = self._ask(self.x, self.done, needed, self.value)
        self.anchor = torch.where(expand_to(needed, self.x), self.x, self.anchor)
        self.calls += needed
        self.known = self.known | needed

    def advance(self) -> int:
        """Draft a window, ask for the field along it, keep what may be kept; how many rows were asked for."""
        draft = self._drafted()
        before = self.rows
        values = self._asked_along(draft.path)
        if self.draft == "secant":
            self.slope = self._fitted_slope(draft.path, values)
        self._commit(draft, values)
        return self.rows - before

    def _drafted(self) -> "_Draft":
        path, laws = [self.x], []
        for offset in range(self.window):
            step = self.done + offset
            laws.append(self._law(path[-1], step, self._guess(path[-1], step, offset)))
            path.append(laws[-1].sample(self.generator))
        means, stds = zip(*laws, strict=True)
        return _Draft(torch.stack(path), Gaussian(torch.cat(means), torch.cat(stds)))

    def _guess(self, x: Tensor, step: Tensor, offset: int) -> Tensor:
        """The field as the draft has it."""
        if self.draft is None:
            return self.value
        if isinstance(self.draft, str):
            return self.value + expand_to(self.slope, x) * (x - self.anchor)
        guess = self.draft(x, self._start(step))
        return torch.where(expand_to(self.known, x), self.value, guess) if offset == 0 else guess

    def _asked_along(self, path: Float[Tensor, "m n *event"]) -> Float[Tensor, "m n *event"]:
        """Field at every drafted state that has a step to make, in one call; what is known is not asked again."""
        offset = torch.arange(len(path), device=path.device)[:, None]
        step = self.done + offset
        needed = (step < self.steps) & ~(self.known & (offset == 0))
        self.calls += needed.any(0)
        default = torch.cat([self.value[None], torch.zeros_like(path[1:])]).flatten(0, 1)
        return self._ask(path.flatten(0, 1), step.flatten(), needed.flatten(), default).view_as(path)

    def _fitted_slope(self, path: Tensor, values: Tensor) -> Float[Tensor, " n"]:
        """Least squares slope of the field against the state over the window, kept where none can be fitted."""
        asked = self.done + torch.arange(len(path), device=path.device)[:, None] < self.steps
        way, change = (torch.where(expand_to(asked, y), y - y[0], 0).transpose(0, 1) for y in (path, values))
        slope = flat_sum(way * change) / flat_sum(way**2)
        return torch.where(slope.isfinite(), slope, self.slope)

    def _commit(self, draft: "_Draft", values: Tensor) -> None:
        """Judge all steps of the window, go on to the first that is not kept, or to the window's end."""
        steps = self.done + torch.arange(self.window, device=self.done.device)[:, None]
        target = self._law(draft.path[:-1].flatten(0, 1), steps.flatten(), values[:-1].flatten(0, 1))
        moved, kept = reflection_maximal(
            draft.law, target, draft.path[1:].flatten(0, 1), generator=self._repeated_generators()
        )
        kept = kept.view_as(steps)
        made = (steps < self.steps) & _up_to_the_first_rejection(kept)
        self._count(made & (target.std > 0).view_as(steps), kept)
        made, each = made.sum(0), torch.arange(len(self.x), device=self.x.device)
        # the field at the last of the drafted states was asked for, whether it was kept or not
        self.anchor, self.value = draft.path[made, each], values[made, each]
        self._move(moved.view_as(draft.path[1:]), made, kept)

    def _move(self, moved: Tensor, made: Int[Tensor, " n"], kept: Bool[Tensor, "m n"]) -> None:
        """Make that many steps."""
        each, last = torch.arange(len(made), device=made.device), (made - 1).clamp_min(0)
        going = made > 0
        self.x = torch.where(expand_to(going, self.x), moved[last, each], self.x)
        self.known = going & kept[last, each]
        self.done = self.done + made

    def _count(self, judged: Bool[Tensor, "m n"], kept: Bool[Tensor, "m n"]) -> None:
        self.tried += judged.sum(1)
        self.accepted += (judged & kept).sum(1)

    def _ask(self, x: Tensor, step: Tensor, needed: Tensor, default: Tensor) -> Tensor:
        """Field at the needed rows in one call, the default elsewhere."""
        rows = needed.nonzero().squeeze(1)
        if not len(rows):
            return default
        self.rows += len(rows)
        return default.index_copy(0, rows, self.kernel.field(x[rows], self._start(step[rows])).to(x.dtype))

    def _law(self, x: Tensor, step: Tensor, value: Tensor) -> Gaussian:
        """Law of a step of each row, without spread where the last one is to be a mean."""
        law = self.kernel.step(x, self._start(step), self.times[step.clamp_max(self.steps - 1) + 1], value)
        return Gaussian(law.mean, torch.where(step < self.noisy_steps, law.std, torch.zeros_like(law.std)))

    def _start(self, step: Tensor) -> Tensor:
        # rows that have arrived stand at the last step, which is computed for them and not made
        return self.times[step.clamp_max(self.steps - 1)]

    def _repeated_generators(self) -> Generators:
        if self.generator is None or isinstance(self.generator, torch.Generator):
            return self.generator
        return list(self.generator) * self.window


class _Draft(NamedTuple):
    """A drafted window: its states ``[window + 1, n, *event]``, the start included, and the laws of all its steps."""

    path: Tensor
    law: Gaussian


def _up_to_the_first_rejection(kept: Bool[Tensor, "m n"]) -> Bool[Tensor, "m n"]:
    """Steps before which all were kept: the rejected one, whose state is reflected, is the last that is made."""
    before = torch.cat([torch.ones_like(kept[:1]), kept[:-1]])
    return before.long().cumprod(0).bool()
