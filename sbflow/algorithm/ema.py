"""The exponential moving average that both algorithms simulate with."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average", "averaged", "check_decay"]


class Average(nn.Module):
    """Running average of a module's weights; its buffers follow the module. A submodule, so that checkpoints carry it.

    Attributes:
        module: the averaged copy, which takes no gradient.
        n_averaged: number of updates.

    Args:
        module: the module that is trained.
        decay: in [0, 1); 0 copies the latest weights.
    """

    n_averaged: Tensor

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = deepcopy(module).requires_grad_(False)
        self.decay = decay
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.long))
        # the count again, to be read without waiting for the device; None where the buffer knows better
        self._count: int | None = 0
        # averaged weights and those of the module: walking through the modules takes longer than the average
        self._weights: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []

    @torch.no_grad()
    def update_parameters(self, module: nn.Module, decay: float | None = None) -> None:
        """Move the average to the module's weights, by 1 − min(decay, (k + 1) / (k + 10)) after k updates.

        Args:
            module: the module that is trained.
            decay: in place of all that, where the average is good already.
        """
        k = int(self.n_averaged) if self._count is None else self._count
        both = self.module, module
        if any(not w or w[0] is not next(m.parameters()) for w, m in zip(self._weights, both, strict=True)):
            self._weights = list(self.module.parameters()), list(module.parameters())
        # the first weights are taken over whole; a copy has no form for weights in shards
        share = 1.0 if k == 0 else 1 - (min(self.decay, (k + 1) / (k + 10)) if decay is None else decay)
        torch._foreach_lerp_(*self._weights, share)
        for mine, other in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(other)
        self._count = k + 1
        self.n_averaged += 1

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._count = None


def averaged(module: nn.Module, decay: float) -> Average:
    """Copy a module into a running average of its weights.

    The decay warms up as min(decay, (k + 1) / (k + 10)) after k updates: without it the first rollouts would use
    initial weights.

    Args:
        module: the module that is trained.
        decay: in [0, 1); 0 copies the latest weights.

    Raises:
        ValueError: ``decay`` outside [0, 1).
    """
    check_decay("ema_decay", decay)
    return Average(module, decay)


def check_decay(name: str, decay: float) -> None:
    """Refuse what is no decay.

    Raises:
        ValueError: ``decay`` outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {decay}")
