"""When training is saved, and when it ends early."""

import math
import signal
import time
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

__all__ = ["Checkpoints"]


class Checkpoints(Callback):
    """Saves ``last.ckpt`` at intervals and on SIGTERM, and the best model by a validation metric as ``best.ckpt``.

    Stages train for different losses, so each (``module.stage``, where there is one) has its own best value and its own
    count of validations: ``best.ckpt`` is of the last stage reached, and only ``module.last_stage`` ends early.

    Args:
        every_steps: optimiser steps between two checkpoints.
        every_minutes: minutes after which one is due all the same; None counts steps alone.
        monitor: validation metric (``"val/…"``) that decides which model is the best; None validates nothing.
        validate_every: optimiser steps between two validations, where there is a ``monitor``.
        mode: whether a small or a large value of it is good.
        patience: the last stage ends after that many validations in a row without a better value; None goes to the end.

    Raises:
        ValueError: an interval below 1, or ``patience`` without ``monitor``.
    """

    def __init__(
        self,
        *,
        every_steps: int = 500,
        every_minutes: float | None = 10.0,
        monitor: str | None = None,
        validate_every: int = 500,
        mode: Literal["min", "max"] = "min",
        patience: int | None = None,
    ) -> None:
        for name, value in (("every_steps", every_steps), ("validate_every", validate_every)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if every_minutes is not None and not every_minutes > 0:
            raise ValueError(f"every_minutes must be positive or null, got {every_minutes}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        if patience is not None and (patience < 1 or monitor is None):
            raise ValueError(f"patience must be at least 1 and needs monitor=METRIC, got {patience} with {monitor}")
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.monitor = monitor
        self.validate_every = validate_every
        self.mode = mode
        self.patience = patience
        self.best = math.inf
        self.validations_since_best = 0
        self.stage: str | None = None
        self.terminated = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock; of several processes let none leave the others for a SIGTERM of its own."""
        self.saved_step = trainer.global_step
        self.saved_time = time.monotonic()
        self._enter_stage(module)
        # a run that ended early has ended, however often it is resumed
        trainer.should_stop = trainer.should_stop or self._out_of_patience(module)
        if trainer.world_size > 1:
            # Lightning's own handler lets the processes meet wherever they are, in the middle of a step
            signal.signal(signal.SIGTERM, self._take_note)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Note the stage of this step: the validation after a stage's last step is still that stage's."""
        self._enter_stage(module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Save where a checkpoint is due; under gradient accumulation once per optimiser step."""
        step = trainer.global_step
        if step != self.saved_step and (step % self.every_steps == 0 or self._urgent(trainer)):
            trainer.save_checkpoint(_folder(trainer) / "last.ckpt")
            self.saved_step, self.saved_time = step, time.monotonic()
            if trainer.world_size > 1 and _any(trainer, self.terminated):
                # now that all are saved, all stop after this very step
                trainer._signal_connector.received_sigterm = True

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the stage's best model, and stop the last stage when there has been no better one for long."""
        if self.monitor is None or trainer.sanity_checking:
            return
        value = self._value(trainer)
        if value < self.best:
            self.best, self.validations_since_best = value, 0
            trainer.save_checkpoint(_folder(trainer) / "best.ckpt")
            return
        self.validations_since_best += 1
        if self._out_of_patience(module):
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Say so if training ended early; the progress bar is closed by now."""
        if trainer.is_global_zero and trainer.global_step < trainer.max_steps and self._out_of_patience(module):
            print(
                f"stopped early at step {trainer.global_step} of {trainer.max_steps}: no better {self.monitor} in "
                f"{self.validations_since_best} validations (callback.patience={self.patience})",
                flush=True,
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "validations_since_best": self.validations_since_best, "stage": self.stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the stage's best value so far; older checkpoints do not name the stage."""
        self.best = state_dict["best"]
        self.validations_since_best = state_dict["validations_since_best"]
        self.stage = state_dict.get("stage")

    def _enter_stage(self, module: LightningModule) -> None:
        """Begin anew where the stage is another one than before."""
        stage = getattr(module, "stage", None)
        if self.stage not in (None, stage):
            self.best, self.validations_since_best = math.inf, 0
        self.stage = stage

    def _out_of_patience(self, module: LightningModule) -> bool:
        """Whether the last stage has gone on for too long without a better value."""
        if self.patience is None or self.validations_since_best < self.patience:
            return False
        return bool(self.stage == getattr(module, "last_stage", self.stage))

    def _take_note(self, *_: Any) -> None:
        self.terminated = True

    def _urgent(self, trainer: Trainer) -> bool:
        """The clock or a SIGTERM asks for it, in any of the processes."""
        waited = time.monotonic() - self.saved_time
        late = self.every_minutes is not None and waited > 60 * self.every_minutes
        return _any(trainer, late or self.terminated or trainer.received_sigterm)

    def _value(self, trainer: Trainer) -> float:
        """The monitored metric, so that smaller is better; NaN counts as the worst."""
        known = trainer.callback_metrics
        if self.monitor not in known:
            names = ", ".join(sorted(name for name in known if name.startswith("val/"))) or "none"
            raise ValueError(
                f"callback.monitor={self.monitor} is not a validation metric of this run; there are: {names}"
            )
        value = float(known[self.monitor])
        return math.inf if math.isnan(value) else value if self.mode == "min" else -value


def _any(trainer: Trainer, decision: bool) -> bool:
    """Whether one of the processes says so, known to all of them."""
    return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"
