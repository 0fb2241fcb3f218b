"""From a config to objects, after checking that the config is sound."""

import inspect
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

__all__ = ["build", "check_options", "check_trusted", "check_type"]

ACCEPTED = {int: (int,), float: (int, float), bool: (bool,), str: (str,), NoneType: (NoneType,)}
"""What counts as a value of a type."""

TRUSTED = {f"lightning.pytorch.loggers.{name}Logger" for name in ("TensorBoard", "Wandb", "MLFlow")}
TRUSTED |= {"lightning.Trainer"}
"""Classes from outside sbflow that its own configs name."""


def build(config: DictConfig, key: str) -> Any:
    """Instantiate one part of a config, its options checked first.

    Raises:
        ValueError: the part is missing, or sets an option that its class does not have.
    """
    part = config.get(key)
    if part is None:
        raise ValueError(f"{key} is not set: choose one with {key}=NAME")
    check_options(part, key)
    try:
        return instantiate(part, _convert_="all")
    except InstantiationException as error:
        # a constructor that chokes on a value of the wrong kind says so in a TypeError of its own
        if isinstance(error.__cause__, TypeError | AttributeError):
            raise ValueError(f"{key}: a part has an option of the wrong kind ({error.__cause__})") from error
        raise
    except TypeError as error:
        # Hydra's own check of _partial_, _recursive_ and _convert_
        raise ValueError(f"{key}: {' '.join(str(error).split())}") from error


def check_options(part: Any, key: str) -> None:
    """Refuse options that a class does not have, naming those it has, and options of the wrong type.

    Raises:
        ValueError: names the key and what is allowed.
    """
    if part is None:
        return
    if not isinstance(part, DictConfig):
        raise ValueError(f"{key} must be a part with its _target_, got {part!r}: choose one with {key}=NAME")
    if "_target_" not in part:
        raise ValueError(f"{key} has options but no class: choose one with {key}=NAME")
    for path, node in _targets(part, key):
        allowed = _options(_find(node["_target_"], path))
        for name in node:
            if str(name).startswith("_") or OmegaConf.is_missing(node, name):
                continue
            if name not in allowed:
                what = node["_target_"].rpartition(".")[2]
                options = ", ".join(sorted(allowed))
                raise ValueError(f"{path}.{name} is not an option of {what}; allowed: {options}")
            check_type(f"{path}.{name}", node[name], allowed[str(name)])


def check_type(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value that is not of the annotated type; annotations of foreign classes are not looked at.

    Raises:
        ValueError: names the key, the type and the value.
    """
    choices = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    literals = [choice for one in choices if get_origin(one) is Literal for choice in get_args(one)]
    plain = [choice for choice in choices if choice in ACCEPTED]
    lists = [choice for choice in choices if get_origin(choice) in (Sequence, list, tuple)]
    parts = [choice for choice in choices if inspect.isclass(choice) and choice.__module__.startswith("sbflow.")]
    if len(plain) + len(lists) + len(parts) + (len(literals) > 0) < len(choices) or value in literals:
        return
    if (lists and isinstance(value, list | tuple | ListConfig)) or (parts and isinstance(value, DictConfig)):
        return
    # True is an int to Python, 1 is a number to everybody
    if not any(isinstance(value, ACCEPTED[one]) and (one is bool or not isinstance(value, bool)) for one in plain):
        names = [repr(one) for one in literals] + ["null" if one is NoneType else one.__name__ for one in plain]
        names += ["a list"] * bool(lists) + [f"a {one.__name__} with its _target_" for one in parts]
        raise ValueError(f"{key} must be {' or '.join(names)}, got {value!r}")


def check_trusted(part: Any, key: str) -> None:
    """Refuse to build anything but sbflow's own classes from a config that came with a checkpoint.

    Raises:
        ValueError: names the key, what it would have called and how to allow it.
    """
    for path, node in _targets(part, key):
        target = str(node["_target_"])
        own = _is_part(target, path)
        if not own and target not in TRUSTED:
            raise ValueError(f"{path} would call {target}, which is no class of sbflow; allow it with trust=true")
        if "_args_" in node:
            raise ValueError(f"{path} has positional arguments (_args_); allow them with trust=true")
        for option in getattr(_find(target, path), "code_options", ()) if own else ():
            if isinstance(node.get(option), str):
                raise ValueError(
                    f"{path}.{option} would run {node[option]}, which is not part of sbflow; allow it with trust=true"
                )


def _is_part(target: str, path: str) -> bool:
    """Whether this is a class of sbflow itself: its functions load runs and import what they are told to."""
    # the prefix first: looking the object up imports its module
    if not target.startswith("sbflow."):
        return False
    found = _find(target, path)
    return inspect.isclass(found) and found.__module__.startswith("sbflow.")


def _find(target: Any, path: str) -> Any:
    """The class that a node names."""
    try:
        return get_object(target)
    except Exception as error:
        # importing a module may fail in any way
        raise ValueError(f"{path}._target_: there is no {target}, or it cannot be imported") from error


def _targets(part: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Every node that names a class, with its path."""
    if isinstance(part, ListConfig):
        for index, item in enumerate(part):
            yield from _targets(item, f"{path}.{index}")
    elif isinstance(part, DictConfig):
        if "_target_" in part:
            yield path, part
        for name in part:
            if not OmegaConf.is_missing(part, name):
                yield from _targets(part[name], f"{path}.{name}")


def _options(cls: Any) -> dict[str, Any]:
    """Options of a class with their annotations; ``**kwargs`` stand for the keyword options of its bases."""
    parameters = list(inspect.signature(cls).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("sbflow.")]
        parameters += [
            p for base in bases for p in inspect.signature(base).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
    return {p.name: p.annotation for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
