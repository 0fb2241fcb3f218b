"""Schrödinger Bridge Flow: bridge matching, then online finetuning of one bidirectional network."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from lightning import LightningModule
from torch import Tensor, nn

from sbflow.algorithm.ema import averaged
from sbflow.integrator import euler_maruyama, simulate, solve_ode
from sbflow.loss import Pairs, bidirectional_pairs, bridge_matching
from sbflow.network import BridgeDrift
from sbflow.process import Brownian, uniform_times
from sbflow.tensor import Generators, seeded_generator

__all__ = ["Direction", "SchrodingerBridgeFlow"]

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")


class SchrodingerBridgeFlow(LightningModule):
    """Learns the Schrödinger bridge between two sets of samples (α-DSBM).

    Stage 1 is bridge matching on independent pairs. Stage 2 takes one optimiser step per fresh batch of pairs that
    the network's own average simulates: the forward drift learns on (x̂0, x1) with x̂0 made backwards from real x1, the
    backward drift on (x̂1, x0). The regression end point is always real data; the wrong pairing converges in silence to
    another coupling.

    Args:
        network: backbone with ``num_directions=2``, called with (x, u, direction).
        process: Brownian reference; its epsilon trades quality (large) for alignment (small).
        event_shape: shape of one sample.
        pretrain_steps: optimiser steps of stage 1.
        finetune_steps: optimiser steps of stage 2.
        num_steps: Euler–Maruyama steps of the rollouts in stage 2; `translate` has its own.
        last_noise: whether the last step of a rollout draws noise; right for plans, not for images.
        learning_rate: peak rate of stage 1.
        finetune_learning_rate: peak rate of stage 2; a tenth to a third of stage 1's.
        weight_decay: of AdamW.
        ema_decay: decay of the average that makes the rollouts and translates.
        cutoff: training times lie in [cutoff, 1 − cutoff].

    References:
        De Bortoli, Korshunova, Mnih, Doucet, "Schrödinger Bridge Flow for Unpaired Data Translation", 2024.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Brownian,
        event_shape: Sequence[int],
        *,
        pretrain_steps: int = 3000,
        finetune_steps: int = 1500,
        num_steps: int = 20,
        last_noise: bool = True,
        learning_rate: float = 1e-3,
        finetune_learning_rate: float = 3e-4,
        weight_decay: float = 0.0,
        ema_decay: float = 0.999,
        cutoff: float = 1e-3,
    ) -> None:
        super().__init__()
        if pretrain_steps < 1 or finetune_steps < 0:
            raise ValueError(
                f"need pretrain_steps >= 1 and finetune_steps >= 0, got {pretrain_steps} and {finetune_steps}"
            )
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        for name, rate in (("learning_rate", learning_rate), ("finetune_learning_rate", finetune_learning_rate)):
            if not rate > 0:
                raise ValueError(f"{name} must be positive, got {rate}")
        if not 0 < cutoff < 0.5:
            raise ValueError(f"cutoff must lie in (0, 0.5), got {cutoff}")
        self.process = process
        self.event_shape = tuple(event_shape)
        self.drift = BridgeDrift(network, event_shape, process.epsilon)
        self.ema = averaged(self.drift, ema_decay)
        self.pretrain_steps = pretrain_steps
        self.finetune_steps = finetune_steps
        self.num_steps = num_steps
        self.last_noise = last_noise
        self.learning_rate = learning_rate
        self.finetune_learning_rate = finetune_learning_rate
        self.weight_decay = weight_decay
        self.cutoff = cutoff

    @property
    def max_steps(self) -> int:
        """Optimiser steps of both stages."""
        return self.pretrain_steps + self.finetune_steps

    @property
    def stage(self) -> Literal["pretrain", "finetune"]:
        """The stage that the next training step belongs to."""
        return "pretrain" if self.global_step < self.pretrain_steps else "finetune"

    def translate(
        self,
        x: Float[Tensor, "n *event"],
        direction: Direction = "forward",
        *,
        num_steps: int = 30,
        last_noise: bool | None = None,
        seed: int | None = None,
        generator: Generators = None,
    ) -> Float[Tensor, "n *event"]:
        """Carry samples to the other end with the averaged network.

        Args:
            x: samples of π₀ (forward) or π₁ (backward).
            direction: ``"forward"`` from x0 to x1, ``"backward"`` from x1 to x0.
            num_steps: Euler–Maruyama steps; more than in training's rollouts costs little here and helps.
            last_noise: by default as in training.
            seed: seed of the noise; the global stream by default.
            generator: source of the noise, instead of ``seed``.

        Raises:
            ValueError: unknown direction, wrong event shape or ``num_steps`` below 1.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be 'forward' or 'backward', got {direction!r}")
        if tuple(x.shape[1:]) != self.event_shape:
            raise ValueError(f"x must have shape [n, {', '.join(map(str, self.event_shape))}], got {list(x.shape)}")
        if seed is not None:
            generator = seeded_generator(seed)
        x = x.to(self.drift.mean.dtype)
        flag = torch.full((len(x),), DIRECTIONS.index(direction), device=x.device)
        noise = self.last_noise if last_noise is None else last_noise
        return self._rollout(x, flag, num_steps, noise, generator)

    @torch.no_grad()
    def probability_flow(
        self,
        x: Float[Tensor, "n *event"],
        direction: Direction = "forward",
        *,
        num_steps: int = 30,
        method: Literal["euler", "heun"] = "heun",
    ) -> Float[Tensor, "n *event"]:
        """Carry samples along the deterministic flow ½ (f − b): the right marginals, not the bridge's coupling."""
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be 'forward' or 'backward', got {direction!r}")
        times = uniform_times(num_steps, device=x.device)
        return solve_ode(self._velocity, x, times if direction == "forward" else times.flip(0), method=method)

    def on_fit_start(self) -> None:
        """Measure the moments of the data, unless a checkpoint brought them."""
        if not self.drift.measured:
            split = self.trainer.datamodule.split("train")
            self.drift.measure(split.x0, split.x1)
            self.ema.module.load_state_dict(self.drift.state_dict())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin stage 2 with a fresh optimiser: the moments of stage 1 belong to another loss."""
        if self.global_step == self.pretrain_steps:
            self.optimizers().optimizer.state.clear()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One bridge-matching step on the pairs of the current stage."""
        pairs = self._pairs(batch["x0"], batch["x1"])
        weight = self.drift.relative_precision
        loss = bridge_matching(self.drift, self.process, pairs, weight=weight, cutoff=self.cutoff)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average: once per optimiser step whatever the accumulation."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.drift)

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam with a warm-up and a cosine decay in each stage."""
        optimizer = torch.optim.AdamW(
            self.drift.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay
        )
        # a plain function: the scheduler would pickle a bound method into the checkpoint
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._rate(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        """Learning rate over the peak of stage 1."""
        if step < self.pretrain_steps:
            return _warm_cosine(step, self.pretrain_steps)
        share = self.finetune_learning_rate / self.learning_rate
        return share * _warm_cosine(step - self.pretrain_steps, self.finetune_steps)

    def _pairs(self, x0: Tensor, x1: Tensor) -> Pairs:
        """Independent pairs in stage 1, pairs simulated by the averaged network in stage 2."""
        if self.stage == "pretrain":
            half = len(x0) // 2 or 1
            return bidirectional_pairs((x0[:half], x1[:half]), (x1[half:], x0[half:]))
        direction = torch.zeros(len(x0) + len(x1), dtype=torch.long, device=x0.device)
        direction[len(x0) :] = 1
        ends = self._rollout(torch.cat([x0, x1]), direction, self.num_steps, self.last_noise)
        x1_hat, x0_hat = ends.split([len(x0), len(x1)])
        self.log("train/msd", ((x1_hat - x0) ** 2).mean())
        self.log("train/variance_ratio", x1_hat.var() / x1.var())
        return bidirectional_pairs((x0_hat, x1), (x1_hat, x0))

    @torch.no_grad()
    def _rollout(
        self,
        x: Float[Tensor, "n *event"],
        direction: Int[Tensor, " n"],
        num_steps: int,
        last_noise: bool,
        generator: Generators = None,
    ) -> Float[Tensor, "n *event"]:
        """Simulate each row in its own direction, both in one batch."""
        drift = self.ema.module.eval()
        kernel = euler_maruyama(lambda x, u: drift(x, u.to(x.dtype).reshape(1), direction), self.process.diffusion)
        times = uniform_times(num_steps, device=x.device)
        return simulate(kernel, x, times, last_noise=last_noise, generator=generator)

    def _velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """½ (f − b) at forward time t, both drifts from one call."""
        u = torch.stack([t, 1 - t]).to(x.dtype).repeat_interleave(len(x))
        direction = torch.tensor([0, 1], device=x.device).repeat_interleave(len(x))
        forward, backward = self.ema.module.eval()(torch.cat([x, x]), u, direction).chunk(2)
        return 0.5 * (forward - backward)


def _warm_cosine(step: int, total: int, warmup: float = 0.02, floor: float = 0.01) -> float:
    """Linear warm-up over a share of the steps, then a half cosine down to ``floor``."""
    done = (step + 1) / max(total, 1)
    if done < warmup:
        return done / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min((done - warmup) / (1 - warmup), 1)))
