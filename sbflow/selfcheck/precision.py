"""Single against double precision, and any device against the CPU."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow import smc
from sbflow.integrator import simulate, solve_ode
from sbflow.potential import MixturePotential
from sbflow.process import uniform_times
from sbflow.selfcheck.bridge import bridge_kernel, random_bridge
from sbflow.selfcheck.measurement import Measurement, mean_of
from sbflow.selfcheck.particles import PROCESS, mixture, ratios
from sbflow.tensor import seeded_generator

__all__ = ["other_device", "single_precision"]


def single_precision(device: torch.device, seed: int) -> Iterator[Measurement]:
    """Float32 is off by a few hundred roundings at most, and its Ẑ is as unbiased."""
    x = torch.randn(2000, 3, dtype=torch.float64, generator=seeded_generator(seed, 21)).to(device)
    yield _roundings("float32 probability flow: error in roundings", _flow(x.float(), seed), _flow(x, seed))
    yield _roundings(
        "float32 log-weights: error in roundings", _log_weights(torch.float32, x), _log_weights(torch.float64, x)
    )
    law = mixture(torch.float32)
    potential = MixturePotential(law.means, law.covariances, law.weights, PROCESS)
    found, _ = ratios(potential, seeded_generator(seed, 22), device, dtype=torch.float32)
    yield mean_of("float32 PDDS: mean of Ẑ / Z", found, 1.0)


def other_device(device: torch.device, seed: int) -> Iterator[Measurement]:
    """With noise from one generator a device and the CPU simulate the same paths; nothing to compare on the CPU."""
    if device.type == "cpu":
        return
    bridge = random_bridge(seed)
    ends = []
    for place in (device, torch.device("cpu")):
        start = torch.randn(1000, 3, dtype=torch.float64, generator=seeded_generator(seed, 23)).to(place)
        ends.append(
            simulate(bridge_kernel(bridge), start, uniform_times(20), generator=seeded_generator(seed, 24)).cpu()
        )
    yield Measurement(f"{device} − cpu, the same noise", float((ends[0] - ends[1]).abs().max()), 0.0, tolerance=1e-10)


def _flow(x: Float[Tensor, "n d"], seed: int) -> Float[Tensor, "n d"]:
    """End points of the probability flow of a Gaussian bridge: half the difference of its two drifts."""
    bridge = random_bridge(seed)
    back = bridge.reversed()
    return solve_ode(lambda x, t: 0.5 * (bridge.drift(x, float(t)) - back.drift(x, 1 - float(t))), x, uniform_times(20))


def _log_weights(dtype: torch.dtype, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Incremental log-weights of one move between given positions, with the exact potential."""
    law = mixture(dtype)
    kernel = smc.GuidedDenoising(
        PROCESS, MixturePotential(law.means, law.covariances, law.weights, PROCESS).to(x.device)
    )
    t, s = (torch.tensor(value, dtype=torch.float64, device=x.device) for value in (0.5, 0.4))
    before = x[:, :2].to(dtype)
    after = (0.9 * before + 0.1 * x[:, 1:].to(dtype)).to(dtype)
    fields = kernel.field(before, t), kernel.field(after, s)
    return kernel.log_weight(before, fields[0], kernel.propose(before, fields[0], t, s), after, fields[1], t, s)


def _roundings(name: str, single: Tensor, double: Tensor) -> Measurement:
    """Largest error in units of float32 rounding of the largest number; a few per operation are to be expected."""
    unit = torch.finfo(torch.float32).eps * double.abs().max()
    return Measurement(name, float((single.double() - double).abs().max() / unit), 500.0, relation="<")
