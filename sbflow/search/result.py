"""What a search found, and what another judge thinks of it."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.search.judge import Judge
from sbflow.verifier import Verifier

__all__ = ["HeldOut", "SearchResult", "doubt", "rescore"]


class SearchResult(NamedTuple):
    """Results of a search over n inputs.

    With an ensemble of rankings, ``scores`` are mean ranks, and ``score`` and ``baseline_score`` say which share of its
    verifiers prefers the one or the other.

    Attributes:
        samples: the best candidate of each input ``[n, *event]``.
        score: its score ``[n]``; the maximum over noisy scores is biased upwards, see `rescore`.
        scores: of the candidates in the last comparison ``[n, candidates]``.
        drift_evaluations: of the search per input, look-ahead and final translation included, baseline apart.
        verifier_evaluations: of the search per input, likewise.
        baseline: the translation without a search, with the same seed ``[n, *event]``; None where it was not asked for.
        baseline_score: its score ``[n]``.
    """

    samples: Tensor
    score: Tensor
    scores: Tensor
    drift_evaluations: int
    verifier_evaluations: int
    baseline: Tensor | None = None
    baseline_score: Tensor | None = None


class HeldOut(NamedTuple):
    """Scores by a verifier that the search did not see.

    Attributes:
        score: of the results ``[n]``.
        baseline_score: of the translations without a search ``[n]``, where there are any.
        inflation: how much more the search reports to have gained, on average, than this verifier finds.
        warning: says so where less than half of the reported gain is confirmed; None otherwise.
    """

    score: Tensor
    baseline_score: Tensor | None
    inflation: float
    warning: str | None


def rescore(result: SearchResult, x_in: Float[Tensor, "n *event"], verifier: Verifier) -> HeldOut:
    """Judge a result by a verifier that took no part in the search, of the same scale as the one that did.

    A search exploits the noise and the blind spots of its verifier, so its own score is too good.

    Args:
        result: of the search.
        x_in: its inputs.
        verifier: the other verifier: trained on other data, or with other noise.
    """
    judge = Judge(verifier, x_in)
    score = judge(result.samples[:, None])[:, 0, 0]
    gained, confirmed, baseline_score = result.score, score, None
    if result.baseline is not None and result.baseline_score is not None:
        baseline_score = judge(result.baseline[:, None])[:, 0, 0]
        gained, confirmed = gained - result.baseline_score, confirmed - baseline_score
    missing = (gained - confirmed).double()
    return HeldOut(score, baseline_score, missing.mean().item(), doubt(gained.double(), missing))


def doubt(gained: Float[Tensor, " n"], missing: Float[Tensor, " n"]) -> str | None:
    """A warning where it is no accident of few inputs that half of the reported gain is missing elsewhere; else None.

    Args:
        gained: what the search reports to have gained for each input.
        missing: what of it a held-out verifier does not find.
    """
    excess = missing - 0.5 * gained
    stderr = excess.std().nan_to_num() / len(excess) ** 0.5 if len(excess) > 1 else torch.zeros(())
    if not excess.mean() > 2 * stderr:
        return None
    return (
        f"the search reports a gain of {gained.mean():.3g}, of which a held-out verifier confirms "
        f"{(gained - missing).mean():.3g}: it has learned the weak spots of its verifier"
    )
