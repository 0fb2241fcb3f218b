"""Where training takes its pairs of end points from."""

from typing import Literal

from sbflow.coupling.base import Coupling
from sbflow.coupling.buffer import Buffer, Iterative
from sbflow.coupling.independent import Independent
from sbflow.coupling.minibatch_ot import MinibatchOT
from sbflow.coupling.online import Online
from sbflow.coupling.reference import Reference
from sbflow.coupling.rollout import Method, Rollout

__all__ = [
    "Buffer",
    "Coupling",
    "CouplingName",
    "Independent",
    "Iterative",
    "Method",
    "MinibatchOT",
    "Online",
    "Reference",
    "Rollout",
    "named_coupling",
]

CouplingName = Literal["independent", "minibatch_ot", "sinkhorn", "reference", "online", "buffer", "iterative"]


def named_coupling(coupling: Coupling | CouplingName, option: str) -> Coupling:
    """A coupling by its name, with its default options; a coupling is returned as it is.

    Args:
        coupling: the coupling or its name.
        option: the option that it was given for, named by the error.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(coupling, Coupling):
        return coupling
    if coupling == "sinkhorn":
        return MinibatchOT(method="sinkhorn")
    classes = {
        "independent": Independent,
        "minibatch_ot": MinibatchOT,
        "reference": Reference,
        "online": Online,
        "buffer": Buffer,
        "iterative": Iterative,
    }
    if coupling not in classes:
        raise ValueError(f"{option} must be a Coupling or one of {', '.join(classes)}, sinkhorn, got {coupling!r}")
    return classes[coupling]()
