"""The command line: ``sbflow COMMAND [hydra overrides]``."""

import os
import re
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from sbflow.command.heap import keep_freed_memory
from sbflow.command.rank import first_process

__all__ = ["COMMANDS", "config_dir", "main"]

COMMANDS = {
    "train": "train an algorithm (without arguments, digits into letters), or go on with a run: resume=RUN",
    "sample": "estimate log Z and draw weighted samples: checkpoint=RUN, or target=… for the untrained sampler",
    "translate": "translate images: checkpoint=RUN input=DIR output=DIR",
    "evaluate": "measure a trained run again, or compare the runs of a sweep: checkpoint=RUN",
    "export": "write a trained model as files that travel: checkpoint=RUN output=DIR",
    "check": "compare this machine with closed forms: bridges, particles, resampling, precision",
}


def config_dir() -> Path:
    """Folder of the configs: inside the package when installed from a wheel, else beside it."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def main() -> None:
    """Run one command; exit with 2 on bad input, 1 on a failure while running."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(_usage())
        sys.exit(0 if len(sys.argv) > 1 else 2)
    name = sys.argv.pop(1)
    if name in ("--version", "version"):
        print(f"sbflow {import_module('sbflow').__version__}")
        return
    if name not in COMMANDS:
        _fail(f"unknown command {name!r}: choose from {', '.join(COMMANDS)}")
    sys.argv[1:] = [_additive(name, argument) for argument in sys.argv[1:]]
    # otherwise Hydra prints several lines of its own and leaves with 1
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    keep_freed_memory()
    # part of the default name of a run folder: two runs may start in the same microsecond
    os.environ["SBFLOW_PROCESS"] = str(os.getpid())
    if any(argument.startswith("resume=") for argument in sys.argv[1:]) or not first_process():
        # the run that is continued has its folder, and of several processes the first one; Hydra is to make none
        sys.argv.append("hydra.run.dir=.")
    _report(name, lambda: _run(name))


def _run(name: str) -> None:
    import hydra

    composed = False

    def command(config: Any) -> Any:
        nonlocal composed
        composed = True
        # torch is imported only once the command line is known to be sound; errors are reported in here, as Hydra
        # would print a line of its own before passing them on
        return _report(name, lambda: getattr(import_module(f"sbflow.command.{name}"), name)(config))

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)(command)()
    except (TypeError, AttributeError, KeyError, IndexError, AssertionError) as error:
        if composed:
            raise
        # Hydra stumbles in its own code over some values of a group
        reason = "a group takes the name of a part, or a list of names"
        raise ValueError(f"the options cannot be put together: {reason} ({error})") from error


def _additive(name: str, argument: str) -> str:
    """Let ``algorithm.num_steps=10`` set an option that no yaml names, and ``metric=null`` leave a part out.

    Defaults live in Python alone, so the composed config lacks most options; what is set is checked against the
    signature of its class before anything is built.
    """
    part = argument.removesuffix("=null")
    if part != argument and (config_dir() / part).is_dir():
        return f"~{part}"
    dotted = re.match(r"([A-Za-z_]\w*)(\.\w+)+=", argument)
    if dotted is None or dotted[1] == "hydra":
        return argument
    if dotted[1] not in _options(name):
        _fail(_unknown(dotted[1], name))
    return f"++{argument}"


def _report(name: str, run: Callable[[], Any]) -> Any:
    """Turn what the user can mend into one line and exit code 2; SBFLOW_TRACEBACK=1 shows the traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return run()
    except (HydraException, OmegaConfBaseException, ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("SBFLOW_TRACEBACK"):
            raise
        _fail(_one_line(name, error), 1 if _is_fault(error) else 2)
    except KeyboardInterrupt:
        print("sbflow: interrupted", file=sys.stderr)
        sys.exit(130)


def _is_fault(error: BaseException) -> bool:
    """A failure of the machine (full disk, lost connection), not of what the user wrote."""
    from hydra.errors import HydraException

    mendable = (
        HydraException,
        FileNotFoundError,
        FileExistsError,
        NotADirectoryError,
        IsADirectoryError,
        PermissionError,
    )
    return isinstance(error, OSError) and not isinstance(error, mendable)


def _one_line(name: str, error: BaseException) -> str:
    # Hydra wraps what a constructor raised; the cause is what the user can mend
    cause = error.__cause__ if type(error).__name__ == "InstantiationException" and error.__cause__ else error
    key = re.search(r"full_key: (\S+)", str(error))
    if isinstance(cause, OSError) and cause.strerror:
        cause = f"{cause.strerror}: {cause.filename}" if cause.filename else cause.strerror
    text = re.split(r"Config search path:|\n\s*full_key|\n\s*object_type", str(cause))[0]
    text = re.sub(r"\s+", " ", text).strip()
    unknown = re.match(r"Could not override '(\w+)'", text)
    if unknown:
        return _unknown(unknown[1], name)
    return f"{key[1]}: {text}" if key and key[1] not in text else text


def _options(name: str) -> list[str]:
    """Top-level keys and groups of a command's config."""
    from omegaconf import OmegaConf

    config = OmegaConf.load(config_dir() / f"{name}.yaml")
    groups = [next(iter(item)) for item in config.defaults if not isinstance(item, str)]
    keys = {str(key) for key in [*groups, *config]}
    return sorted(key for key in keys if key not in ("defaults", "hydra") and "/" not in key)


def _unknown(key: str, name: str) -> str:
    return f"{key} is not an option of sbflow {name}; allowed: {', '.join(_options(name))}"


def _fail(message: str, code: int = 2) -> None:
    if not first_process():
        # where the first process fails by the same cause, it says so and ends this one
        time.sleep(3)
    print(f"sbflow: {message}", file=sys.stderr)
    sys.exit(code)


def _usage() -> str:
    lines = ["usage: sbflow COMMAND [key=value ...]", "", "commands:"]
    lines += [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    lines += ["", "sbflow COMMAND --help lists the options of a command, -m sweeps, --cfg job shows the config."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
