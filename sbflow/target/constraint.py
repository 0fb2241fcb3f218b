"""How bounded parameters are described, and the bijections from unconstrained numbers to them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from sbflow.tensor import flat_sum

__all__ = ["Block", "Constraints", "ParameterConstraint", "read_constraints"]

ParameterConstraint = Constraint | Transform | str | tuple[Constraint | Transform | str, int | Sequence[int]]
"""A constraint, a transform onto the constrained space, the name of a constraint, or a pair of one with its shape."""

Constraints = ParameterConstraint | Sequence[ParameterConstraint] | Mapping[str, ParameterConstraint]
"""One constraint for every coordinate, a list with one per block, or one per name."""

_NAMED: dict[str, tuple[Any, int]] = {
    "real": (constraints.real, 0),
    "positive": (constraints.positive, 0),
    "unit_interval": (constraints.unit_interval, 0),
    "interval": (constraints.interval, 2),
    "greater_than": (constraints.greater_than, 1),
    "less_than": (constraints.less_than, 1),
    "simplex": (constraints.simplex, 1),
}
"""Constraints that a config can name, with the number of their arguments; that of a simplex is its size."""


class Block(NamedTuple):
    """Parameters that are transformed together.

    Attributes:
        transform: from unconstrained numbers to the parameters.
        shape: shape of the parameters.
        free_shape: shape of the unconstrained numbers.
    """

    transform: Transform
    shape: torch.Size
    free_shape: torch.Size

    def constrain(self, z: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        """The parameters, one after another, and log |det| of the Jacobian of the transform."""
        free = z.reshape(len(z), *self.free_shape)
        value = self.transform(free)
        log_volume = flat_sum(self.transform.log_abs_det_jacobian(free, value))  # type: ignore[no-untyped-call]
        return value.reshape(len(z), math.prod(self.shape)).to(z.dtype), log_volume.to(z.dtype)


def read_constraints(given: Constraints, dim: int | None) -> dict[str, Block]:
    """Blocks of parameters by name; those without a name are called by their number.

    Args:
        given: what the user wrote.
        dim: number of parameters in all; needed for one constraint of all of them, else None or in agreement.

    Raises:
        ValueError: a constraint is unknown, has no bijection, or the sizes disagree with ``dim``.
    """
    if isinstance(given, Mapping):
        blocks = {str(name): _block(str(name), one) for name, one in given.items()}
    elif isinstance(given, Sequence) and not isinstance(given, str) and not _is_pair(given):
        blocks = {str(k): _block(str(k), one) for k, one in enumerate(given)}
    else:
        blocks = {"x": _single(given, dim)}
    if not blocks:
        raise ValueError("constraints must name at least one parameter, got none")
    size = sum(math.prod(block.shape) for block in blocks.values())
    if dim is not None and dim != size:
        raise ValueError(f"dim must be the number of parameters that constraints describe, {size}, got {dim}")
    return blocks


def _is_pair(given: Any) -> bool:
    """Whether this is a constraint with its shape."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        return False
    shape = [given[1]] if isinstance(given[1], int) else given[1]
    return isinstance(shape, tuple | list) and all(isinstance(size, int) for size in shape)


def _single(given: Any, dim: int | None) -> Block:
    """One constraint for all parameters, ``dim`` times where it is one of a single number."""
    block = _block("x", given)
    if not block.shape and not _is_pair(given) and dim is not None:
        return Block(block.transform, torch.Size([dim]), torch.Size([dim]))
    return block


def _block(name: str, given: Any) -> Block:
    what, shape = given if _is_pair(given) else (given, None)
    if isinstance(what, str):
        what, shape = _parse(name, what, shape)
    transform = what if isinstance(what, Transform) else _bijection(name, what)
    size = torch.Size([shape] if isinstance(shape, int) else shape or ())
    if min(size, default=1) < 1 or len(size) < transform.codomain.event_dim:
        raise ValueError(
            f"constraints.{name} needs the shape of the parameter, as in ({type(what).__name__}, 3), got {shape}"
        )
    block = Block(transform, size, torch.Size(transform.inverse_shape(size)))  # type: ignore[no-untyped-call]
    if not math.prod(block.free_shape):
        raise ValueError(f"constraints.{name} leaves nothing free in a parameter of shape {list(size)}")
    try:
        block.constrain(torch.zeros(1, math.prod(block.free_shape)))
    except NotImplementedError as error:
        raise ValueError(f"constraints.{name}: the Jacobian of {type(transform).__name__} is not known") from error
    return block


def _bijection(name: str, constraint: Any) -> Transform:
    if not isinstance(constraint, Constraint):
        raise ValueError(
            f"constraints.{name} must be a constraint or transform of torch.distributions or the name of one, got "
            f"{constraint!r}"
        )
    try:
        return biject_to(constraint)
    except NotImplementedError as error:
        raise ValueError(f"constraints.{name}: no bijection onto {constraint} is known") from error


def _parse(name: str, text: str, shape: Any) -> tuple[Constraint, Any]:
    """A constraint written as ``interval(0, 1)``, ``simplex(3)`` or, with a shape, ``positive[5]``."""
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*(?:\[([\d\s,]+)\])?\s*", text)
    kind = match[1] if match else ""
    if match is None or kind not in _NAMED:
        raise ValueError(
            f"constraints.{name} must be one of {', '.join(_NAMED)}, with numbers as in interval(0, 1) and a size as "
            f"in positive[5], got {text!r}"
        )
    constraint, count = _NAMED[kind]
    numbers = _numbers(name, text, match[2], count)
    if match[3] is not None:
        shape = [int(size) for size in match[3].split(",") if size.strip()]
    if kind == "simplex":
        return constraint, [*(shape or []), int(numbers[0])]
    return (constraint(*numbers) if count else constraint), shape


def _numbers(name: str, text: str, given: str | None, count: int) -> list[float]:
    try:
        numbers = [float(number) for number in (given or "").split(",") if number.strip()]
    except ValueError:
        numbers = []
    if len(numbers) != count or (text.lstrip().startswith("simplex") and not numbers[0].is_integer()):
        raise ValueError(f"constraints.{name} takes {count} numbers in parentheses, got {text!r}")
    if count == 2 and not numbers[0] < numbers[1]:
        raise ValueError(f"constraints.{name} needs a lower end below the upper one, got {text!r}")
    return numbers
