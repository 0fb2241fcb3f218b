"""Models written in NumPyro; its evidence is the normalising constant."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sbflow.target.callable import import_function
from sbflow.target.jax import JaxLogDensity, JaxParameters, JaxTarget, double_precision

__all__ = ["NumPyroTarget"]


class NumPyroTarget(JaxTarget):
    """Joint density of data and latent variables of a NumPyro model, in NumPyro's unconstrained coordinates.

    Args:
        model: the model, or its dotted name.
        model_args: positional arguments of the model, data included.
        model_kwargs: keyword arguments of the model.

    Raises:
        ModuleNotFoundError: NumPyro is not installed.
        ValueError: the model cannot be called or found, or has no continuous latent variable.
    """

    code_options = ("model",)

    def __init__(
        self,
        model: Callable[..., Any] | str,
        *,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = (import_function("model", model), tuple(model_args), dict(model_kwargs or {}))
        super().__init__(*_read_model(*arguments))


def _read_model(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[JaxLogDensity, int, list[str], JaxParameters]:
    """Log density of one unconstrained point, its dimension, and names of and the way back to the latent variables."""
    try:
        import jax
        from jax.flatten_util import ravel_pytree
        from numpyro.infer.util import constrain_fn, initialize_model
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("NumPyroTarget needs NumPyro: pip install 'sbflow[numpyro]'") from error
    with double_precision():
        info = initialize_model(jax.random.PRNGKey(0), model, model_args=args, model_kwargs=kwargs)
        start, unravel = ravel_pytree(info.param_info.z)
        if not start.size:
            raise ValueError("model must have a continuous latent variable, got none")
    potential = info.potential_fn
    # the order in which a dictionary is made one vector
    names = sorted(info.param_info.z)

    def latent(z: Any) -> list[Any]:
        values = constrain_fn(model, args, kwargs, unravel(z))
        return [values[name] for name in names]

    return lambda z: -potential(unravel(z)), int(start.size), names, latent
