"""Pairs that are simulated now and then and used again: iterative DSBM, relaxation, and cheaper online training."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.coupling.base import Coupling
from sbflow.coupling.online import simulated_pairs
from sbflow.coupling.rollout import Rollout
from sbflow.loss import Pairs, bidirectional_pairs

__all__ = ["Buffer", "Iterative"]

FORWARD, BACKWARD, BOTH = 0, 1, 2


class Buffer(Coupling):
    """Keeps ``size`` batches of simulated pairs; every use of a pair draws fresh bridge times and noise.

    A period of ``refresh_every`` steps begins with ``size`` steps that simulate one batch each, which the other steps
    of the period go round again. So refreshed at every step it is `Online`; with a reuse count it is online training at
    a fraction of its cost; `Iterative` is the far end.

    Args:
        size: batches kept.
        reuse: optimiser steps on each pair; the period is then ``size · parts · reuse`` steps.
        parts: a step trains on one of so many parts of a batch, in turn. A batch has a pair for each real sample of
            either end; with 2 a step has as many pairs as one of bridge matching, which couples them.
        refresh_every: the period itself, in place of ``reuse``; by default ``alternate_every`` if that is given, else
            ``size · parts``.
        alternate_every: train the directions in turn, forward first, for so many steps each, a multiple of the period;
            both at once by default.
        relaxation: α in (0, 1]; when a batch is simulated again each pair is replaced with probability α and kept
            otherwise, so that the coupling moves to (1 − α) old + α new (α-IMF). The first old coupling is the
            independent one.
        frozen: simulate the whole period with the network as it stood at its start, not with the current one.
        reset_optimizer: forget the optimiser's state whenever the direction changes.

    References:
        Shi, De Bortoli, Campbell, Doucet, "Diffusion Schrödinger Bridge Matching", 2023 (the iteration and its cache);
        De Bortoli et al. 2024 (the relaxation).
    """

    simulates = True

    def __init__(
        self,
        *,
        size: int = 1,
        reuse: int | None = None,
        parts: int = 1,
        refresh_every: int | None = None,
        alternate_every: int | None = None,
        relaxation: float = 1.0,
        frozen: bool = False,
        reset_optimizer: bool = False,
    ) -> None:
        if reuse is not None and refresh_every is not None:
            raise ValueError(f"give reuse or refresh_every, not both: got {reuse} and {refresh_every}")
        counts = {"size": size, "reuse": reuse, "parts": parts, "alternate_every": alternate_every}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < relaxation <= 1:
            raise ValueError(f"relaxation must lie in (0, 1], got {relaxation}")
        around = size * parts
        period = refresh_every if refresh_every is not None else around * reuse if reuse else alternate_every or around
        if period < size:
            raise ValueError(f"refresh_every must be at least size={size}, got {period}")
        if alternate_every is not None and alternate_every % period:
            raise ValueError(f"alternate_every must be a multiple of the period, {period} steps, got {alternate_every}")
        self.size = size
        self.parts = parts
        self.refresh_every = period
        self.alternate_every = alternate_every
        self.relaxation = relaxation
        self.frozen = frozen
        self.reset_optimizer = reset_optimizer
        self._batches: dict[str, Pairs] = {}
        self._snapshot: Rollout | None = None
        self._snapshot_state: dict[str, Tensor] | None = None

    def pairs(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "n *event"], rollout: Rollout, step: int) -> Pairs:
        """Simulate a batch in the first ``size`` steps of a period, take a kept one after."""
        phase, position = self._phase(step), step % self.refresh_every
        key = f"{phase}/{position % self.size}"
        kept = self._batches.get(key)
        if kept is not None:
            kept = Pairs(*(part.to(x0.device) for part in kept))
        if kept is None or position < self.size:
            fresh = _directed(x0, x1, self._rollout(rollout, position), phase)
            kept = self._relaxed(_real(x0, x1, phase) if kept is None else kept, fresh)
            self._batches[key] = kept
        return self._part(kept, position // self.size)

    def restarts(self, step: int) -> bool:
        """At the start, and at changes of the direction where so chosen."""
        changes = self.alternate_every is not None and step % self.alternate_every == 0
        return step == 0 or (self.reset_optimizer and changes)

    def state_dict(self) -> dict[str, Any]:
        """The kept batches and the frozen network."""
        snapshot = self._snapshot_state if self._snapshot is None else self._snapshot.drift.state_dict()
        return {"batches": {key: list(pairs) for key, pairs in self._batches.items()}, "snapshot": snapshot}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up batches and frozen network."""
        self._batches = {key: Pairs(*pairs) for key, pairs in state["batches"].items()}
        self._snapshot, self._snapshot_state = None, state["snapshot"]

    def _phase(self, step: int) -> int:
        return BOTH if self.alternate_every is None else step // self.alternate_every % 2

    def _rollout(self, rollout: Rollout, position: int) -> Rollout:
        """The current network, or the one that the period began with."""
        if not self.frozen:
            return rollout
        if position == 0 or self._snapshot is None:
            self._snapshot = rollout.frozen()
            if position > 0 and self._snapshot_state is not None:
                self._snapshot.drift.load_state_dict(self._snapshot_state)
        return self._snapshot

    def _part(self, kept: Pairs, use: int) -> Pairs:
        """Every k-th pair of a batch, k the number of parts, which has as many of each direction."""
        parts = min(self.parts, len(kept.start))
        return kept if parts == 1 else Pairs(*(rows[use % parts :: parts] for rows in kept))

    def _relaxed(self, old: Pairs, fresh: Pairs) -> Pairs:
        if self.relaxation == 1:
            return fresh
        taken = torch.rand(len(fresh.start), device=fresh.start.device) < self.relaxation
        rows = taken.reshape(-1, *(1,) * (fresh.start.ndim - 1))
        return Pairs(torch.where(rows, fresh.start, old.start), torch.where(rows, fresh.end, old.end), fresh.direction)


class Iterative(Buffer):
    """Iterative DSBM: an iteration of the Markovian fitting every ``alternate_every`` steps, directions in turn.

    Each simulates ``size`` batches with the network that it began with, and trains on them with a fresh optimiser.

    Args:
        size: batches simulated in each iteration.
        alternate_every: steps of an iteration, M.
        relaxation: see `Buffer`.
        reset_optimizer: see `Buffer`.

    References:
        Shi, De Bortoli, Campbell, Doucet, "Diffusion Schrödinger Bridge Matching", 2023.
    """

    def __init__(
        self,
        *,
        size: int = 100,
        alternate_every: int = 1000,
        relaxation: float = 1.0,
        reset_optimizer: bool = True,
    ) -> None:
        super().__init__(
            size=size,
            alternate_every=alternate_every,
            relaxation=relaxation,
            frozen=True,
            reset_optimizer=reset_optimizer,
        )


def _directed(x0: Tensor, x1: Tensor, rollout: Rollout, phase: int) -> Pairs:
    """Simulated pairs of one direction or both; the pairs of a direction are made by the other one."""
    if phase == BOTH:
        return simulated_pairs(x0, x1, rollout)
    end = x1 if phase == FORWARD else x0
    trained = torch.full((len(end),), phase, dtype=torch.long, device=end.device)
    return Pairs(rollout(end, 1 - trained), end, trained)


def _real(x0: Tensor, x1: Tensor, phase: int) -> Pairs:
    """Independent pairs of one direction or both."""
    both = bidirectional_pairs((x0, x1), (x1, x0))
    if phase == BOTH:
        return both
    rows = slice(0, len(x0)) if phase == FORWARD else slice(len(x0), None)
    return Pairs(*(part[rows] for part in both))
