"""Search over paths: branch on the way, look ahead, keep the promising ones."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sbflow.search.base import Found, Problem, Search, affordable, best, check_least, one_of, take
from sbflow.search.roll import coarse_steps
from sbflow.search.streams import draw

__all__ = ["Paths"]


class Stage(NamedTuple):
    """Steps of one stage: from ``start`` back to ``back``, then on to ``stop``."""

    start: int
    back: int
    stop: int


class Segment(NamedTuple):
    """Randomness of one stage for every path that is kept: of the way back, if there is one, and of the way on."""

    stage: Stage
    renoise: Tensor | None
    noise: Tensor


class State(NamedTuple):
    """Paths of each input ``[n, paths, *event]``, and how they came about where they are to be replayed."""

    x: Tensor
    history: list[Segment]


class Paths(Search):
    """Carries N paths; branches each into M for a few steps, judges their expected ends and keeps the best N.

    Where the expected end tells much, this is the cheapest of the searches. At full resolution it costs
    N k + Σ N M (r + b + 1) drift evaluations, the last stage without the 1 of the look-ahead. Going back r steps by the
    bridge from x0 draws anew what was decided last, and leaves the law unchanged where the selection is blind; r = 0 is
    a beam search. The form for bridges is ours, the search is that of Ma et al.

    All steps are searched by default: what was chosen on a coarse path is less good on the fine one, and here every
    choice rests on the one before.

    Args:
        width: N, paths that are kept; 2 by default.
        branches: M, continuations of each.
        block: b, steps of a continuation.
        renoise: r, steps back before each continuation.
        start: k, steps before the first branching; ``block`` by default.
        budget: drift evaluations per input, in place of ``width``.
        **kwargs: see `Search`.

    References:
        Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025.
    """

    def __init__(
        self,
        width: int | None = None,
        branches: int = 4,
        block: int = 2,
        *,
        renoise: int = 0,
        start: int | None = None,
        budget: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_least(1, width=width, branches=branches, block=block, start=start, budget=budget)
        check_least(0, renoise=renoise)
        one_of(width=width, budget=budget)
        self.width = width
        self.branches = branches
        self.block = block
        self.renoise = renoise
        self.start = start
        self.budget = budget

    def steps(self, num_steps: int) -> int:
        """All of them by default."""
        return num_steps if self.search_steps is None else super().steps(num_steps)

    def stages(self, num_steps: int) -> list[Stage]:
        """The branchings of a search of so many steps."""
        starts = range(min(self.start or self.block, num_steps), num_steps, self.block)
        return [Stage(t, max(t - self.renoise, 0), min(t + self.block, num_steps)) for t in starts]

    def paths(self, num_steps: int) -> int:
        """N."""
        if self.budget is None:
            return self.width or 2
        return affordable(self.budget, self._redraw(num_steps), self._each(num_steps))

    def candidates(self, num_steps: int) -> int:
        """N M."""
        return self.paths(num_steps) * self.branches

    def evaluations(self, num_steps: int) -> int:
        """N (k + Σ M (r + b + 1)) without the last look-ahead, and the replay of the winner after a coarse search."""
        return self.paths(num_steps) * self._each(num_steps) + self._redraw(num_steps)

    def _each(self, num_steps: int) -> int:
        """Evaluations that each path adds."""
        steps = self.steps(num_steps)
        stages = self.stages(steps)
        first = stages[0].start if stages else steps
        return first + self.branches * sum(one.stop - one.back + (one.stop < steps) for one in stages)

    def _redraw(self, num_steps: int) -> int:
        """All steps, and those that are taken again."""
        steps = self.steps(num_steps)
        if steps == num_steps:
            return 0
        at = coarse_steps(num_steps, steps)
        return num_steps + sum(at[one.start] - at[one.back] for one in self.stages(steps))

    def _search(self, problem: Problem) -> Found:
        width, steps = self.paths(problem.roll.num_steps), problem.coarse.num_steps
        stages = self.stages(steps)
        streams = self._streams(problem, width)
        first = Stage(0, 0, stages[0].start if stages else steps)
        # the beginnings of the paths take the streams that the first branch of each goes on with
        state = State(problem.x0[:, None].repeat_interleave(width, 1), [])
        state = _grown(problem, state, first, streams[:: self.branches])
        for stage in stages:
            parents = torch.arange(width, device=state.x.device).repeat_interleave(self.branches)
            state = _grown(problem, _select(state, parents.expand(len(state.x), -1)), stage, streams)
            if stage.stop < steps:
                ahead = problem.coarse.look_ahead(state.x.flatten(0, 1), stage.stop)
                columns = problem.judge(torch.unflatten(ahead, 0, state.x.shape[:2]))
                state = _select(state, best(columns, problem.judge, width)[0])
        columns = problem.judge(state.x)
        chosen, scores = best(columns, problem.judge, 1)
        if steps == problem.roll.num_steps:
            return Found(take(state.x, chosen)[:, 0], take(columns, chosen)[:, 0], scores)
        return Found(_replayed(problem, _select(state, chosen)), None, scores)

    def _streams(self, problem: Problem, width: int) -> list[list[torch.Generator]]:
        """One for each branch of each path, for the whole search; paths have the first numbers."""
        numbers = [
            i if m == 0 else width + i * (self.branches - 1) + m - 1 for i in range(width) for m in range(self.branches)
        ]
        return [problem.streams.open(j) for j in numbers]


def _grown(problem: Problem, state: State, stage: Stage, streams: list[list[torch.Generator]]) -> State:
    """Every path carried through a stage, with noise of its own stream."""
    coarse, renoise = problem.coarse, None
    x, x0 = state.x.flatten(0, 1), problem.x0.repeat_interleave(state.x.shape[1], 0)
    if stage.back < stage.start:
        renoise = _drawn(problem, streams, 1)[0]
        x = coarse.renoise(x0, x, stage.start, stage.back, renoise.flatten(0, 1))
    noise = _drawn(problem, streams, coarse.fine_steps(stage.back, stage.stop))
    x = torch.unflatten(coarse.partial(x, noise.flatten(1, 2), stage.back, stage.stop), 0, state.x.shape[:2])
    # without a coarse search nothing is replayed, and the noise would be most of the memory
    replay = coarse.num_steps < problem.roll.num_steps
    return State(x, [*state.history, Segment(stage, renoise, noise)] if replay else [])


def _drawn(problem: Problem, streams: list[list[torch.Generator]], num_steps: int) -> Tensor:
    """Noise ``[num_steps, n, paths, *event]``."""
    return torch.stack([draw(generators, num_steps, problem.x0) for generators in streams], 2)


def _select(state: State, chosen: Tensor) -> State:
    """Some of the paths of each input, with their pasts."""
    history = [
        Segment(
            one.stage,
            None if one.renoise is None else take(one.renoise, chosen),
            torch.stack([take(step, chosen) for step in one.noise]),
        )
        for one in state.history
    ]
    return State(take(state.x, chosen), history)


def _replayed(problem: Problem, state: State) -> Tensor:
    """The one path of each input again, in all steps."""
    roll, x = problem.roll, problem.x0
    at = coarse_steps(roll.num_steps, problem.coarse.num_steps)
    for stage, renoise, noise in state.history:
        if renoise is not None:
            x = roll.renoise(problem.x0, x, at[stage.start], at[stage.back], renoise[:, 0])
        x = roll.partial(x, noise[:, :, 0], at[stage.back], at[stage.stop])
    return x
