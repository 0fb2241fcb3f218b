"""The drift of a trained bridge as a graph of torch, which runs where sbflow is not installed."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, save

import sbflow
from sbflow.atomic import replacing
from sbflow.network import BridgeDrift
from sbflow.network.drift import TwoNetworks
from sbflow.tensor import seeded_generator

__all__ = ["GRAPH", "drift_graph", "write_graph"]

GRAPH = "drift.pt2"
"""Name of the graph in an export."""

NOTES = "sbflow.json"
"""Name, inside the graph's archive, of what a sampler has to know besides."""

TOLERANCE = 1e-4
"""Largest difference between model and graph, over the size of the drift: rounding in another order of operations."""


def drift_graph(algorithm: Any) -> ExportedProgram:
    """Trace the averaged drift for any number of samples, and compare it with the model.

    The graph takes (x, u, direction): points ``[n, *event]``, own-clock times ``[n]`` in [0, 1), and 0 (forward) or 1
    (backward) for each, int64.

    Args:
        algorithm: a bridge; on the CPU, as `load_run` leaves it.

    Raises:
        ValueError: it has no drift, its network cannot be traced, or the graph computes something else.
    """
    average = getattr(getattr(algorithm, "ema", None), "module", None)
    if not isinstance(average, BridgeDrift):
        raise ValueError(f"graph=true exports the drift of a bridge, which a {type(algorithm).__name__} has not")
    drift = _Unbranched(average)
    n = Dim("n", min=1)
    try:
        program = torch.export.export(
            drift, _inputs(algorithm, 3), dynamic_shapes=({0: n}, {0: n}, {0: n}), strict=True
        )
    except Exception as error:
        # any code of the user's network, and torch's many ways of refusing it
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"graph=true: torch.export cannot trace {type(average.network).__name__}: {reason}") from error
    _compare(program, average, algorithm)
    return program


def write_graph(program: ExportedProgram, algorithm: Any, file: Path) -> None:
    """Write the graph, with the shape of one sample and epsilon beside it in the archive."""
    notes = {
        "sbflow_version": sbflow.__version__,
        "event_shape": list(algorithm.event_shape),
        "epsilon": float(algorithm.process.epsilon),
        "inputs": ["x [n, *event_shape]", "u [n], own-clock time in [0, 1)", "direction [n], 0 forward, 1 backward"],
    }
    with replacing(file) as handle:
        save(program, handle, extra_files={NOTES: json.dumps(notes)})


def _inputs(algorithm: Any, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points about the data, times and both directions; the same ones for the same n."""
    drift, generator = algorithm.ema.module, seeded_generator(0, n)
    direction = torch.arange(n) % 2
    noise = torch.randn(n, *algorithm.event_shape, generator=generator).to(drift.mean.dtype)
    x = drift.mean[direction] + drift.variance[direction].sqrt() * noise
    return x, torch.rand(n, generator=generator).to(x.dtype), direction


@torch.no_grad()
def _compare(program: ExportedProgram, average: BridgeDrift, algorithm: Any) -> None:
    """Hold the graph against the model, for other numbers of samples than it was traced with."""
    graph = program.module()
    for n in (1, 8):
        x, u, direction = _inputs(algorithm, n)
        expected, got = average(x, u, direction), graph(x, u, direction)
        difference = float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not difference <= TOLERANCE:
            raise ValueError(f"graph=true: the exported drift of {n} samples is off by {difference:.2g} of its size")


class _Unbranched(nn.Module):
    """A copy of the drift whose way depends neither on which directions are asked for nor on how many samples."""

    def __init__(self, average: BridgeDrift) -> None:
        super().__init__()
        self.drift = deepcopy(average).eval().requires_grad_(False)
        if isinstance(self.drift.network, TwoNetworks):
            self.drift.network = _Both(self.drift.network)

    def forward(
        self, x: Float[Tensor, "n *event"], u: Float[Tensor, " n"], direction: Int[Tensor, " n"]
    ) -> Float[Tensor, "n *event"]:
        # with a row more there is never one alone, which networks take for a time that all samples share
        rows = (torch.cat([part, part[:1]]) for part in (x, u, direction))
        return self.drift(*rows)[:-1]


class _Both(nn.Module):
    """Two networks, each evaluated at all points: a graph has no subsets of unknown size."""

    def __init__(self, networks: TwoNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(
        self, x: Float[Tensor, "n *event"], t: Float[Tensor, " n"], direction: Int[Tensor, " n"]
    ) -> Float[Tensor, "n *event"]:
        forwards = self.networks.forwards(x, t, torch.zeros_like(direction))
        backwards = self.networks.backwards(x, t, torch.ones_like(direction))
        return torch.where(direction.reshape(-1, *(1,) * (x.ndim - 1)) == 0, forwards, backwards)
