"""An estimate as files: numbers that anybody can read, and tensors."""

import json
import math
import os
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from sbflow.atomic import replacing
from sbflow.smc.evidence import Cost, Evidence

__all__ = ["read", "write"]

NUMBERS, TENSORS = "evidence.json", "samples.pt"


def write(evidence: Evidence, folder: Path) -> None:
    """Write the samples and all other tensors by name to ``samples.pt``, then the summary to ``evidence.json``."""
    values = {entry.name: getattr(evidence, entry.name) for entry in fields(evidence)}
    tensors = {name: value.cpu() for name, value in values.items() if isinstance(value, Tensor)}
    parameters = {name: value.cpu() for name, value in evidence.parameters.items()}
    # both are on the disk before either takes its place, the numbers last: where they are, everything is
    with replacing(folder / NUMBERS) as numbers, replacing(folder / TENSORS) as samples:
        numbers.write((json.dumps(evidence.summary(), indent=2) + "\n").encode())
        numbers.flush()
        os.fsync(numbers.fileno())
        torch.save(tensors | {"parameters": parameters}, samples)


def read(folder: Path) -> Evidence:
    """Read what `write` wrote; a number that was not finite comes back as NaN.

    Raises:
        FileNotFoundError: there is no evidence in the folder.
    """
    if not (folder / NUMBERS).is_file():
        raise FileNotFoundError(f"no {NUMBERS} in {folder}: give a folder that sbflow sample or Evidence.save wrote")
    numbers = json.loads((folder / NUMBERS).read_text())
    values = torch.load(folder / TENSORS, weights_only=True)
    for entry in fields(Evidence):
        if entry.name.endswith("cost"):
            prefix = entry.name.removesuffix("cost")
            values[entry.name] = Cost(*(numbers.get(f"{prefix}{kind}_evaluations", 0) for kind in Cost._fields))
        elif entry.name not in values:
            # numbers that an earlier version did not write are not known
            number = numbers.get(entry.name)
            values[entry.name] = math.nan if number is None else number
    return Evidence(**values)
