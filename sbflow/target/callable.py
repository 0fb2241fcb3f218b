"""A user's own log density as a target."""

import importlib
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target

__all__ = ["CallableTarget", "LogDensity", "import_function", "import_object"]

LogDensity = Callable[[Any], Tensor]
"""Log density of a batch of points, ``[n, d] -> [n]``, or of one point, ``[d] -> []``."""

_LOOPED = (
    "log_prob cannot be vectorised by torch.vmap and is evaluated point by point, which is slow: write it for a batch "
    "of points [n, d], with torch.where in place of if"
)
_KEEP_TO_TORCH = (
    "keep to torch operations, with torch.where in place of if and without .item(), float(), .detach() and numpy"
)
_OTHERWISE: dict[bool | None, str] = {
    True: "; or set batched=False, for one point at a time",
    False: "; or set batched=True, for a batch",
}
_WITHOUT_SCORE = f"log_prob changes with its points and its gradient is zero: {_KEEP_TO_TORCH}"

# what torch and NumPy say where a tensor is turned into numbers, or decides a branch
_LEAVES_TORCH = re.compile(
    r"converted to (a )?(Python )?[Ss]calar|\.item\(\)|data-dependent|Boolean value of|numpy\(\)|have storage"
    r"|size-1 arrays|^(bool|int|float|complex|list|ndarray)\d*$"
)


class CallableTarget(Target):
    """Density given by any function of the points; its score comes from automatic differentiation.

    How the function wants to be called is found out at the first evaluation, from the shapes it returns for the first
    point repeated two and three times: with a batch of points, or with one point at a time, which `torch.vmap` then
    vectorises; and with float64 where its data leave it no choice. A module given as the function becomes a submodule
    and moves with the target.

    Args:
        log_prob: maps points ``[n, d]`` to unnormalised log densities ``[n]`` or ``[n, 1]``, or one point ``[d]`` to a
            number, differentiably; or its dotted name, ``my_module.my_log_prob``, looked up from the current folder.
        dim: dimension d, at least 1.
        dtype: dtype that the function takes, points are cast to it; None finds out.
        batched: whether the function takes a batch of points; None finds out.

    Raises:
        ValueError: ``log_prob`` cannot be called or found, or ``dim`` is below 1.

    >>> import torch
    >>> CallableTarget(lambda x: -x.square().sum(1), dim=2).score(torch.ones(1, 2))
    tensor([[-2., -2.]])
    >>> CallableTarget(lambda x: -x[0] ** 2 - x[1] ** 4, dim=2).score(torch.ones(1, 2))
    tensor([[-2., -4.]])
    """

    code_options = ("log_prob",)

    def __init__(
        self,
        log_prob: LogDensity | str,
        dim: int,
        *,
        dtype: torch.dtype | None = None,
        batched: bool | None = None,
    ) -> None:
        super().__init__()
        function = import_function("log_prob", log_prob)
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise ValueError(f"dtype must be a torch.dtype or None, got {dtype!r}")
        self.dim = dim
        self.function = function
        self.dtype = dtype
        self.batched = batched
        self._conventions: dict[torch.dtype, _Convention] = {}

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log γ(x) in nats, in the dtype of x.

        Raises:
            ValueError: the function raised, or did not return one value per point.
        """
        if not len(x):
            return x.sum(1)
        if x.dtype not in self._conventions:
            self._conventions[x.dtype] = self._find_convention(x)
        convention = self._conventions[x.dtype]
        result = convention.call(self.function, x.to(convention.dtype))
        if result.fault is not None:
            raise ValueError(self._complaint([result], x.shape)) from result.cause
        return result.value.reshape(len(x)).to(x.dtype)

    def _apply(self, *args: Any, **kwargs: Any) -> "CallableTarget":
        """A module that moves to another dtype may take other points than before."""
        self._conventions.clear()
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _find_convention(self, x: Float[Tensor, "n d"]) -> "_Convention":
        """First way to call the function that gives one value per point; the complaint is about the first of all."""
        failed = []
        for convention in self._candidates(x.dtype):
            # two lengths, as one may equal the dimension by chance
            repeated = [x[:1].detach().to(convention.dtype).expand(n, -1) for n in (2, 3)]
            faulty = next((r for points in repeated if (r := convention.call(self.function, points)).fault), None)
            if faulty is None:
                for warning in convention.warnings(self.function, repeated[0]):
                    warnings.warn(warning, stacklevel=4)
                return convention
            failed.append(faulty)
        first = next(self._candidates(x.dtype))
        whole = first.call(self.function, x.detach().to(first.dtype))
        if whole.fault is None:
            whole = whole._replace(fault="what depends on the points")
        raise ValueError(self._complaint([whole, *failed], x.shape)) from whole.cause

    def _complaint(self, failed: "Sequence[_Result]", shape: tuple[int, ...]) -> str:
        """What was wrong with the first call, and what to change where any of them left torch."""
        n, dim = shape
        text = f"log_prob must return a tensor of shape [{n}] for points of shape [{n}, {dim}], got {failed[0].fault}"
        if not any(_LEAVES_TORCH.search(result.fault or "") for result in failed):
            return f"{text}; or a number for one point [{dim}]"
        return f"{text}: {_KEEP_TO_TORCH}{_OTHERWISE.get(self.batched, '')}"

    def _candidates(self, dtype: torch.dtype) -> Iterator["_Convention"]:
        others = [one for one in (torch.float64, torch.float32) if one != dtype]
        for one in [dtype, *others] if self.dtype is None else [self.dtype]:
            if self.batched is not False:
                yield _Convention(one, batched=True)
            if self.batched is not True:
                yield _Convention(one, batched=False)
                yield _Convention(one, batched=False, looped=True)


class _Convention(NamedTuple):
    """One way to call a density: in which dtype, with a batch or point by point, by vmap or in a loop."""

    dtype: torch.dtype
    batched: bool
    looped: bool = False

    def call(self, function: LogDensity, x: Tensor) -> "_Result":
        """Value at these points, and what is wrong with it; any exception but a lack of memory is a fault."""
        try:
            value = self._evaluate(function, x)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            return _Result(None, _in_one_line(error), error)
        return _Result(value, _fault(value, len(x)))

    def warnings(self, function: LogDensity, x: Tensor) -> Iterator[str]:
        """What a user should know of a function that can be called this way."""
        if self.looped:
            yield _LOOPED

        def total(points: Tensor) -> tuple[Tensor, Tensor]:
            values = self._evaluate(function, points).reshape(len(points))
            return values.sum(), values

        shifts = torch.tensor([[0.0], [0.1]], dtype=x.dtype, device=x.device)
        try:
            score, values = torch.func.grad(total, has_aux=True)(x[:1] + shifts)
            constant = bool(values.isfinite().all() and values[0] != values[1] and not score.any())
        except Exception:
            # it is told where the score is asked for; mapped over, values cannot be looked at
            return
        if constant:
            yield _WITHOUT_SCORE

    def _evaluate(self, function: LogDensity, x: Tensor) -> Any:
        # copies: a function that changes its points in place must not move the particles
        if self.batched:
            return function(x.clone())
        if self.looped:
            return torch.stack([_number(function(point.clone())) for point in x])
        return torch.vmap(lambda point: _number(function(point.clone())))(x)


class _Result(NamedTuple):
    """What a call gave, what is wrong with it in a few words, and the exception behind that."""

    value: Any
    fault: str | None
    cause: Exception | None = None


def import_function(option: str, function: Callable[..., Any] | str) -> Callable[..., Any]:
    """The function itself, or the one of this dotted name.

    Args:
        option: name of the option, for the message.
        function: a callable, or ``module.name``.

    Raises:
        ValueError: it cannot be called, or there is no such module or name in it.
    """
    found = import_object(option, function) if isinstance(function, str) else function
    if not callable(found):
        raise ValueError(f"{option} must be callable or the dotted name of a function, got {function!r}")
    return found


def import_object(option: str, name: str) -> Any:
    """What a dotted name stands for; the current folder is searched as well.

    Args:
        option: name of the option, for the message.
        name: ``module.name``.

    Raises:
        ValueError: there is no such module or name in it.
    """
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise ValueError(f"{option} must be a dotted name such as my_module.my_function, got {name!r}")
    if os.getcwd() not in sys.path:
        # last: a file of the user's must not hide an installed package
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"{option}={name}: no module {error.name} in {os.getcwd()} or installed") from error
    if not hasattr(module, attribute):
        raise ValueError(f"{option}={name}: {getattr(module, '__file__', module_name)} has no {attribute}")
    return getattr(module, attribute)


def _number(value: Any) -> Any:
    """One value as a scalar, whatever the number of axes.

    Raises:
        TypeError: it is no tensor.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(value).__name__} for one point, which must be converted to a scalar tensor")
    return value.reshape(()) if value.numel() == 1 else value


def _fault(value: Any, n: int) -> str | None:
    """What is wrong with a result for n points, if anything."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return None if value.shape in ((n,), (n, 1)) else str(list(value.shape))


def _in_one_line(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return textwrap.shorten(text, 160, placeholder=" …")
