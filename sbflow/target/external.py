"""Densities that are evaluated outside torch, by JAX, Stan or NumPy code that returns value and gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sbflow.target.base import Target

__all__ = ["ExternalTarget", "HessianProduct", "ValueAndGradient"]

ValueAndGradient = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps points ``[n, d]`` in float64 to log densities ``[n]`` and their gradients ``[n, d]``."""

HessianProduct = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps points and directions, both ``[n, d]``, to the products of the Hessians of log γ with them."""


class ExternalTarget(Target):
    """Density whose value and gradient come from a function of NumPy arrays.

    The result takes part in automatic differentiation, twice: what the Laplace approximation needs of the curvature
    comes from ``hessian_product``, or from central differences of the gradient where there is none. Points are
    evaluated on the CPU in float64, whatever their device and dtype.

    Args:
        value_and_gradient: maps points ``[n, d]`` to log densities ``[n]`` and gradients ``[n, d]``.
        dim: dimension d, at least 1.
        hessian_product: maps points and directions to Hessian-vector products, all ``[n, d]``.

    Raises:
        ValueError: ``value_and_gradient`` cannot be called or ``dim`` is below 1.
    """

    def __init__(
        self, value_and_gradient: ValueAndGradient, dim: int, *, hessian_product: HessianProduct | None = None
    ) -> None:
        super().__init__()
        if not callable(value_and_gradient):
            raise ValueError(f"value_and_gradient must be callable, got {value_and_gradient!r}")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim = dim
        self.value_and_gradient = value_and_gradient
        self.hessian_product = hessian_product or _central_differences(value_and_gradient)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log γ(x) in nats."""
        return self.log_prob_and_score(x)[0]

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log γ(x) and ∇ log γ(x), from one evaluation."""
        log_prob, score = _Evaluation.apply(x, self.value_and_gradient, self.hessian_product)
        return log_prob, score


class _Evaluation(torch.autograd.Function):
    """Value and gradient as differentiable functions of the points."""

    @staticmethod
    def forward(
        x: Float[Tensor, "n d"], function: ValueAndGradient, product: HessianProduct
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        value, gradient = function(_array(x))
        return _tensor("values", value, x, x.shape[:1]), _tensor("gradients", gradient, x, x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, _, ctx.product = inputs
        ctx.save_for_backward(x, output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, by_value: Tensor | None, by_gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        x, gradient = ctx.saved_tensors
        result = None if by_value is None else by_value[:, None] * gradient
        if by_gradient is not None:
            product = _HessianProduct.apply(x, by_gradient, ctx.product)
            result = product if result is None else result + product
        return result, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        x, function, product = inputs
        x = _batch_first(x, in_dims[0], info.batch_size)
        value, gradient = _Evaluation.apply(x.flatten(0, 1), function, product)
        return (value.unflatten(0, x.shape[:2]), gradient.unflatten(0, x.shape[:2])), (0, 0)


class _HessianProduct(torch.autograd.Function):
    """Hessian of log γ times a direction; the last derivative that an external density offers."""

    @staticmethod
    def forward(x: Float[Tensor, "n d"], v: Float[Tensor, "n d"], product: HessianProduct) -> Float[Tensor, "n d"]:
        return _tensor("Hessian products", product(_array(x), _array(v)), x, x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("third derivatives of a density evaluated outside torch are not available")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        x, v, product = inputs
        x, v = (_batch_first(a, dim, info.batch_size) for a, dim in ((x, in_dims[0]), (v, in_dims[1])))
        flat = _HessianProduct.apply(x.flatten(0, 1), v.flatten(0, 1), product)
        return flat.unflatten(0, x.shape[:2]), 0


def _central_differences(value_and_gradient: ValueAndGradient) -> HessianProduct:
    def product(x: np.ndarray, v: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(v, axis=1, keepdims=True)
        unit = v / np.where(length > 0, length, 1)
        # the cube root of the rounding error balances it against the third derivative
        step = 6e-6 * np.maximum(1.0, np.linalg.norm(x, axis=1, keepdims=True))
        above, below = (value_and_gradient(x + sign * step * unit)[1] for sign in (1, -1))
        return (above - below) / (2 * step) * length

    return product


def _batch_first(x: Tensor, dim: int | None, size: int) -> Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def _array(x: Tensor) -> Float64[np.ndarray, "n d"]:
    return x.detach().to("cpu", torch.float64).numpy()


def _tensor(what: str, value: Any, like: Tensor, shape: torch.Size) -> Tensor:
    """A result as a tensor, its shape checked."""
    array = np.asarray(value, dtype=np.float64)
    if array.shape != tuple(shape):
        raise ValueError(
            f"value_and_gradient must return {what} of shape {list(shape)} for points of shape {list(like.shape)}, got "
            f"{list(array.shape)}"
        )
    return torch.from_numpy(np.array(array)).to(like)
