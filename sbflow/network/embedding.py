"""Embeddings of the conditioning: time and direction."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["ConditionEmbedding", "FourierFeatures"]


class FourierFeatures(nn.Module):
    """Sine and cosine of t at fixed frequencies.

    Args:
        num_features: size of the output, even.
        max_frequency: largest angular frequency; the frequencies are geometric from 1 to this, which resolves times in
            [0, 1] at every scale.
    """

    frequencies: Tensor

    def __init__(self, num_features: int = 64, max_frequency: float = 200.0) -> None:
        super().__init__()
        if num_features < 2 or num_features % 2:
            raise ValueError(f"num_features must be even and at least 2, got {num_features}")
        frequencies = torch.exp(torch.linspace(0, math.log(max_frequency), num_features // 2))
        self.register_buffer("frequencies", frequencies)

    def forward(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n f"]:
        """Features of each time."""
        # at least float32: half precision has no digits left after 200 t
        angles = t.to(torch.promote_types(t.dtype, torch.float32))[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ConditionEmbedding(nn.Module):
    """Learned embedding of time and, for a bidirectional network, of the direction.

    Args:
        dim: size of the embedding.
        num_directions: 0 for a network without direction, 2 for a bidirectional one.
        num_features: Fourier features of the time.
        hidden: width of the hidden layer.
    """

    def __init__(self, dim: int, *, num_directions: int = 0, num_features: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.features = FourierFeatures(num_features)
        self.num_directions = num_directions
        self.hidden = nn.Linear(num_features, hidden)
        self.direction = nn.Embedding(num_directions, hidden) if num_directions else None
        self.out = nn.Linear(hidden, dim)

    def forward(self, t: Float[Tensor, " m"], direction: Int[Tensor, " n"] | None = None) -> Float[Tensor, "k c"]:
        """Embed times in [0, 1] and directions.

        Args:
            t: one time per sample ``[n]``, or a single one ``[1]`` for all, which a rollout has and which is embedded
                once.
            direction: 0 or 1 for each sample ``[n]``; None for a network without directions.

        Returns:
            one embedding per sample, or a single one where time and direction are.

        Raises:
            ValueError: a direction is given to a network without one, or the other way round.
        """
        if (direction is None) != (self.direction is None):
            given = "none" if direction is None else "one per sample"
            raise ValueError(f"network has {self.num_directions} directions, got {given}")
        h = self.hidden(self.features(t).to(self.hidden.weight.dtype))
        if self.direction is None or direction is None:
            return self.out(nn.functional.silu(h))
        if len(t) == 1:
            return self.out(nn.functional.silu(h + self.direction.weight))[direction]
        return self.out(nn.functional.silu(h + self.direction(direction)))
