"""Quality of one trained run against the number of steps of its sampler."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from sbflow.figure.panels import label, main_keys, panels, variants

__all__ = ["QualityAgainstSteps"]

Metric = Callable[[Any, Any], dict[str, float]]
"""(module, data) -> numbers by name; its attribute ``num_steps`` is the sampler's."""


class QualityAgainstSteps:
    """One panel for each number of a metric, over the steps of the sampler; both directions in one panel.

    Args:
        metric: the metric, measured anew for every number of steps.
        num_steps: numbers of steps, at least two.
        keys: numbers to draw, as the metric names them; by default all that depend on the steps.

    Raises:
        ValueError: fewer than two numbers of steps, or a metric that has none.
    """

    def __init__(
        self, metric: Metric, *, num_steps: Sequence[int] = (5, 10, 20, 50, 100), keys: Sequence[str] = ()
    ) -> None:
        if len(set(num_steps)) < 2 or min(num_steps) < 1:
            raise ValueError(f"num_steps must hold at least two different positive numbers, got {list(num_steps)}")
        if not hasattr(metric, "num_steps"):
            raise ValueError(f"figure QualityAgainstSteps needs a metric with num_steps, got {type(metric).__name__}")
        self.metric = metric
        self.num_steps = sorted(set(num_steps))
        self.keys = tuple(keys)

    def check(self, module: object, data: object) -> None:
        """Refuse what the metric refuses."""
        check: Callable[[object, object], None] = getattr(self.metric, "check", lambda *_: None)
        check(module, data)

    def __call__(self, module: Any, data: Any) -> Figure:
        """Measure and draw."""
        rows = [self._measure(module, data, count) for count in self.num_steps]
        varying = [key for key in rows[0] if len({row[key] for row in rows}) > 1]
        keys = main_keys(self.keys or varying)
        figure, axes = panels(len(keys))
        for key, one in zip(keys, axes, strict=True):
            for name, style, legend in variants(key, rows[0]):
                one.plot(self.num_steps, [row[name] for row in rows], style, markersize=4, label=legend)
            one.set(xscale="log", xlabel="steps of the sampler", ylabel=label(key))
            one.set_xticks(self.num_steps, [str(count) for count in self.num_steps])
            one.minorticks_off()
            if len(one.lines) > 1:
                one.legend(frameon=False, fontsize=8)
        return figure

    def _measure(self, module: Any, data: Any, count: int) -> dict[str, float]:
        metric = copy.copy(self.metric)
        metric.num_steps = count  # type: ignore[attr-defined]
        return metric(module, data)
