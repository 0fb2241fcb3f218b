"""Forward and backward pass of U-Nets against the matrix products that the machine is capable of.

python benchmarks/unet_peak.py --repeats 5

``fraction`` is the rate of the pass (operations by torch's own counter over median processor seconds) over the measured
rate of a product of 1024 × 1024 matrices in the same precision; ``floor_ms`` is what the pass would take at that rate
and ``gap`` its inverse. Precisions and memory layouts take turns. Writes ``unet_peak.csv`` and ``unet_peak.png``.
"""

import argparse
from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from measured import RESULTS, write_rows
from seconds import interleaved, matmul_rate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sbflow.network import UNet, UNet28, UNetSmall

NETWORKS: dict[str, Callable[[bool], nn.Module]] = {
    "unet_small": lambda last: UNetSmall((1, 28, 28), num_directions=2, channels_last=last),
    "unet_width_32": lambda last: UNet((1, 28, 28), width=32, num_directions=2, channels_last=last),
    "unet_28": lambda last: UNet28((1, 28, 28), num_directions=2, channels_last=last),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def passes(name: str, batch_size: int) -> dict[tuple[str, bool], Callable[[], None]]:
    """Forward and backward pass, by precision and by whether activations are channels-last."""
    x, t = torch.randn(batch_size, 1, 28, 28), torch.rand(batch_size)
    direction = torch.arange(batch_size) % 2

    def call(network: nn.Module, dtype: torch.dtype) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = network(x, t, direction)
        network.zero_grad()
        (out.float() ** 2).mean().backward()

    found = {}
    for last in (False, True):
        network = NETWORKS[name](last)
        # a network that returns zeros has no gradient to send back
        nn.init.normal_(network.out.weight, std=0.02)
        for precision, dtype in PRECISIONS.items():
            found[precision, last] = lambda network=network, dtype=dtype: call(network, dtype)
    return found


def rows_of(name: str, arguments: argparse.Namespace, rates: dict[str, float]) -> list[dict]:
    """One row for each precision and layout."""
    calls = passes(name, arguments.batch_size)
    with FlopCounterMode(display=False) as counter:
        calls["float32", False]()
    count = counter.get_total_flops()
    seconds = interleaved(calls, arguments.repeats)
    plain = seconds["float32", False]
    return [
        {
            "network": name,
            "batch_size": arguments.batch_size,
            "precision": precision,
            "channels_last": last,
            "repeats": arguments.repeats,
            "ms": round(1e3 * value, 2),
            "speed_up": round(plain / value, 3),
            "gflop": round(count / 1e9, 2),
            "peak_gflops": round(rates[precision] / 1e9, 1),
            "floor_ms": round(1e3 * count / rates[precision], 2),
            "gap": round(value * rates[precision] / count, 2),
            "fraction": round(count / value / rates[precision], 3),
        }
        for (precision, last), value in seconds.items()
    ]


def draw(rows: list[dict]) -> None:
    """Fractions of the peak."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    labels = [
        f"{row['network']}, {row['precision']}" + (", channels last" if row["channels_last"] else "") for row in rows
    ]
    axes.barh(labels, [row["fraction"] for row in rows])
    axes.set(xlabel="fraction of the matmul rate of the same precision", xlim=(0, 1))
    figure.savefig(RESULTS / "unet_peak.png", dpi=120)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rates = {name: matmul_rate(dtype) for name, dtype in PRECISIONS.items()}
    rows = [row for name in arguments.networks for row in rows_of(name, arguments, rates)]
    print(*rows, sep="\n")
    print(write_rows("unet_peak.csv", rows))
    draw(rows)


if __name__ == "__main__":
    main()
