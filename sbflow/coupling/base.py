"""The one interface of every source of pairs."""

import abc
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from sbflow.coupling.rollout import Rollout
from sbflow.loss import Pairs

__all__ = ["Coupling"]


class Coupling(abc.ABC):
    """Makes the training pairs of one step from a batch of either end.

    The end of every pair is real data, whatever made its start: a regression on generated ends loses the marginals.

    Attributes:
        bidirectional: whether the pairs train both directions.
        simulates: whether starts are made by the network, which must then know the way already.
    """

    bidirectional: ClassVar[bool] = True
    simulates: ClassVar[bool] = False

    @abc.abstractmethod
    def pairs(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "m *event"], rollout: Rollout, step: int) -> Pairs:
        """Pairs of one training step.

        Args:
            x0: fresh samples of π₀.
            x1: fresh samples of π₁, independent of x0.
            rollout: simulates the averaged network, and knows the reference process.
            step: steps since this coupling came into use, from 0.
        """

    def restarts(self, step: int) -> bool:
        """Whether the optimiser's state is to be forgotten before this step."""
        return step == 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on exactly, beyond what the coupling was made with: plain data and tensors.

        Before its first step there is nothing: a run that is resumed between the stages does not ask for it.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; a coupling without state has nothing to take."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but the checkpoint holds {', '.join(state)}")
