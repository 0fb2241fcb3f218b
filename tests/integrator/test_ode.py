import math
from itertools import pairwise

import pytest
import torch

from sbflow.integrator import solve_ode

ORDERS = {"euler": 1, "heun": 2}


def velocity(x, t):
    return 3 * torch.cos(3 * t) * x


def exact(x, t):
    """Solution of dx/dt = 3 cos(3t) x from x at time 0."""
    return x * math.exp(math.sin(3 * t))


def uneven(num_steps: int, start: float, end: float) -> torch.Tensor:
    return start + (end - start) * torch.linspace(0, 1, num_steps + 1, dtype=torch.float64) ** 1.5


@pytest.mark.parametrize("method", ORDERS)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_error_falls_with_the_declared_order_on_uneven_grids_in_either_direction(method, backwards):
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    start, end = (0.8, 0.0) if backwards else (0.0, 0.8)
    truth = x if backwards else exact(x, 0.8)
    errors = [
        (solve_ode(velocity, exact(x, start), uneven(n, start, end), method=method) - truth).abs().max().item()
        for n in (100, 200, 400, 800)
    ]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([ORDERS[method]] * 3, abs=0.15)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("method", ORDERS)
def test_forth_and_back_is_the_identity_up_to_the_order_of_the_method(method):
    x = torch.randn(4, 3, dtype=torch.float64)

    def deviation(num_steps: int) -> float:
        times = uneven(num_steps, 0.0, 1.0)
        there = solve_ode(velocity, x, times, method=method)
        assert not torch.allclose(there, x, rtol=0.1)
        return (solve_ode(velocity, there, times.flip(0), method=method) - x).abs().max().item()

    coarse, fine = deviation(200), deviation(400)
    assert fine < 0.05 and math.log2(coarse / fine) > ORDERS[method] - 0.15


def test_a_constant_velocity_is_followed_exactly():
    x = torch.zeros(2, 1, 3, 3)
    for method in ORDERS:
        end = solve_ode(lambda x, t: torch.full_like(x, 2.0), x, uneven(5, 0.0, 1.0), method=method)
        assert torch.allclose(end, torch.full_like(x, 2.0)) and end.dtype == x.dtype


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be 'euler' or 'heun', got 'rk4'"):
        solve_ode(velocity, torch.zeros(1, 1), uneven(1, 0, 1), method="rk4")
