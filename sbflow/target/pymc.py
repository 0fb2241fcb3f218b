"""Models written in PyMC, evaluated through JAX; the evidence is the normalising constant."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sbflow.target.callable import import_object
from sbflow.target.jax import JaxLogDensity, JaxParameters, JaxTarget, double_precision

if TYPE_CHECKING:
    from pymc import Model

__all__ = ["PyMCTarget"]


class PyMCTarget(JaxTarget):
    """Joint density of data and free variables of a PyMC model, in PyMC's unconstrained coordinates.

    Args:
        model: the model, a function that makes it, or the dotted name of either.

    Raises:
        ModuleNotFoundError: PyMC or JAX is not installed.
        ValueError: there is no such model, or it has no free variable or a discrete one.
    """

    code_options = ("model",)

    def __init__(self, model: "Model | Callable[[], Model] | str") -> None:
        found: Any = import_object("model", model) if isinstance(model, str) else model
        super().__init__(*_read_model(found if hasattr(found, "value_vars") else found()))


def _read_model(model: "Model") -> tuple[JaxLogDensity, int, list[str], JaxParameters]:
    """Log density of one unconstrained point, its dimension, and names of and the way back to the free variables."""
    try:
        from pymc.sampling.jax import get_jaxified_graph
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("PyMCTarget needs PyMC and JAX: pip install 'sbflow[pymc]' jax") from error
    if not model.continuous_value_vars or model.discrete_value_vars:
        discrete = [variable.name for variable in model.discrete_value_vars]
        raise ValueError(f"model must have continuous free variables and no discrete ones, got discrete {discrete}")
    start = model.initial_point()
    shapes = [np.shape(start[variable.name]) for variable in model.value_vars]
    names = [variable.name for variable in model.free_RVs]
    by_name = {variable.name: variable for variable in model.unobserved_value_vars}
    with double_precision():
        log_prob = get_jaxified_graph(inputs=model.value_vars, outputs=[model.logp()])
        values = get_jaxified_graph(inputs=model.value_vars, outputs=[by_name[name] for name in names])
    dim = sum(int(np.prod(shape)) for shape in shapes)
    return (
        lambda x: log_prob(*_split(x, shapes))[0],
        dim,
        names,
        lambda x: values(*_split(x, shapes)),
    )


def _split(x: Any, shapes: list[tuple[int, ...]]) -> list[Any]:
    """One point as the arrays that the model takes."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [x[end - int(np.prod(shape)) : end].reshape(shape) for end, shape in zip(ends, shapes, strict=True)]
