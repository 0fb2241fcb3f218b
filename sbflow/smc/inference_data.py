"""An estimate in the format of ArviZ."""

from importlib import import_module
from typing import Any

from sbflow.smc.evidence import Evidence

__all__ = ["inference_data"]


def inference_data(evidence: Evidence, seed: int) -> Any:
    """Posterior samples, one chain per run, with log Z, its standard error and the verdict as attributes.

    Args:
        evidence: the estimate.
        seed: seed of the resampling to equal weights.
    """
    try:
        arviz = import_module("arviz")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to_arviz needs ArviZ: pip install sbflow[arviz]") from error
    posterior = {name: value.cpu().numpy() for name, value in evidence.equally_weighted(seed).items()}
    groups = {"posterior": posterior}
    # since 1.0 the groups come in one mapping
    modern = int(arviz.__version__.partition(".")[0]) >= 1
    data = arviz.from_dict(groups) if modern else arviz.from_dict(**groups)
    attributes = {"log_z": evidence.log_z, "log_z_stderr": evidence.log_z_stderr, "verdict": evidence.verdict}
    data["posterior"].attrs.update(attributes | {"inference_library": "sbflow"})
    return data
