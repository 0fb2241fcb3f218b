"""A user's own log density as a target."""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
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
        log_prob = convention.evaluate(self.function, x.to(convention.dtype))
        fault = _fault(log_prob, len(x))
        if fault is not None:
            raise ValueError(_complaint(fault, x.shape))
        return log_prob.reshape(len(x)).to(x.dtype)

    def _apply(self, *args: Any, **kwargs: Any) -> "CallableTarget":
        """A module that moves to another dtype may take other points than before."""
        self._conventions.clear()
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _find_convention(self, x: Float[Tensor, "n d"]) -> "_Convention":
        """First way to call the function that gives one value per point; the complaint is about the first of all."""
        for convention in self._candidates(x.dtype):
            # two lengths, as one may equal the dimension by chance
            repeated = [x[:1].detach().to(convention.dtype).expand(n, -1) for n in (2, 3)]
            if not any(convention.fault(self.function, points) for points in repeated):
                if convention.looped:
                    warnings.warn(_LOOPED, stacklevel=4)
                return convention
        first = next(self._candidates(x.dtype))
        got, cause = first.fault(self.function, x.detach().to(first.dtype)) or ("what depends on the points", None)
        raise ValueError(_complaint(got, x.shape)) from cause

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

    def evaluate(self, function: LogDensity, x: Tensor) -> Any:
        if self.batched:
            return function(x)
        if self.looped:
            return torch.stack([_number(function(point)) for point in x])
        return torch.vmap(lambda point: _number(function(point)))(x)

    def fault(self, function: LogDensity, x: Tensor) -> tuple[str, Exception | None] | None:
        """What goes wrong at these points, if anything: what was returned or raised in place of one value each."""
        try:
            got = _fault(self.evaluate(function, x), len(x))
        except Exception as error:
            # any exception of the user's code: it is reported if no other way to call the function works
            return f"{type(error).__name__}: {error}".splitlines()[0], error
        return None if got is None else (got, None)


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
    """One value as a scalar, whatever the number of axes; anything else as it is."""
    return value.reshape(()) if isinstance(value, Tensor) and value.numel() == 1 else value


def _fault(value: Any, n: int) -> str | None:
    """What is wrong with a result for n points, if anything."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return None if value.shape in ((n,), (n, 1)) else str(list(value.shape))


def _complaint(got: str, shape: tuple[int, ...]) -> str:
    n, dim = shape
    return (
        f"log_prob must return a tensor of shape [{n}] for points of shape [{n}, {dim}], got {got}; "
        f"or a number for one point [{dim}]"
    )
