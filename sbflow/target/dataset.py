"""Where the data sets of the targets lie, and how they are read.

Nothing is downloaded: tables are read from ``<data root>/bayes/<name>.csv``, a header and then numbers.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["data_root", "read_csv"]

_LABELLED = "label 0 or 1 and features"
_TABLES = {
    "sonar": (_LABELLED, "https://archive.ics.uci.edu/dataset/151"),
    "ionosphere": (_LABELLED, "https://archive.ics.uci.edu/dataset/52"),
    "brownian_missing_middle": (
        "time and observation, empty where missing",
        "https://github.com/tensorflow/probability/tree/main/spinoffs/inference_gym",
    ),
    "finnish_pines": ("coordinates x and y in the unit square", "https://doi.org/10.1111/1467-9469.00115"),
}


def data_root() -> Path:
    """Folder of the data: ``SBFLOW_DATA`` where it is set, else ``sbflow`` in the user's cache folder."""
    if root := os.environ.get("SBFLOW_DATA"):
        return Path(root).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "sbflow"


def read_csv(name: str) -> Float[Tensor, "rows columns"]:
    """Read one table in float64; an empty cell becomes NaN.

    Args:
        name: ``sonar`` or ``ionosphere``, whose first column is the label (0 or 1) and the others are features;
            ``brownian_missing_middle`` with the columns time and observation (empty where missing); or
            ``finnish_pines`` with the coordinates x and y in the unit square.

    Raises:
        FileNotFoundError: there is no such file; the message says where to get it and where to put it.
        ValueError: it is no table of numbers with a header.
    """
    path = data_root() / "bayes" / f"{name}.csv"
    if not path.is_file():
        columns, source = _TABLES[name]
        raise FileNotFoundError(
            f"no file {path}: set SBFLOW_DATA to the folder that holds bayes/{name}.csv "
            f"(a header, then rows of {columns}; the data are at {source})"
        )
    return torch.from_numpy(_parse(path, _TABLES[name][0]))


def _parse(path: Path, columns: str) -> NDArray[np.float64]:
    try:
        with warnings.catch_warnings():
            # of an empty file, which is refused below
            warnings.simplefilter("ignore", UserWarning)
            table = np.genfromtxt(  # type: ignore[call-overload]  # numpy's stubs know no None
                path, delimiter=",", skip_header=1, dtype=np.float64, comments=None, ndmin=2
            )
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} must be a table, a header and then rows of {columns}: {reason}") from error
    if table.shape[0] < 1 or table.shape[1] < 2:
        shape = f"{table.shape[0]} rows of {table.shape[1]}"
        raise ValueError(f"{path} must be a table, a header and then rows of {columns}, got {shape}")
    return table
