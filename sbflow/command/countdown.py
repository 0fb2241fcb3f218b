"""How far a long loop is, and how long it will still take."""

import sys
import time

from rich import progress as rich_progress

__all__ = ["Countdown"]


class Countdown:
    """A bar with the time left in a terminal; elsewhere a line per tenth, and none for what takes a moment.

    Args:
        what: name of the work.
        total: units of work.
        silent: say nothing.
    """

    def __init__(self, what: str, total: int, *, silent: bool = False) -> None:
        self.what = what
        self.total = total
        self.silent = silent
        self.done = 0
        self.printed = 0
        self.bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            disable=silent or not sys.stdout.isatty(),
        )

    def __enter__(self) -> "Countdown":
        self.start = self.last = time.perf_counter()
        self.task = self.bar.add_task(self.what, total=self.total)
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, units: int) -> None:
        """Count units that are done."""
        self.done += units
        self.bar.update(self.task, completed=self.done)
        now = time.perf_counter()
        due = now - self.last > 5 and (self.done - self.printed) * 10 >= self.total
        if self.bar.disable and not self.silent and due:
            left = (now - self.start) / self.done * (self.total - self.done)
            print(f"{self.what}: {self.done}/{self.total}, {now - self.start:.0f} s, {left:.0f} s left", flush=True)
            self.last, self.printed = now, self.done
