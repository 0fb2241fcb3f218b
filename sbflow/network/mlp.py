"""Perceptrons on flattened events, conditioned on time and direction."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.network.embedding import ConditionEmbedding

__all__ = ["MLP", "ResidualMLP"]


class MLP(nn.Module):
    """Plain perceptron on the event and the embedded condition, concatenated; for up to some 50 dimensions.

    Its default has the size of the Gaussian experiments of De Bortoli et al. 2024.

    Args:
        event_shape: shape of one sample; the output has it too.
        hidden: widths of the hidden layers.
        embed_dim: size of the embedding of time and direction.
        num_directions: 0, or 2 for a bidirectional network.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (256, 256),
        embed_dim: int = 64,
        num_directions: int = 0,
    ) -> None:
        super().__init__()
        dim = math.prod(event_shape)
        self.embedding = ConditionEmbedding(embed_dim, num_directions=num_directions, hidden=max(hidden))
        widths = [dim + embed_dim, *hidden]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.out = _zero_initialised(nn.Linear(widths[-1], dim))

    def forward(
        self, x: Float[Tensor, "n *event"], t: Float[Tensor, " m"], direction: Tensor | None = None
    ) -> Float[Tensor, "n *event"]:
        """Field at (x, t), of the shape of x; zero at initialisation."""
        condition = self.embedding(t, direction).expand(len(x), -1)
        h = torch.cat([x.flatten(1), condition], dim=-1)
        return self.out(self.layers(h)).reshape(x.shape)


class ResidualMLP(nn.Module):
    """Pre-normalised residual perceptron; the condition enters every block. For small images on a CPU.

    Args:
        event_shape: shape of one sample; the output has it too.
        width: width of the residual stream.
        num_blocks: residual blocks.
        embed_dim: size of the embedding of time and direction.
        num_directions: 0, or 2 for a bidirectional network.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        width: int = 512,
        num_blocks: int = 4,
        embed_dim: int = 128,
        num_directions: int = 0,
    ) -> None:
        super().__init__()
        dim = math.prod(event_shape)
        self.embedding = ConditionEmbedding(embed_dim, num_directions=num_directions)
        self.into = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_ResidualBlock(width, embed_dim) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.out = _zero_initialised(nn.Linear(width, dim))

    def forward(
        self, x: Float[Tensor, "n *event"], t: Float[Tensor, " m"], direction: Tensor | None = None
    ) -> Float[Tensor, "n *event"]:
        """Field at (x, t), of the shape of x; zero at initialisation."""
        condition = nn.functional.silu(self.embedding(t, direction))
        h = self.into(x.flatten(1))
        for block in self.blocks:
            h = block(h, condition)
        return self.out(self.norm(h)).reshape(x.shape)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.condition = nn.Linear(embed_dim, width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        return h + self.out(nn.functional.silu(self.into(self.norm(h)) + self.condition(condition)))


def _zero_initialised(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
