"""The exponential moving average that both algorithms simulate with."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["averaged"]


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """Copy a module into a running average of its weights; a submodule, so that checkpoints carry it.

    The decay warms up as min(decay, (k + 1) / (k + 10)) after k updates: without it the first rollouts would use
    initial weights.

    Args:
        module: the module that is trained.
        decay: in [0, 1); 0 copies the latest weights.

    Raises:
        ValueError: ``decay`` outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema_decay must lie in [0, 1), got {decay}")

    def update(average: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
        k = int(num_averaged)
        torch._foreach_lerp_(average, current, 1 - min(decay, (k + 1) / (k + 10)))

    model = AveragedModel(module, multi_avg_fn=update)
    # `torch.no_grad` in AveragedModel does not keep an optimiser from taking the copies
    return model.requires_grad_(False)
