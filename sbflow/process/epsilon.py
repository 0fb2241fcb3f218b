"""How much noise a bridge between two data sets wants."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["suggest_epsilon"]

SHARE = 0.775
"""√ε / 2, the deviation of the bridge's noise at half time, in deviations of the data."""

NEGLIGIBLE = 1e-4
"""Variance, over the largest, below which a coordinate counts as constant."""


def suggest_epsilon(x0: Float[Tensor, "n *event"], x1: Float[Tensor, "m *event"]) -> float:
    """Variance of the reference per unit of time that suits two data sets, (2 · 0.775 · deviation)².

    A small ε gives poor samples that finetuning cannot repair, a large one results that forget their input. At half
    time the noise of a bridge has deviation √ε / 2; images translate well where that is 0.75 to 0.8 of the deviation
    of the data. The deviation is the root mean variance over both sets and over the elements that vary, each about its
    own mean; so data in other units, c x, get c² ε, and constant elements change nothing.

    Args:
        x0: samples of π₀.
        x1: samples of π₁.

    Raises:
        ValueError: fewer than two samples, values that are not finite, or nothing that varies.

    >>> x = torch.tensor([[-1.0, 5.0], [1.0, 5.0]])
    >>> round(suggest_epsilon(x, 3 * x), 4), round(suggest_epsilon(10 * x, 30 * x), 2)
    (12.0125, 1201.25)
    """
    variance = (_variances("x0", x0) + _variances("x1", x1)) / 2
    largest = variance.max().item()
    if not 0 < largest < float("inf"):
        raise ValueError(f"epsilon cannot be chosen for data whose largest variance is {largest}")
    return 4 * SHARE**2 * variance[variance > NEGLIGIBLE * largest].mean().item()


def _variances(name: str, x: Tensor) -> Float[Tensor, " elements"]:
    if len(x) < 2:
        raise ValueError(f"{name} must hold at least 2 samples to choose epsilon, got {len(x)}")
    return torch.var(x.flatten(1).double(), dim=0, correction=0)
