"""Translation with a bridge network: the part of the algorithm that remains after training."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from lightning import LightningModule
from torch import Tensor

from sbflow.algorithm.ema import Average
from sbflow.algorithm.shards import shard
from sbflow.coupling import Rollout
from sbflow.coupling.rollout import Method, in_pieces
from sbflow.integrator import (
    Draft,
    Policy,
    Spacing,
    SpeculationInfo,
    euler_maruyama,
    simulate_speculative,
    solve_ode,
    time_grid,
)
from sbflow.network import BridgeDrift
from sbflow.process import Brownian
from sbflow.tensor import Generators, seeded_generator

__all__ = ["DIRECTIONS", "BridgeTranslation", "Direction", "Seed"]

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")

Seed = int | np.integer | Sequence[int] | np.ndarray | Tensor
"""One seed for all samples, or one for each."""

Times = Spacing | Sequence[int | float] | np.ndarray | Tensor
"""Spacing of the steps, or the grid itself."""


class BridgeTranslation(LightningModule):
    """Carries samples along a learned bridge, with the averaged network.

    Attributes:
        process: the Brownian reference.
        event_shape: shape of one sample.
        last_noise: default of `translate`.
        method: default of `translate`.
        drift: the drift that is trained; its buffers hold the moments of the data.
        ema: average of the drift, which simulates.
    """

    process: Brownian
    event_shape: tuple[int, ...]
    last_noise: bool
    method: Method
    drift: BridgeDrift
    ema: Average

    def configure_model(self) -> None:
        """Cut network and average into shards, where the strategy has devices to cut them over."""
        if self.device_mesh is not None:
            for module in (self.drift, self.ema.module):
                shard(module, self.device_mesh)

    def translate(
        self,
        x: Num[Tensor | np.ndarray, "n *event"],
        direction: Direction = "forward",
        *,
        num_steps: int = 30,
        times: Times = "uniform",
        last_noise: bool | None = None,
        sampler: Literal["sde", "ode", "speculative"] = "sde",
        method: Method | None = None,
        seed: Seed | None = None,
        generator: Generators = None,
        batch_size: int | None = None,
        return_path: bool = False,
    ) -> Tensor:
        """Carry samples to the other end.

        With a seed or a generator for each sample, its result does not depend on which others it is translated with;
        bit for bit if ``batch_size`` is the same, since kernels round differently for other sizes.

        Args:
            x: samples of π₀ (forward) or π₁ (backward).
            direction: ``"forward"`` from x0 to x1, ``"backward"`` from x1 to x0.
            num_steps: steps of a named grid; more than in training's rollouts costs little here and helps.
            times: spacing of the steps, or the grid itself in the direction's own clock, increasing from 0 to 1.
            last_noise: whether the last step draws noise; by default as in training.
            sampler: ``"sde"`` simulates the diffusion, whose pairs follow the bridge; ``"ode"`` the probability flow by
                Heun's method, deterministic, with the right marginals only; ``"speculative"`` has the law of
                ``"sde"`` by Euler–Maruyama with fewer calls of the network one after another, see
                `translate_speculatively`.
            method: of the diffusion: ``"adams"``, of second order, or ``"euler"``; by default as in training.
            seed: seed of the noise, one for all samples or one for each; the global stream by default.
            generator: source of the noise, instead of ``seed``: one, or one for each sample.
            batch_size: samples per call of the network; all at once by default.
            return_path: return every state, shape ``[k, n, *event]``, in place of the last one ``[n, *event]``.

        Raises:
            ValueError: an option out of range, wrong event shape, or not one seed for each sample.
        """
        x = self._input(x)
        flag = self._checked(x, direction)
        if sampler not in ("sde", "ode", "speculative"):
            raise ValueError(f"sampler must be 'sde', 'ode' or 'speculative', got {sampler!r}")
        for name, given in (("return_path", return_path), ("method", method is not None)):
            if given and sampler != "sde":
                raise ValueError(f"{name} is an option of sampler='sde', got sampler={sampler!r}")
        if sampler == "ode":
            return self.probability_flow(x, direction, num_steps=num_steps, times=times, batch_size=batch_size)
        source = generator if seed is None else _generators(seed, len(x))
        if sampler == "speculative":
            options = {"num_steps": num_steps, "times": times, "last_noise": last_noise, "batch_size": batch_size}
            return self.translate_speculatively(x, direction, generator=source, **options)[0]
        rollout = Rollout(
            self.ema.module,
            self.process,
            time_grid(_grid(times), num_steps, device=x.device),
            last_noise=self.last_noise if last_noise is None else last_noise,
            method=method or self.method,
            batch_size=batch_size,
        )
        rows = torch.full((len(x),), flag, device=x.device)
        return rollout(x, rows, generator=source, return_path=return_path)

    @torch.no_grad()
    def translate_speculatively(
        self,
        x: Num[Tensor | np.ndarray, "n *event"],
        direction: Direction = "forward",
        *,
        num_steps: int = 30,
        times: Times = "uniform",
        window: int = 8,
        policy: Policy = "stale",
        draft: Draft = "secant",
        last_noise: bool | None = None,
        seed: Seed | None = None,
        generator: Generators = None,
        batch_size: int | None = None,
    ) -> tuple[Float[Tensor, "n *event"], SpeculationInfo]:
        """Carry samples to the other end as ``translate(..., sampler="speculative")`` does, and say what it cost.

        The law is that of ``sampler="sde", method="euler"``, from other draws. The network is called fewer times in
        sequence and for more samples in all: it pays for few samples and many steps on a device that computes several
        samples in the time of one.

        Args:
            x: samples of π₀ (forward) or π₁ (backward).
            direction: as in `translate`.
            num_steps: steps of a named grid.
            times: spacing or grid, as in `translate`.
            window: steps that are drafted at once; the network is called with up to ``window + 1`` rows a sample.
            policy: how a draft goes on after a rejection, see `sbflow.integrator.simulate_speculative`.
            draft: ``"secant"``, None for a frozen drift, or a cheap drift (x, own-clock time ``[n]``) in the same
                direction. On trained translations of small images the secant saves a fifth of the frozen draft's calls.
            last_noise: as in `translate`.
            seed: as in `translate`.
            generator: as in `translate`.
            batch_size: samples that go on side by side; all at once by default.

        Raises:
            ValueError: an option out of range, wrong event shape, or not one seed for each sample.

        References:
            De Bortoli, Galashov, Gretton, Doucet, Accelerated Diffusion Models via Speculative Sampling, 2025.
        """
        x = self._input(x)
        flag = self._checked(x, direction)
        grid, network = time_grid(_grid(times), num_steps, device=x.device), self.ema.module.eval()
        source = generator if seed is None else _generators(seed, len(x))

        def drift(x: Tensor, u: Tensor) -> Tensor:
            return network(x, u.to(x.dtype), torch.full((len(x),), flag, device=x.device))

        parts = [
            simulate_speculative(
                euler_maruyama(drift, self.process.diffusion),
                piece,
                grid,
                window=window,
                policy=policy,
                draft=draft,
                last_noise=self.last_noise if last_noise is None else last_noise,
                generator=one,
            )
            for piece, one in _pieces(x, source, batch_size)
        ]
        return torch.cat([end for end, _ in parts]), SpeculationInfo.combined([info for _, info in parts])

    @torch.no_grad()
    def probability_flow(
        self,
        x: Num[Tensor | np.ndarray, "n *event"],
        direction: Direction = "forward",
        *,
        num_steps: int = 30,
        times: Times = "uniform",
        method: Literal["euler", "heun"] = "heun",
        batch_size: int | None = None,
    ) -> Float[Tensor, "n *event"]:
        """Carry samples along the deterministic flow ½ (f − b): the right marginals, not the bridge's coupling.

        Args:
            x: samples of π₀ (forward) or π₁ (backward).
            direction: as in `translate`.
            num_steps: steps of a named grid.
            times: spacing or grid, as in `translate`.
            method: order 1 or 2.
            batch_size: samples per call of the network.

        Raises:
            ValueError: an option out of range or wrong event shape.
        """
        x = self._input(x)
        flag = self._checked(x, direction)
        grid = time_grid(_grid(times), num_steps, device=x.device)
        field = in_pieces(self._velocity, batch_size)
        unused = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return solve_ode(lambda x, t: field(x, t, unused), x, grid if flag == 0 else 1 - grid, method=method)

    def _velocity(self, x: Tensor, t: Tensor, direction: Tensor) -> Tensor:
        """½ (f − b) at forward time t, both drifts from one call."""
        u = torch.stack([t, 1 - t]).to(x.dtype).repeat_interleave(len(x))
        both = torch.cat([direction, 1 - direction])
        forward, backward = self.ema.module.eval()(torch.cat([x, x]), u, both).chunk(2)
        return 0.5 * (forward - backward)

    def _input(self, x: Tensor | np.ndarray) -> Tensor:
        """Samples in the dtype of the module; an array on its device too."""
        if isinstance(x, Tensor):
            return x.to(self.drift.mean.dtype)
        # a copy: torch refuses foreign byte orders and reversed axes
        return torch.as_tensor(np.array(x, dtype=np.float64, order="C")).to(self.drift.mean)

    def _checked(self, x: Tensor, direction: Direction) -> int:
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be 'forward' or 'backward', got {direction!r}")
        if tuple(x.shape[1:]) != self.event_shape or x.ndim == 0:
            raise ValueError(f"x must have shape [n, {', '.join(map(str, self.event_shape))}], got {list(x.shape)}")
        return DIRECTIONS.index(direction)


def _grid(times: Times) -> Spacing | Tensor:
    return times if isinstance(times, str | Tensor) else torch.as_tensor(np.array(times, dtype=np.float64))


def _pieces(x: Tensor, generator: Generators, batch_size: int | None) -> Iterator[tuple[Tensor, Generators]]:
    """Samples by the batch, each with its source of noise."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    size = batch_size or max(len(x), 1)
    for start in range(0, max(len(x), 1), size):
        each = generator is not None and not isinstance(generator, torch.Generator)
        yield x[start : start + size], generator[start : start + size] if each else generator


def _generators(seed: Seed, n: int) -> Generators:
    """One generator, or one for each sample."""
    if isinstance(seed, int | np.integer):
        return seeded_generator(int(seed))
    seeds = seed.tolist() if isinstance(seed, Tensor | np.ndarray) else list(seed)
    if not isinstance(seeds, list):
        return seeded_generator(int(seeds))
    if len(seeds) != n:
        raise ValueError(f"seed must be one number or one for each sample: got {len(seeds)} for {n} samples")
    return [seeded_generator(int(one)) for one in seeds]
