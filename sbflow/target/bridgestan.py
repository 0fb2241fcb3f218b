"""Models written in Stan, evaluated through BridgeStan; the evidence is the normalising constant."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.external import ExternalTarget, HessianProduct, ValueAndGradient

if TYPE_CHECKING:
    from bridgestan import StanModel

__all__ = ["BridgeStanTarget"]


class BridgeStanTarget(ExternalTarget):
    """Joint density of data and parameters of a Stan model, in Stan's unconstrained coordinates.

    Constants of the densities are kept, also of those written as ``y ~ normal(…)``, so that Z is the evidence. Points
    where the model rejects have density zero.

    Args:
        model: a compiled ``bridgestan.StanModel``, or the path of a ``.stan`` file, which is compiled on first use.
        data: data of the model: a mapping, JSON text, or the path of a JSON file; for a path of ``model`` only.

    Raises:
        ModuleNotFoundError: BridgeStan is not installed.
        ValueError: the model has no parameters, or comes with data of its own and others are given.
    """

    code_options = ("model",)

    def __init__(self, model: "StanModel | str", data: Mapping[str, Any] | str | None = None) -> None:
        if isinstance(model, str):
            model = _compile(model, data)
        elif data is not None:
            raise ValueError("data must be left out for a model that is already compiled: it holds its own")
        dim = model.param_unc_num()
        if dim < 1:
            raise ValueError("model must have a parameter, got none")
        super().__init__(_evaluation(model), dim, hessian_product=_hessian_product(model))
        # a function, not the model, whose handles on compiled code cannot be copied
        self.constrain_array = _constraint(model)
        self.names = tuple(model.param_names())

    def constrain(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """The parameters in Stan's order."""
        if not len(x):
            return x.new_empty(0, len(self.names))
        return torch.from_numpy(self.constrain_array(x.detach().to("cpu", torch.float64).numpy())).to(x)

    def parameters_by_name(self, x: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, "n *shape"]]:
        """The parameters by Stan's names of their entries, ``theta.1`` and so on."""
        return dict(zip(self.names, self.constrain(x).unbind(1), strict=True))


def _compile(file: str, data: Mapping[str, Any] | str | None) -> "StanModel":
    try:
        from bridgestan import StanModel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("BridgeStanTarget needs BridgeStan: pip install 'sbflow[bridgestan]'") from error
    return StanModel(file, data)


def _evaluation(model: "StanModel") -> ValueAndGradient:
    def value_and_gradient(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, gradients = np.full(len(x), -np.inf), np.zeros_like(x)
        for k, point in enumerate(x):
            try:
                values[k], gradients[k] = model.log_density_gradient(point, propto=False)
            except RuntimeError:
                # Stan's reject(), or a domain error of its mathematics: outside the support
                continue
        return values, gradients

    return value_and_gradient


def _constraint(model: "StanModel") -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.stack([model.param_constrain(row) for row in x])


def _hessian_product(model: "StanModel") -> HessianProduct:
    def product(x: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.stack(
            [model.log_density_hessian_vector_product(p, d, propto=False)[1] for p, d in zip(x, v, strict=True)]
        )

    return product
