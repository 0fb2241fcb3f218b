"""The only place where time is stepped."""

from sbflow.integrator.grid import Spacing, time_grid
from sbflow.integrator.kernel import Coefficient, Kernel, VectorField, euler_maruyama, guided_denoising
from sbflow.integrator.ode import solve_ode
from sbflow.integrator.sde import simulate

__all__ = [
    "Coefficient",
    "Kernel",
    "Spacing",
    "VectorField",
    "euler_maruyama",
    "guided_denoising",
    "simulate",
    "solve_ode",
    "time_grid",
]
