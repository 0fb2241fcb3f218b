"""What all searches share: options, pieces of a batch, the account of costs."""

import abc
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sbflow.search.judge import Judge
from sbflow.search.result import SearchResult
from sbflow.search.roll import Roll
from sbflow.search.streams import Seed, Streams, draw
from sbflow.verifier import Verifier

__all__ = ["Found", "Problem", "Search", "affordable", "best", "check_least", "one_of", "take"]

FEWEST_STEPS = 5
"""A quarter of few steps ranks candidates poorly; five were enough where it was measured."""


class Problem(NamedTuple):
    """One piece of a search.

    Attributes:
        roll: the translation in all its steps.
        coarse: the same with the steps of the search.
        x0: inputs ``[n, *event]``.
        judge: the verifier.
        streams: noise of the candidates.
    """

    roll: Roll
    coarse: Roll
    x0: Tensor
    judge: Judge
    streams: Streams


class Found(NamedTuple):
    """What a search has to say.

    Attributes:
        samples: the winners, translated in all steps ``[n, *event]``.
        columns: what the verifiers said of them ``[n, m]``; None where a coarse translation was judged.
        scores: of the last comparison ``[n, candidates]``.
    """

    samples: Tensor
    columns: Tensor | None
    scores: Tensor


class Search(abc.ABC):
    """Looks for noise under which a verifier likes the translation of an input.

    Args:
        search_steps: steps of the translations that are compared; the winner is translated again in all steps along
            the same Brownian path. By default a quarter of the steps, but at least 5 where there are as many; a search
            over paths takes all.
        max_rows: candidates in memory at once, those of one input never parted; all inputs at once by default.
        baseline: translate without a search as well, for comparison.

    References:
        Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025.
    """

    def __init__(self, *, search_steps: int | None = None, max_rows: int | None = None, baseline: bool = True) -> None:
        check_least(1, search_steps=search_steps, max_rows=max_rows)
        self.search_steps = search_steps
        self.max_rows = max_rows
        self.baseline = baseline

    @torch.no_grad()
    def __call__(
        self, roll: Roll, x0: Float[Tensor, "n *event"], verifier: Verifier, *, seed: Seed = 0
    ) -> SearchResult:
        """Search for each input on its own; the noise of candidate j of input i is a function of (i, j) alone.

        Args:
            roll: the translation, see `bridge_roll`.
            x0: inputs, at least one.
            verifier: scores of (inputs, results), larger is better.
            seed: one for all inputs or one for each; candidate 0 is the translation with the same seeds.

        Raises:
            ValueError: a budget that is too small, more steps in the search than there are, no input, or a verifier
                that does not return one score per row.
        """
        if len(x0) == 0:
            raise ValueError("x0 must hold at least one input, got none")
        streams, rows = Streams.of(seed, len(x0)), len(x0)
        if self.max_rows is not None:
            rows = max(1, self.max_rows // self.candidates(roll.num_steps))
        pieces = [
            self._piece(roll, piece, verifier, streams.part(i * rows, i * rows + len(piece)))
            for i, piece in enumerate(torch.split(x0, rows))
        ]
        return _joined(pieces)

    @abc.abstractmethod
    def candidates(self, num_steps: int) -> int:
        """Candidates of one input that are in memory at once, for a translation of so many steps."""

    @abc.abstractmethod
    def evaluations(self, num_steps: int) -> int:
        """Drift evaluations per input, for a translation of so many steps."""

    @abc.abstractmethod
    def _search(self, problem: Problem) -> Found:
        """Find the winners."""

    def steps(self, num_steps: int) -> int:
        """Steps of the translations that are compared, for a translation of so many steps.

        Raises:
            ValueError: there are fewer than the search is to have.
        """
        if self.search_steps is None:
            return max(-(-num_steps // 4), min(num_steps, FEWEST_STEPS))
        if self.search_steps > num_steps:
            raise ValueError(f"search_steps must be at most the {num_steps} steps, got {self.search_steps}")
        return self.search_steps

    def _piece(self, roll: Roll, x0: Tensor, verifier: Verifier, streams: Streams) -> SearchResult:
        judge, before = Judge(verifier, x0, max_rows=self.max_rows), roll.evaluations
        found = self._search(Problem(roll, roll.coarse(self.steps(roll.num_steps)), x0, judge, streams))
        columns = judge(found.samples[:, None])[:, 0] if found.columns is None else found.columns
        cost, calls = (roll.evaluations - before) // len(x0), judge.evaluations // len(x0)
        score = judge.preference(columns[:, None])[:, 0]
        result = SearchResult(found.samples, score, found.scores, cost, calls)
        if not self.baseline:
            return result
        plain = roll(x0, draw(streams.open(0), len(roll.times) - 1, x0))
        compared = judge.preference(torch.stack([columns, judge(plain[:, None])[:, 0]], 1))
        return result._replace(score=compared[:, 0], baseline=plain, baseline_score=compared[:, 1])


def check_least(least: int, **options: int | None) -> None:
    """Refuse options that are below ``least``; None is none.

    Raises:
        ValueError: names the option, what is allowed and what was given.
    """
    for name, value in options.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def one_of(**options: int | None) -> None:
    """Refuse a number of candidates beside a budget that would decide it.

    Raises:
        ValueError: names the options.
    """
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"give one of {', '.join(options)}, got {' and '.join(given)}")


def affordable(budget: int, fixed: int, each: int) -> int:
    """How many times ``each`` a budget of evaluations pays for, after what is ``fixed``.

    Raises:
        ValueError: not once.
    """
    if budget < fixed + each:
        raise ValueError(f"budget must be at least {fixed + each} drift evaluations for this search, got {budget}")
    return (budget - fixed) // each


def take(x: Float[Tensor, "n candidates *event"], chosen: Int[Tensor, "n keep"]) -> Float[Tensor, "n keep *event"]:
    """The chosen candidates of each input."""
    return x[torch.arange(len(x), device=x.device)[:, None], chosen]


def best(columns: Tensor, judge: Judge, keep: int) -> tuple[Tensor, Tensor]:
    """Numbers of the candidates to keep ``[n, keep]``, best first, and the preferences ``[n, candidates]``."""
    scores = judge.preference(columns)
    # stable: the first of equals, so that nothing changes where the verifier sees no difference
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return order[:, :keep], scores


def _joined(pieces: list[SearchResult]) -> SearchResult:
    costs = pieces[0].drift_evaluations, pieces[0].verifier_evaluations
    samples, score, scores, _, _, *plain = zip(*pieces, strict=True)
    baseline, baseline_score = (None if one[0] is None else torch.cat(one) for one in plain)
    return SearchResult(torch.cat(samples), torch.cat(score), torch.cat(scores), *costs, baseline, baseline_score)
