"""The only place where time is stepped."""

from sbflow.integrator.adams import simulate_adams
from sbflow.integrator.flow import Flow, flow_from_bridge, flow_from_score
from sbflow.integrator.grid import Spacing, time_grid
from sbflow.integrator.kernel import (
    Coefficient,
    FieldKernel,
    Kernel,
    VectorField,
    euler_maruyama,
    guided_denoising,
    langevin,
)
from sbflow.integrator.ode import solve_ode
from sbflow.integrator.sde import simulate
from sbflow.integrator.speculative import Draft, Policy, SpeculationInfo, simulate_speculative

__all__ = [
    "Coefficient",
    "Draft",
    "FieldKernel",
    "Flow",
    "Kernel",
    "Policy",
    "Spacing",
    "SpeculationInfo",
    "VectorField",
    "euler_maruyama",
    "flow_from_bridge",
    "flow_from_score",
    "guided_denoising",
    "langevin",
    "simulate",
    "simulate_adams",
    "simulate_speculative",
    "solve_ode",
    "time_grid",
]
