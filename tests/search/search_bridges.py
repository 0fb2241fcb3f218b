"""Bridges to a Gaussian end potential, whose Euler–Maruyama law is known exactly."""

import torch

from sbflow.integrator import time_grid
from sbflow.process import Brownian
from sbflow.search import Roll

EPSILON, GOAL, VARIANCE = 0.8, 0.7, 0.5


def pull(x, t):
    """Drift of the bridge whose end potential is N(GOAL, VARIANCE), coordinate by coordinate."""
    return EPSILON * (GOAL - x) / (VARIANCE + EPSILON * (1 - t))


def gaussian_roll(num_steps, **options):
    return Roll(pull, Brownian(EPSILON), time_grid("uniform", num_steps), **options)


def euler_law(num_steps, x0=0.0, steps=None):
    """Mean and variance per coordinate of the discretised path after some of its steps, by its linear recursion."""
    mean, variance, delta = x0, 0.0, 1 / num_steps
    for k in range(num_steps if steps is None else steps):
        slope = EPSILON / (VARIANCE + EPSILON * (1 - k * delta))
        mean = mean + delta * slope * (GOAL - mean)
        variance = (1 - delta * slope) ** 2 * variance + EPSILON * delta
    return mean, variance


def first_coordinate(x_in, x_out):
    return x_out[:, 0]


def standardised(x, num_steps):
    """The first coordinate in units of its law without a search, from x0 = 0."""
    mean, variance = euler_law(num_steps)
    return (x[:, 0] - mean) / variance**0.5


def zeros(n, d):
    return torch.zeros(n, d, dtype=torch.float64)
