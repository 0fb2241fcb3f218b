r"""Densities of bounded parameters as densities of unconstrained numbers.

A bijection x = T(z) onto the support turns γ(x) into γ(T(z)) |det ∂T/∂z|, which has the same Z. Samples are drawn of z
and read as x.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.target.base import Target
from sbflow.target.callable import CallableTarget, LogDensity, import_function
from sbflow.target.constraint import Block, Constraints, read_constraints

__all__ = ["ConstrainedTarget", "as_target"]


class ConstrainedTarget(Target):
    """Density given by a function of parameters of which some are bounded.

    ``constraints`` say how the function is called. A dictionary of names: with a dictionary of the same names, whose
    tensors have the shapes ``[n, *shape]``, or ``[*shape]`` where the function takes one point. Anything else: with
    points ``[n, d]`` (or ``[d]``) that hold all parameters one after another. A density on a simplex of k weights is
    one with respect to the first k − 1, as those of `torch.distributions` are.

    Args:
        log_prob: unnormalised log density in nats of the constrained parameters, or its dotted name.
        constraints: one constraint for all parameters (``"positive"``), a list with one per block, or a dictionary.
            Each is a constraint or transform of `torch.distributions`, or a name: ``real``, ``positive``,
            ``unit_interval``, ``interval(0, 1)``, ``greater_than(1)``, ``less_than(0)``, ``simplex(3)``; with a shape,
            ``positive[5]`` or ``(constraints.positive, 5)``.
        num_parameters: number of parameters; needed only where one constraint stands for all.

    Raises:
        ValueError: the function cannot be called or found, or the constraints are unknown or of another size.

    >>> import torch
    >>> target = ConstrainedTarget(lambda p: -p["rate"], {"rate": "positive"})
    >>> target.constrain(torch.zeros(2, 1))
    tensor([[1.],
            [1.]])
    """

    code_options = ("log_prob",)

    def __init__(
        self, log_prob: LogDensity | str, constraints: Constraints, *, num_parameters: int | None = None
    ) -> None:
        super().__init__()
        self.blocks = read_constraints(constraints, num_parameters)
        self._named = isinstance(constraints, Mapping)
        self._free_sizes = [math.prod(block.free_shape) for block in self.blocks.values()]
        self.dim = sum(self._free_sizes)
        function = import_function("log_prob", log_prob)
        size = sum(math.prod(block.shape) for block in self.blocks.values())
        self.density = CallableTarget(_OfNames(function, self.blocks) if self._named else function, size)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log density of the unconstrained numbers, in nats: that of the parameters plus the log Jacobian."""
        parameters, log_volume = self._transform(x)
        return self.density.log_prob(parameters) + log_volume

    def constrain(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """All parameters, one after another."""
        return self._transform(x)[0]

    def parameters_by_name(self, x: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, "n *shape"]]:
        """Parameters by the names of the constraints, ``x`` where they have none."""
        parameters = self.constrain(x)
        return _split(parameters, self.blocks) if self._named else {"x": parameters}

    def _transform(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        pieces = zip(self.blocks.values(), torch.split(x, self._free_sizes, dim=1), strict=True)
        values, log_volumes = zip(*(block.constrain(z) for block, z in pieces), strict=True)
        return torch.cat(values, dim=1), torch.stack(log_volumes).sum(0)


class _OfNames(nn.Module):
    """A function of named parameters as one of the vector that holds them all."""

    def __init__(self, function: Callable[..., Any], blocks: dict[str, Block]) -> None:
        super().__init__()
        self.function = function
        self.blocks = blocks

    def forward(self, x: Float[Tensor, "*n m"]) -> Any:
        return self.function(_split(x, self.blocks))


def _split(x: Float[Tensor, "*n m"], blocks: dict[str, Block]) -> dict[str, Tensor]:
    sizes = [math.prod(block.shape) for block in blocks.values()]
    pieces = zip(blocks.items(), torch.split(x, sizes, dim=-1), strict=True)
    return {name: piece.reshape(x.shape[:-1] + block.shape) for (name, block), piece in pieces}


def as_target(log_prob: LogDensity | str | Target, dim: int | None, constraints: Constraints | None = None) -> Target:
    """The target that a user means: one of theirs, a function, or a function of bounded parameters.

    Args:
        log_prob: a target, which is used as it is, a log density, or its dotted name.
        dim: number of parameters; may be left out for a target, and where ``constraints`` tell it.
        constraints: see `ConstrainedTarget`.

    Raises:
        ValueError: ``dim`` is missing or disagrees, constraints of a target, or see the classes.
    """
    if isinstance(log_prob, Target):
        if constraints is not None:
            raise ValueError("constraints go with a function; a Target has its own change of variables")
        if dim not in (None, log_prob.dim):
            raise ValueError(f"dim must be that of the target, {log_prob.dim}, or left out, got {dim}")
        return log_prob
    if constraints is not None:
        return ConstrainedTarget(log_prob, constraints, num_parameters=dim)
    if dim is None:
        raise ValueError("dim must be given for a density without constraints, got None")
    return CallableTarget(log_prob, dim)
