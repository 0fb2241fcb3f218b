"""The noise of every candidate, a function of its input and of its number alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.tensor import randn_like, seeded_generator

__all__ = ["Seed", "Streams", "draw"]

Seed = int | Sequence[int] | Sequence[tuple[int, ...]]
"""One seed for all inputs, or one for each: a number, or as many numbers for each, which are hashed together."""


class Streams:
    """Stream j of input i depends on (i, j) and on nothing else, so neither batches nor neighbours change a result.

    Stream 0 of an input is that of a plain translation with the same seed.

    Args:
        keys: seeds of each input.
    """

    def __init__(self, keys: Sequence[tuple[int, ...]]) -> None:
        self.keys = list(keys)

    @classmethod
    def of(cls, seed: Seed, n: int) -> "Streams":
        """Streams of n inputs.

        Raises:
            ValueError: there is not one seed for each input.
        """
        if isinstance(seed, int):
            return cls([(seed, i) for i in range(n)])
        if len(seed) != n:
            raise ValueError(f"seed must be one number or one for each input: got {len(seed)} for {n} inputs")
        return cls([(one,) if isinstance(one, int) else tuple(one) for one in seed])

    def part(self, start: int, stop: int) -> "Streams":
        """Streams of some of the inputs."""
        return Streams(self.keys[start:stop])

    def open(self, candidate: int | Sequence[int]) -> list[torch.Generator]:
        """A generator for each input, at the beginning of the stream of this candidate, or of one for each input."""
        chosen = [candidate] * len(self.keys) if isinstance(candidate, int) else candidate
        return [seeded_generator(*key, *([j] if j else [])) for key, j in zip(self.keys, chosen, strict=True)]


def draw(
    generators: Sequence[torch.Generator], num_steps: int, like: Float[Tensor, "n *event"]
) -> Float[Tensor, "steps n *event"]:
    """Noise of several steps, step by step as a rollout would draw it."""
    return torch.stack([randn_like(like, generators) for _ in range(num_steps)])
