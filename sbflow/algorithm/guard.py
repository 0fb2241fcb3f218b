"""Guards of bridge training: a loss that is not finite, a first stage that is too short, translations gone wrong."""

import torch
from jaxtyping import Float
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from sbflow.algorithm.diagnostics import energy_distance
from sbflow.algorithm.translation import Direction

__all__ = ["FiniteLoss", "Inflation", "stays_at_source"]

INFLATION = 0.15
"""Relative error of the generated variance that is warned of."""

SETTLED = 20
"""Batches after which it is stage 2's: the first ones show what stage 1 has left."""


class FiniteLoss:
    """Remembers the first step whose loss was not finite; reads it rarely where reading waits for the device.

    Args:
        every: steps between two readings on an accelerator; on a CPU every step is read.
    """

    def __init__(self, every: int = 25) -> None:
        self.every = every
        self.first: Tensor | None = None

    def see(self, loss: Tensor, step: int) -> None:
        """Take note of the loss of a step.

        Raises:
            FloatingPointError: names the first bad step.
        """
        if self.first is None:
            self.first = torch.full((), -1, device=loss.device)
        bad = ~loss.detach().isfinite() & (self.first < 0)
        self.first = torch.where(bad, step, self.first)
        if loss.device.type == "cpu" or step % self.every == 0:
            self.check()

    def check(self) -> None:
        """Raise if a loss was not finite.

        Raises:
            FloatingPointError: names the step.
        """
        if self.first is not None and (step := int(self.first)) >= 0:
            raise FloatingPointError(
                f"the loss is not finite at step {step}: lower the learning rate, or look at that batch; "
                "the checkpoints before it are sound"
            )


class Inflation:
    """Warns once for each direction when the generated variance has left the data's for good."""

    def __init__(self) -> None:
        self.average: dict[str, float] = {}
        self.count: dict[str, int] = {}

    def see(self, ratio: float, direction: Direction) -> None:
        """Take note of a variance ratio: a running mean over some ten batches decides."""
        count = self.count[direction] = self.count.get(direction, 0) + 1
        rate = max(1 / count, 0.1)
        average = self.average[direction] = (1 - rate) * self.average.get(direction, 0.0) + rate * ratio
        if count >= SETTLED and abs(average - 1) > INFLATION:
            self.count[direction] = -(10**9)
            remedy = "lower finetune_learning_rate" if average > 1 else "bring finetune_ema_decay nearer to 1"
            rank_zero_warn(
                f"the {direction} translations have {average:.2f} times the variance of the data: {remedy}, or take a "
                "larger network, more num_steps or a longer stage 1"
            )


def stays_at_source(
    source: Float[Tensor, "n *event"],
    made: Float[Tensor, "n *event"],
    untrained: Float[Tensor, "n *event"],
    target: Float[Tensor, "m *event"],
    direction: Direction,
) -> str | None:
    """Why translations cannot be said to have left their source, or None.

    They have if their energy distance from the target is below 0.9 of that of the source, and of that of the source
    shifted and blurred as an untrained network does; or if it is below half of the latter, as between ends that are
    much alike only an exact translation comes closer than the source. Where those are too close to the target to be
    told from it by so many samples there is nothing to leave.
    """
    blurred = energy_distance(untrained, target)
    before = torch.minimum(energy_distance(source, target), blurred)
    after = energy_distance(made, target)
    # the estimate's standard deviation for equal laws is below 2 / n of the mean distance
    floor = 8 / min(len(source), len(target)) * torch.cdist(source.flatten(1), target.flatten(1)).mean()
    if before < floor or after < 0.9 * before or after < 0.5 * blurred:
        return None
    return (
        f"stage 1 has not left the source: {direction} translations are {float(after):.3g} from the target in energy "
        f"distance, an untrained network's {float(before):.3g}; raise pretrain_steps or the network's size"
    )
