"""Random search: the best of several independent translations."""

from typing import Any

import torch
from torch import Tensor

from sbflow.search.base import Found, Problem, Search, affordable, best, check_least, one_of, take
from sbflow.search.streams import draw

__all__ = ["BestOfN"]


class BestOfN(Search):
    """Translates each input N times and keeps what the verifier likes best, at N K drift evaluations.

    With a coarse search of S steps it costs N S + K. For a verifier without ties the winner has the rank N / (N + 1) on
    average, and the law of the results departs from that of the translation by log N − (N − 1) / N nats at most.

    Args:
        num_candidates: N; 8 by default.
        budget: drift evaluations per input, in place of ``num_candidates``.
        **kwargs: see `Search`.

    References:
        Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025.
    """

    def __init__(self, num_candidates: int | None = None, *, budget: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_least(1, num_candidates=num_candidates, budget=budget)
        one_of(num_candidates=num_candidates, budget=budget)
        self.num_candidates = num_candidates
        self.budget = budget

    def candidates(self, num_steps: int) -> int:
        """N."""
        if self.budget is None:
            return self.num_candidates or 8
        return affordable(self.budget, self._redraw(num_steps), self.steps(num_steps))

    def evaluations(self, num_steps: int) -> int:
        """N S, and K for the winner where the search is coarse."""
        return self.candidates(num_steps) * self.steps(num_steps) + self._redraw(num_steps)

    def _redraw(self, num_steps: int) -> int:
        return num_steps if self.steps(num_steps) < num_steps else 0

    def _search(self, problem: Problem) -> Found:
        count, n = self.candidates(problem.roll.num_steps), len(problem.x0)
        at_once = max(1, (self.max_rows or count * n) // n)
        pieces = [range(j, min(j + at_once, count)) for j in range(0, count, at_once)]
        made = torch.cat([_translated(problem, piece) for piece in pieces], 1)
        columns = problem.judge(made)
        chosen, scores = best(columns, problem.judge, 1)
        if problem.coarse.num_steps == problem.roll.num_steps:
            return Found(take(made, chosen)[:, 0], take(columns, chosen)[:, 0], scores)
        # drawn again rather than kept: the noise of all candidates would be K times their size
        noise = draw(problem.streams.open(chosen[:, 0].tolist()), len(problem.roll.times) - 1, problem.x0)
        return Found(problem.roll(problem.x0, noise), None, scores)


def _translated(problem: Problem, candidates: range) -> Tensor:
    """Translations of every input with the noise of these candidates ``[n, candidates, *event]``."""
    fine, x0 = len(problem.roll.times) - 1, problem.x0
    noise = torch.stack([draw(problem.streams.open(j), fine, x0) for j in candidates], 2)
    made = problem.coarse(x0.repeat_interleave(len(candidates), 0), noise.flatten(1, 2))
    return torch.unflatten(made, 0, (len(x0), len(candidates)))
