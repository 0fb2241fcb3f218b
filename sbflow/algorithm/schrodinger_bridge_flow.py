"""Schrödinger Bridge Flow: bridge matching, then finetuning on pairs that the network simulates."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from sbflow.algorithm.compiled import Compile, compile_networks, leave_compiled
from sbflow.algorithm.diagnostics import consistency, energy_distance, generated, translations
from sbflow.algorithm.ema import averaged, check_decay
from sbflow.algorithm.fused import may_fuse
from sbflow.algorithm.guard import FiniteLoss, Inflation, stays_at_source
from sbflow.algorithm.translation import DIRECTIONS, BridgeTranslation, Direction
from sbflow.coupling import Coupling, CouplingName, Independent, Method, Rollout, named_coupling
from sbflow.integrator import Spacing, time_grid
from sbflow.loss import EndScores, Pairs, bridge_matching
from sbflow.network.drift import BridgeDrift, Parametrisation, TwoNetworks
from sbflow.process import Brownian
from sbflow.target import Target
from sbflow.tensor import randn_like, seed_streams, seeded_generator

__all__ = ["Direction", "SchrodingerBridgeFlow"]

TRIAL_STEPS = 100
"""A stage 2 below this many steps is a trial run, which a guard does not refuse."""


class SchrodingerBridgeFlow(BridgeTranslation):
    """Learns the Schrödinger bridge between two sets of samples.

    Stage 1 is bridge matching on given pairs, stage 2 on pairs that the network's own average simulates; the two
    couplings make it α-DSBM (the default), bridge matching alone, iterative DSBM or DSBM-IPF. The regression end point
    is always real data; the wrong pairing converges in silence to another coupling.

    The randomness of a training step is a function of one number, drawn when training begins and kept in checkpoints,
    and of the step: a resumed run goes on exactly as the undisturbed one.

    Args:
        network: backbone with ``num_directions=2``, called with (x, u, direction).
        process: Brownian reference; its epsilon trades quality (large) for alignment (small).
        event_shape: shape of one sample.
        coupling: pairs of stage 2, an object of `sbflow.coupling` or its name.
        pretrain_coupling: pairs of stage 1.
        parametrisation: what the network predicts, see `BridgeDrift`.
        bidirectional: one network for both directions; False copies it into one for each.
        pretrain_steps: optimiser steps of stage 1.
        finetune_steps: optimiser steps of stage 2.
        num_steps: steps of the rollouts in stage 2; `translate` has its own.
        times: their spacing; ``"quadratic"`` where an end is narrow against epsilon.
        last_noise: whether the last step of a rollout draws noise; right for plans, not for images.
        method: of rollouts and translations: ``"adams"``, of second order, or ``"euler"``, that of the papers.
        learning_rate: peak rate of stage 1.
        finetune_learning_rate: peak rate of stage 2; a third to half of stage 1's suits points, images want half to all
            of it, or the network falls behind the coupling.
        weight_decay: of AdamW, at least 0.
        ema_decay: decay of the average that makes the rollouts and translates.
        finetune_ema_decay: decay in stage 2, without the warm-up of the average; None goes on as in stage 1. It sets
            how fast the coupling moves: the nearer to 1, the more steps the same way takes, and the better it is gone.
        cutoff: training times lie in [cutoff, 1 − cutoff].
        end_scores: densities of π₀ and π₁ where known, for labels of less variance in stage 1; see `EndScores`.
        guard: what to do when stage 1 has not left the source: ``"refuse"`` stage 2 (a trial of fewer than 100 steps is
            only warned of), ``"warn"``, or ``"off"``.
        compile: compile the network for training: True, False, or ``"auto"`` on CUDA devices alone.

    References:
        De Bortoli, Korshunova, Mnih, Doucet, "Schrödinger Bridge Flow for Unpaired Data Translation", 2024.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Brownian,
        event_shape: Sequence[int],
        *,
        coupling: Coupling | CouplingName = "online",
        pretrain_coupling: Coupling | CouplingName = "independent",
        parametrisation: Parametrisation = "drift",
        bidirectional: bool = True,
        pretrain_steps: int = 3000,
        finetune_steps: int = 1500,
        num_steps: int = 20,
        times: Spacing = "uniform",
        last_noise: bool = True,
        method: Method = "adams",
        learning_rate: float = 1e-3,
        finetune_learning_rate: float = 3e-4,
        weight_decay: float = 0.0,
        ema_decay: float = 0.999,
        finetune_ema_decay: float | None = None,
        cutoff: float = 1e-3,
        end_scores: Sequence[Target | None] = (None, None),
        guard: Literal["refuse", "warn", "off"] = "refuse",
        compile: Compile = "auto",
    ) -> None:
        super().__init__()
        if pretrain_steps < 1 or finetune_steps < 0:
            raise ValueError(
                f"need pretrain_steps >= 1 and finetune_steps >= 0, got {pretrain_steps} and {finetune_steps}"
            )
        time_grid(times, num_steps)
        if method not in ("adams", "euler"):
            raise ValueError(f"method must be 'adams' or 'euler', got {method!r}")
        for name, rate in (("learning_rate", learning_rate), ("finetune_learning_rate", finetune_learning_rate)):
            if not rate > 0:
                raise ValueError(f"{name} must be positive, got {rate}")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite and at least 0, got {weight_decay}")
        if not 0 < cutoff < 0.5:
            raise ValueError(f"cutoff must lie in (0, 0.5), got {cutoff}")
        if compile not in (True, False, "auto"):
            raise ValueError(f"compile must be true, false or auto, got {compile!r}")
        if guard not in ("refuse", "warn", "off"):
            raise ValueError(f"guard must be 'refuse', 'warn' or 'off', got {guard!r}")
        self.coupling = named_coupling(coupling, "coupling")
        self.pretrain_coupling = named_coupling(pretrain_coupling, "pretrain_coupling")
        if self.pretrain_coupling.simulates:
            raise ValueError("pretrain_coupling must not simulate the network, which knows no way yet")
        self.end_scores = EndScores.of(end_scores, event_shape, isinstance(self.pretrain_coupling, Independent))
        self.process = process
        self.event_shape = tuple(event_shape)
        backbone = network if bidirectional else TwoNetworks(network)
        self.drift = BridgeDrift(backbone, event_shape, process.epsilon, parametrisation=parametrisation)
        self.ema = averaged(self.drift, ema_decay)
        if finetune_ema_decay is not None:
            check_decay("finetune_ema_decay", finetune_ema_decay)
        self.finetune_ema_decay = finetune_ema_decay
        self.pretrain_steps = pretrain_steps
        self.finetune_steps = finetune_steps
        self.last_stage = "finetune" if finetune_steps > 0 else "pretrain"
        self.num_steps, self.times = num_steps, times
        self.last_noise, self.method = last_noise, method
        self.learning_rate = learning_rate
        self.finetune_learning_rate = finetune_learning_rate
        self.weight_decay = weight_decay
        self.cutoff = cutoff
        self.guard = guard
        self.compile_choice: Compile = compile
        self._stream: int | None = None
        self._micro = (-1, 0)
        self._finite = FiniteLoss()
        self._inflation = Inflation()

    @property
    def max_steps(self) -> int:
        """Optimiser steps of both stages."""
        return self.pretrain_steps + self.finetune_steps

    @property
    def stage(self) -> Literal["pretrain", "finetune"]:
        """The stage that the next training step belongs to."""
        return "pretrain" if self.global_step < self.pretrain_steps else "finetune"

    def on_fit_start(self) -> None:
        """Measure the moments of the data and draw the stream, unless a checkpoint brought them."""
        if not self.drift.measured:
            split = self.trainer.datamodule.split("train")
            self.drift.measure(split.x0, split.x1)
            self.ema.module.load_state_dict(self.drift.state_dict())
        if self._stream is None:
            self._stream = int(torch.randint(2**31, ()))
        # weights in shards have hooks, which nobody has compiled here yet
        choice = False if self.compile_choice == "auto" and self.device_mesh is not None else self.compile_choice
        compile_networks([self.drift, self.ema.module], choice, self.device, self._call_networks)

    def on_fit_end(self) -> None:
        """What follows may run on another device."""
        leave_compiled([self.drift, self.ema.module])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Fix the step's randomness; begin stage 2 with a fresh optimiser, whose moments belong to another loss."""
        step = self.global_step
        self._micro = (step, self._micro[1] + 1 if self._micro[0] == step else 0)
        seed_streams(seeded_generator(self._stream, self.global_rank, *self._micro).initial_seed(), self.device)
        if self._micro[1] > 0:
            return
        if step == self.pretrain_steps:
            self._check_departure(len(batch["x0"]))
        coupling, stage_step = self._current()
        if coupling.restarts(stage_step):
            self.optimizers().optimizer.state.clear()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One bridge-matching step on the pairs of the current stage."""
        coupling, step = self._current()
        with torch.no_grad():
            pairs = coupling.pairs(batch["x0"], batch["x1"], self._rollout(batch["x0"]), step)
        loss = bridge_matching(
            self.drift,
            self.process,
            pairs,
            weight=lambda u: self.drift.weight(u, pairs.direction),
            cutoff=self.cutoff,
            end_scores=self.end_scores if self.stage == "pretrain" else (None, None),
        )
        self._finite.see(loss, self.global_step)
        every, step = self.trainer.log_every_n_steps, self.global_step + 1
        due = every and step % every == 0
        if due or step == self.max_steps:
            self.log("train/loss", loss, prog_bar=True)
        if due:
            self._log_progress(pairs, simulated=coupling.simulates)
        return loss

    @torch.no_grad()
    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Distance of translations from the other end; ``val/energy_distance`` is the one to watch, lower is better."""
        generator = seeded_generator(0, batch_idx)
        ends = batch["x0"], batch["x1"]
        distances = []
        for flag, direction in enumerate(DIRECTIONS):
            source, target = ends[flag], ends[1 - flag]
            made = self.translate(source, direction, num_steps=self.num_steps, generator=generator)
            values = generated(source, made, self.drift.mean[1 - flag], self.drift.variance[1 - flag])
            distances.append(energy_distance(made, target))
            self._log_validation(f"energy_distance_{direction}", distances[-1], len(source))
            self._log_validation(f"msd_{direction}", values.msd, len(source))
            self._log_validation(f"variance_ratio_{direction}", values.variance_ratio, len(source))
        self._log_validation("energy_distance", sum(distances) / 2, len(batch["x0"]))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average: once per optimiser step whatever the accumulation."""
        stage = self.stage
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.drift, self.finetune_ema_decay if stage == "finetune" else None)

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam with a warm-up and a cosine decay in each stage."""
        optimizer = torch.optim.AdamW(
            self.drift.parameters(),
            lr=self.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.weight_decay,
            fused=may_fuse(self) or None,
        )
        # a plain function: the scheduler would pickle a bound method into the checkpoint
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._rate(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the stream and the state of the coupling; a state after a bad loss is not worth a file.

        Raises:
            FloatingPointError: the loss was not finite.
        """
        self._finite.check()
        coupling, _ = self._current()
        checkpoint["schrodinger_bridge_flow"] = {
            "format": 1,
            "stream": self._stream,
            "coupling": coupling.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the stream and the state of the coupling; checkpoints of version 0.1 have none."""
        self._take_own_rates(checkpoint)
        state = checkpoint.get("schrodinger_bridge_flow")
        if state is None:
            return
        self._stream = state["stream"]
        step = checkpoint["global_step"]
        # between the stages there is no state yet, and the coupling of stage 2 may be another one than it was
        if step != self.pretrain_steps:
            (self.pretrain_coupling if step < self.pretrain_steps else self.coupling).load_state_dict(state["coupling"])

    def _take_own_rates(self, checkpoint: dict[str, Any]) -> None:
        """Let the next step have the rate of these options: the checkpoint brings that of those it was saved with."""
        for schedule in checkpoint.get("lr_schedulers", []):
            schedule["base_lrs"] = [self.learning_rate for _ in schedule["base_lrs"]]
        for optimizer in checkpoint.get("optimizer_states", []):
            for group in optimizer["param_groups"]:
                group["lr"] = self.learning_rate * self._rate(checkpoint["global_step"])

    @torch.no_grad()
    def _call_networks(self) -> None:
        """Call both networks on zeros, at a time for each row and at one for all, as training will."""
        x = torch.zeros(2, *self.event_shape, device=self.device, dtype=self.dtype)
        with self.trainer.precision_plugin.forward_context():
            for network, times in product((self.drift, self.ema.module), (1, 2)):
                training = network.training
                # statistics of batches are not those of zeros
                network.eval()(x, x.new_full((times,), 0.5), torch.arange(2, device=self.device))
                network.train(training)

    def _current(self) -> tuple[Coupling, int]:
        """The coupling of the next step, and the steps since its stage began."""
        if self.stage == "pretrain":
            return self.pretrain_coupling, self.global_step
        return self.coupling, self.global_step - self.pretrain_steps

    def _rollout(self, x: Tensor) -> Rollout:
        times = time_grid(self.times, self.num_steps, device=x.device)
        return Rollout(self.ema.module, self.process, times, last_noise=self.last_noise, method=self.method)

    def _rate(self, step: int) -> float:
        """Learning rate over the peak of stage 1."""
        if step < self.pretrain_steps:
            return _warm_cosine(step, self.pretrain_steps)
        share = self.finetune_learning_rate / self.learning_rate
        return share * _warm_cosine(step - self.pretrain_steps, self.finetune_steps)

    def _check_departure(self, batch_size: int) -> None:
        """Refuse, or warn of, finetuning a network that has not learned the way."""
        trained = self.pretrain_coupling.bidirectional and self.coupling.simulates
        if self.guard == "off" or not trained or self.trainer.datamodule is None:
            return
        split = self.trainer.datamodule.split("train")
        ends = [_some(x, min(512, 4 * batch_size)).to(self.device) for x in (split.x0, split.x1)]
        for flag, direction in enumerate(DIRECTIONS):
            made = self.translate(ends[flag], direction, num_steps=self.num_steps, seed=0, batch_size=batch_size)
            blurred = self._untrained(ends[flag], flag)
            reason = stays_at_source(ends[flag], made, blurred, ends[1 - flag], direction)
            if reason and self.guard == "refuse" and self.finetune_steps >= TRIAL_STEPS:
                raise ValueError(f"{reason}; guard=warn goes on all the same")
            if reason:
                rank_zero_warn(reason)

    def _untrained(self, x: Tensor, flag: int) -> Tensor:
        """What a network without training makes of x: the shift of the means, and the noise."""
        noise = randn_like(x, seeded_generator(0, flag))
        return x + self.drift.mean[1 - flag] - self.drift.mean[flag] + self.process.epsilon**0.5 * noise

    @torch.no_grad()
    def _log_progress(self, pairs: Pairs, *, simulated: bool) -> None:
        """Moments of the translations and consistency of the drifts, on the pairs of this step."""
        drift = self.ema.module.eval()
        bridge = getattr(self.trainer.datamodule, "bridge", None)
        exact = bridge(self.process.epsilon) if callable(bridge) else None
        self.log_dict({f"train/{name}": value for name, value in consistency(drift, pairs, exact).items()})
        if not simulated:
            return
        for flag, direction in enumerate(DIRECTIONS):
            made, source = translations(pairs, flag)
            if len(made) == 0:
                continue
            values = generated(source, made, self.drift.mean[1 - flag], self.drift.variance[1 - flag])
            suffix = "" if direction == "forward" else "_backward"
            self.log_dict({f"train/{name}{suffix}": value for name, value in values._asdict().items()})
            self._inflation.see(float(values.variance_ratio), direction)

    def _log_validation(self, name: str, value: Tensor, n: int) -> None:
        self.log(f"val/{name}", value, batch_size=n, on_step=False, on_epoch=True, sync_dist=True)


def _some(x: Tensor, n: int) -> Tensor:
    """A fixed random subset of rows: sets may come sorted."""
    return x[torch.randperm(len(x), generator=seeded_generator(0, len(x)))[:n]]


def _warm_cosine(step: int, total: int, warmup: float = 0.02, floor: float = 0.01) -> float:
    """Linear warm-up over a share of the steps, then a half cosine down to ``floor``."""
    done = (step + 1) / max(total, 1)
    if done < warmup:
        return done / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min((done - warmup) / (1 - warmup), 1)))
