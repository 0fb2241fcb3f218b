"""One number that was measured, beside what it must be."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Measurement", "mean_of", "worst_mean"]

STDERRS = 5
"""How far a sound measurement may be off: one false alarm in about two million."""


class Measurement(NamedTuple):
    """A measured number, what is expected and how far it may be off.

    Attributes:
        name: what was measured.
        measured: the number.
        expected: the closed form; with the relation ``"<"`` the bound below which the number must lie.
        stderr: standard error of the measured number; 0 where nothing was drawn.
        tolerance: allowance for rounding or for an approximation in the closed form.
        relation: how measured and expected are to be compared.
        problem: what kept the number from being measured; empty otherwise.
    """

    name: str
    measured: float
    expected: float
    stderr: float = 0.0
    tolerance: float = 0.0
    relation: Literal["=", "<"] = "="
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether measured and expected agree within five standard errors; never with a NaN."""
        allowed = STDERRS * self.stderr + self.tolerance
        if self.relation == "<":
            return self.measured + allowed < self.expected
        return abs(self.measured - self.expected) <= allowed

    @property
    def verdict(self) -> str:
        """``"ok"``, ``"FAILED"`` or why there is no number."""
        return self.problem or ("ok" if self.passed else "FAILED")

    @classmethod
    def broken(cls, name: str, error: Exception) -> "Measurement":
        """What could not be measured: a failure."""
        reason = " ".join(str(error).split())
        return cls(name, math.nan, math.nan, problem=f"FAILED ({type(error).__name__}: {reason})")


def worst_mean(name: str, samples: Float[Tensor, "n *event"], expected: Tensor | float) -> Measurement:
    """The one mean over independent samples that is most standard errors away from what is expected.

    Args:
        name: what is measured.
        samples: independent draws, at least 2.
        expected: the true means, broadcast over the event.
    """
    truth = torch.as_tensor(expected, dtype=torch.float64).cpu().expand(samples.shape[1:]).flatten()
    samples = samples.detach().double().cpu().flatten(1)
    mean, stderr = samples.mean(0), samples.std(0) / len(samples) ** 0.5
    # a draw that is not a number must be the one that is shown
    k = int(((mean - truth).abs() / (stderr + 1e-300)).nan_to_num(torch.inf).argmax())
    # rounding: for draws that do not vary at all
    return Measurement(name, float(mean[k]), float(truth[k]), float(stderr[k]), tolerance=1e-12)


def mean_of(name: str, samples: Float[Tensor, " n"], expected: float) -> Measurement:
    """The mean of independent numbers."""
    return worst_mean(name, samples[:, None], expected)
