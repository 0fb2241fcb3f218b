"""A progress bar that speaks of steps and stages."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich import progress as rich_progress
from rich.console import Console

__all__ = ["Progress"]


class Progress(Callback):
    """Stage, steps, loss, key metric and time left, in a terminal; elsewhere one line per tenth of the run.

    Args:
        metric: the key metric; by default a validation metric where there is one, else one of training beside the loss.
    """

    def __init__(self, metric: str | None = None) -> None:
        self.metric = metric
        self.console = Console()
        self.bar: rich_progress.Progress | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar."""
        self.last_look = 0.0
        self.start = time.perf_counter()
        self.printed = trainer.global_step, 0.0
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        self.bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[numbers]}"),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task(str(module.stage), total=trainer.max_steps, numbers="")
        self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Move the bar; the loss is read, and with it the device waited for, at most twice a second."""
        if self.bar is not None and time.perf_counter() - self.last_look > 0.5:
            self.last_look = time.perf_counter()
            done = min(trainer.global_step, trainer.max_steps - 1)
            self.bar.update(
                self.task, completed=done + 1, description=str(module.stage), numbers=self._numbers(trainer)
            )
        elif self.bar is None and trainer.is_global_zero:
            self._print_tenth(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self._close(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message stands below it."""
        self._close(trainer)

    def _close(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step, numbers=self._numbers(trainer))
            self.bar.stop()
            self.bar = None

    def _print_tenth(self, trainer: Trainer, module: LightningModule) -> None:
        step, tenth = trainer.global_step, max(trainer.max_steps // 10, 1)
        if step % tenth or step == self.printed[0]:
            return
        seconds = time.perf_counter() - self.start
        # at the speed since the last line: stages differ in cost
        left = (seconds - self.printed[1]) / (step - self.printed[0]) * (trainer.max_steps - step)
        self.printed = step, seconds
        print(
            f"{module.stage}: step {step}/{trainer.max_steps}, {self._numbers(trainer)}, "
            f"{seconds:.0f} s, {left:.0f} s left",
            flush=True,
        )

    def _numbers(self, trainer: Trainer) -> str:
        """The loss and the key metric, as far as they are known."""
        known = trainer.callback_metrics
        others = sorted(name for name in known if name != "train/loss")
        chosen = [self.metric, *(name for name in others if name.startswith("val/")), *others]
        key = next((name for name in chosen if name in known), None)
        names = [name for name in ("train/loss", key) if name in known]
        return ", ".join(f"{name.removeprefix('train/')} {float(known[name]):.4g}" for name in names) or "loss …"
