"""An estimate as a figure."""

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sbflow.smc.evidence import Evidence

__all__ = ["portrait"]

MAX_MARGINALS = 6


def portrait(evidence: Evidence) -> Figure:
    """Effective sample sizes and log Ẑ along the path on top, one marginal per coordinate below.

    With two coordinates their scatter plot takes the place of the marginals.
    """
    marginals = _marginals(evidence)
    columns = max(2, len(marginals))
    figure = Figure(figsize=(2.4 * max(columns, 3), 5.4), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    _draw_path(evidence, *above.subplots(1, 2))
    if len(marginals) == 2:
        _draw_plane(marginals, below.subplots(1, 1))
    else:
        for axes, (name, values) in zip(below.subplots(1, len(marginals), squeeze=False)[0], marginals, strict=True):
            axes.hist(values.numpy(), bins=50, density=True)
            axes.set(xlabel=name, yticks=[])
    return figure


def _marginals(evidence: Evidence) -> list[tuple[str, Float[Tensor, " n"]]]:
    """Names and equally weighted values of the first coordinates of all parameters."""
    named = []
    for name, values in evidence.equally_weighted().items():
        flat = values.reshape(values.shape[0] * values.shape[1], -1).double().cpu()
        labels = [name] if values.ndim == 2 else [f"{name}[{i}]" for i in range(flat.shape[1])]
        named += list(zip(labels, flat.T, strict=True))
    return named[:MAX_MARGINALS]


def _draw_path(evidence: Evidence, left: Axes, right: Axes) -> None:
    left.plot(evidence.ess_path.cpu() / evidence.num_particles, marker="o", markersize=3)
    left.set(xlabel="level", ylabel="ESS / particles", ylim=(0, 1.05), title=str(evidence).splitlines()[0])
    right.plot(evidence.log_z_path.cpu(), marker="o", markersize=3)
    low, high = evidence.interval
    right.axhspan(low, high, alpha=0.2)
    right.set(xlabel="level", ylabel="estimate of log Z so far", title="95 % interval shaded")


def _draw_plane(marginals: list[tuple[str, Float[Tensor, " n"]]], axes: Axes) -> None:
    (name_x, x), (name_y, y) = marginals
    chosen = torch.linspace(0, len(x) - 1, min(len(x), 2000)).long()
    axes.scatter(x[chosen], y[chosen], s=3, alpha=0.5)
    axes.set(xlabel=name_x, ylabel=name_y)
