"""Zero-order search: climb from one noise to better ones nearby."""

from typing import Any

import torch
from torch import Tensor

from sbflow.search.base import Found, Problem, Search, affordable, best, check_least, one_of, take
from sbflow.search.streams import draw

__all__ = ["ZeroOrder"]


class ZeroOrder(Search):
    r"""Moves a pivot noise to the best of its neighbours, for several rounds; it never gets worse.

    .. math:: z'_j = \sqrt{1 - ρ^2} z + ρ ξ_j

    keeps the law of the noise. It costs (1 + N I) K drift evaluations. It climbs within the mode that it starts in,
    best with few neighbours, many rounds and a radius of 0.3 to 0.6; a radius of 1 is best of 1 + N I. The form of the
    neighbours is ours, the search is that of Ma et al.

    Args:
        num_neighbours: N, candidates of a round.
        num_rounds: I; 8 by default. 0 is the plain translation.
        radius: ρ in (0, 1].
        budget: drift evaluations per input, in place of ``num_rounds``.
        **kwargs: see `Search`.

    References:
        Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025.
    """

    def __init__(
        self,
        num_neighbours: int = 2,
        num_rounds: int | None = None,
        *,
        radius: float = 0.5,
        budget: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_least(1, num_neighbours=num_neighbours, budget=budget)
        check_least(0, num_rounds=num_rounds)
        one_of(num_rounds=num_rounds, budget=budget)
        if not 0 < radius <= 1:
            raise ValueError(f"radius must lie in (0, 1], got {radius}")
        self.num_neighbours = num_neighbours
        self.num_rounds = num_rounds
        self.radius = radius
        self.budget = budget

    def candidates(self, num_steps: int) -> int:
        """The neighbours, and the pivot."""
        return self.num_neighbours + 1

    def rounds(self, num_steps: int) -> int:
        """I."""
        if self.budget is None:
            return 8 if self.num_rounds is None else self.num_rounds
        steps = self.steps(num_steps)
        return affordable(self.budget, steps + self._redraw(num_steps), self.num_neighbours * steps)

    def evaluations(self, num_steps: int) -> int:
        """(1 + N I) S, and K for the winner where the search is coarse."""
        translated = 1 + self.num_neighbours * self.rounds(num_steps)
        return translated * self.steps(num_steps) + self._redraw(num_steps)

    def _redraw(self, num_steps: int) -> int:
        return num_steps if self.steps(num_steps) < num_steps else 0

    def _search(self, problem: Problem) -> Found:
        fine, n = len(problem.roll.times) - 1, len(problem.x0)
        noise = draw(problem.streams.open(0), fine, problem.x0)[:, :, None]
        made = problem.coarse(problem.x0, noise[:, :, 0])[:, None]
        columns = problem.judge(made)
        scores = problem.judge.preference(columns)
        for first in range(1, 1 + self.num_neighbours * self.rounds(problem.roll.num_steps), self.num_neighbours):
            near = self._neighbours(problem, noise, first)
            rows = problem.x0.repeat_interleave(self.num_neighbours, 0)
            moved = torch.unflatten(problem.coarse(rows, near.flatten(1, 2)), 0, (n, self.num_neighbours))
            pool = torch.cat([columns, problem.judge(moved)], 1)
            chosen, scores = best(pool, problem.judge, 1)
            columns, made = take(pool, chosen), take(torch.cat([made, moved], 1), chosen)
            noise = torch.stack([take(step, chosen) for step in torch.cat([noise, near], 2)])
        if problem.coarse.num_steps == problem.roll.num_steps:
            return Found(made[:, 0], columns[:, 0], scores)
        return Found(problem.roll(problem.x0, noise[:, :, 0]), None, scores)

    def _neighbours(self, problem: Problem, pivot: Tensor, first: int) -> Tensor:
        """Noise around the pivot ``[fine, n, 1, *event]``, of the streams from ``first`` on."""
        streams = range(first, first + self.num_neighbours)
        fresh = torch.stack([draw(problem.streams.open(j), len(pivot), problem.x0) for j in streams], 2)
        return (1 - self.radius**2) ** 0.5 * pivot + self.radius * fresh
