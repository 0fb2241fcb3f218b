"""Resampling 10³ to 10⁷ particles, against the library particles.

python benchmarks/resampling_speed.py --sizes 1000 10000 100000 1000000 10000000

From log-weights to the indices of the ancestors, normalising included, on one thread; medians in processor seconds,
taken in turns. ``floor_ms`` is the time of copying the log-weights and the indices once. Writes
``resampling_speed.csv`` and ``resampling_speed.png``.
"""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from measured import RESULTS, write_rows
from particles import resampling as peer
from seconds import interleaved

from sbflow.smc import resampling_scheme

SCHEMES = ("systematic", "stratified", "multinomial", "residual", "ssp")


def rows_of(size: int, repeats: int) -> list[dict]:
    """One row for each scheme."""
    log_weights = torch.randn(1, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    theirs, generator = log_weights[0].numpy(), torch.Generator().manual_seed(0)
    indices = torch.arange(size)
    # the loops of particles are compiled at their first call, which is not timed
    floor = interleaved({"copy": lambda: (log_weights.clone(), indices.clone())}, repeats)["copy"]
    rows = []
    for scheme in SCHEMES:
        ours = resampling_scheme(scheme)
        seconds = interleaved(
            {
                "sbflow": lambda ours=ours: ours(log_weights, generator),
                "particles": lambda scheme=scheme: peer.resampling(scheme, peer.Weights(theirs).W),
            },
            repeats,
            times=max(1, 100_000 // size),
        )
        rows.append(
            {
                "scheme": scheme,
                "size": size,
                "repeats": repeats,
                "sbflow_ms": round(1e3 * seconds["sbflow"], 4),
                "particles_ms": round(1e3 * seconds["particles"], 4),
                "ratio": round(seconds["sbflow"] / seconds["particles"], 3),
                "floor_ms": round(1e3 * floor, 4),
                "gap": round(seconds["sbflow"] / floor, 1),
            }
        )
    return rows


def draw(rows: list[dict]) -> None:
    """Nanoseconds a particle."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for index, scheme in enumerate(SCHEMES):
        shown = [row for row in rows if row["scheme"] == scheme]
        sizes = np.array([row["size"] for row in shown])
        for name, style in (("sbflow", "-"), ("particles", "--")):
            axes.plot(
                sizes,
                1e6 * np.array([row[f"{name}_ms"] for row in shown]) / sizes,
                style,
                color=f"C{index}",
                label=f"{scheme}, {name}",
            )
    axes.set(xscale="log", yscale="log", xlabel="particles", ylabel="nanoseconds a particle")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(RESULTS / "resampling_speed.png", dpi=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**k for k in range(3, 8)])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        rows += rows_of(size, arguments.repeats)
        print(*rows[-len(SCHEMES) :], sep="\n", flush=True)
    print(write_rows("resampling_speed.csv", rows))
    draw(rows)


if __name__ == "__main__":
    main()
