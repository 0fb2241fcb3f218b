"""Statistical assertions: the tolerance is computed from the samples, never tuned."""

import torch
from torch import Tensor

__all__ = ["assert_mean_close"]


def assert_mean_close(samples: Tensor, expected: Tensor | float, num_stderr: float = 5) -> None:
    """Assert that every mean over the first axis lies within ``num_stderr`` standard errors of what is expected.

    Args:
        samples: independent draws ``[n, *event]``, n at least 2.
        expected: the true mean, broadcast over the event.
        num_stderr: 5 makes one false alarm in about two million comparisons.
    """
    samples = samples.double()
    error = samples.mean(0) - torch.as_tensor(expected, dtype=torch.float64)
    stderr = samples.std(0) / len(samples) ** 0.5
    # rounding: for draws that do not vary at all
    allowed = num_stderr * stderr + 1e-12
    worst = (error.abs() / allowed).max()
    assert worst <= 1, f"mean is off by {float(worst) * num_stderr:.1f} standard errors"
