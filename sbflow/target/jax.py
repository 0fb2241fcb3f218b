"""Log densities written in JAX, batched and differentiated there."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.callable import import_function
from sbflow.target.external import ExternalTarget, HessianProduct, ValueAndGradient

__all__ = ["JaxLogDensity", "JaxParameters", "JaxTarget", "double_precision"]

JaxLogDensity = Callable[[Any], Any]
"""Maps one point, a JAX array ``[d]``, to its log density, a scalar."""

JaxParameters = Callable[[Any], list[Any]]
"""Maps one point to the parameters in their own space, a list of arrays."""


class JaxTarget(ExternalTarget):
    """Density given by a JAX function of one point.

    It is vectorised by `jax.vmap`, compiled, and evaluated in float64; first and second derivatives are JAX's own.

    Args:
        log_prob: unnormalised log density in nats of one point ``[d]``, or its dotted name.
        dim: dimension d, at least 1.
        names: names of the parameters, in the order of ``parameters``.
        parameters: maps one point to a list of JAX arrays, the parameters in their own space; by default the point
            itself.

    Raises:
        ModuleNotFoundError: JAX is not installed.
        ValueError: ``log_prob`` cannot be called or found, or ``dim`` is below 1.
    """

    code_options = ("log_prob",)

    def __init__(
        self,
        log_prob: JaxLogDensity | str,
        dim: int,
        names: Sequence[str] = ("x",),
        parameters: JaxParameters | None = None,
    ) -> None:
        value_and_gradient, hessian_product = _compiled(import_function("log_prob", log_prob))
        super().__init__(value_and_gradient, dim, hessian_product=hessian_product)
        self.names = tuple(names)
        self.parameters_of_batch = None if parameters is None else _jax().jit(_jax().vmap(parameters))

    def constrain(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """The parameters, one after another."""
        values = self.parameters_by_name(x).values()
        return torch.cat([value.reshape(len(x), math.prod(value.shape[1:])) for value in values], dim=1)

    def parameters_by_name(self, x: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, "n *shape"]]:
        """The parameters by name."""
        if self.parameters_of_batch is None:
            return {self.names[0]: x}
        with double_precision():
            values = self.parameters_of_batch(x.detach().to("cpu", torch.float64).numpy())
            tensors = [torch.from_numpy(np.array(value)).to(x) for value in values]
        return dict(zip(self.names, tensors, strict=True))


def double_precision() -> AbstractContextManager[Any]:
    """A block in which JAX computes in float64; its global setting stays as it is."""
    jax = _jax()
    # newer versions of JAX have it in the main namespace
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


def _compiled(log_prob: JaxLogDensity) -> tuple[ValueAndGradient, HessianProduct]:
    jax = _jax()
    gradient = jax.grad(log_prob)
    evaluate = jax.jit(jax.vmap(jax.value_and_grad(log_prob)))
    multiply = jax.jit(jax.vmap(lambda x, v: jax.jvp(gradient, (x,), (v,))[1]))

    def value_and_gradient(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with double_precision():
            value, slope = evaluate(x)
            return np.asarray(value), np.asarray(slope)

    def hessian_product(x: np.ndarray, v: np.ndarray) -> np.ndarray:
        with double_precision():
            return np.asarray(multiply(x, v))

    return value_and_gradient, hessian_product


def _jax() -> Any:
    try:
        import jax
        import jax.experimental
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a density in JAX needs it: pip install 'sbflow[numpyro]'") from error
    return jax
