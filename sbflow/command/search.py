"""What ``sbflow translate search=…`` adds: a search for each image, and its record ``search.json``."""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from sbflow.algorithm.translation import DIRECTIONS
from sbflow.command.build import build, check_options, check_trusted
from sbflow.command.run import Run, write_json
from sbflow.coupling.rollout import in_pieces
from sbflow.data.unpaired import Split
from sbflow.integrator import time_grid
from sbflow.metric.classifier import train_classifier
from sbflow.metric.protocol import LabelledSplit
from sbflow.search import Roll, Search, rescore
from sbflow.search.result import doubt
from sbflow.target.callable import import_function
from sbflow.tensor import seeded_generator
from sbflow.verifier import ClassifierLogProbability, Verifier

__all__ = ["Record", "Searcher", "check_search", "halves", "make_searcher", "save_record", "write_record"]


class Record(NamedTuple):
    """One result of a search; scores in the unit of the verifier, squared distances from the input per value.

    Attributes:
        baseline_score: of the translation without a search; None where it is infinite.
        score: of the result, likewise.
        baseline_held_out_score: by the verifier that the search did not see, if there is one.
        held_out_score: likewise, of the result.
        baseline_squared_distance: of the translation without a search.
        squared_distance: of the result.
        drift_evaluations: network evaluations of the search.
        verifier_evaluations: results that the verifier was shown.
    """

    baseline_score: float | None
    score: float | None
    baseline_held_out_score: float | None
    held_out_score: float | None
    baseline_squared_distance: float
    squared_distance: float
    drift_evaluations: int
    verifier_evaluations: int


class Searcher:
    """A search with its verifiers and the translation that it searches.

    Args:
        search: the search.
        roll: the translation.
        verifier: its judge.
        held_out: another judge, of the same scale, for the record alone.
    """

    def __init__(self, search: Search, roll: Roll, verifier: Verifier, held_out: Verifier | None) -> None:
        self.search = search
        self.roll = roll
        self.verifier = verifier
        self.held_out = held_out
        self.records: dict[str, list[Record]] = {}

    def __call__(self, x: Tensor, names: Sequence[str], seeds: Sequence[tuple[int, ...]]) -> Tensor:
        """The best result for every row of images, which goes by a name and has a seed.

        Args:
            x: images ``[n, c, h, w]``.
            names: of the image of each row; rows of one name are its samples.
            seeds: of each row; the baseline is the translation with the same one.
        """
        result = self.search(self.roll, x, self.verifier, seed=seeds)
        columns = [result.baseline_score, result.score, None, None]
        if self.held_out is not None:
            held_out = rescore(result, x, self.held_out)
            columns[2:] = [held_out.baseline_score, held_out.score]
        columns += [(made - x).square().flatten(1).mean(1) for made in (result.baseline, result.samples)]
        values = [[None] * len(x) if column is None else _finite(column) for column in columns]
        costs = result.drift_evaluations, result.verifier_evaluations
        fresh: dict[str, list[Record]] = {name: [] for name in names}
        for name, *row in zip(names, *values, strict=True):
            fresh[name].append(Record(*row, *costs))
        self.records |= fresh
        return result.samples


def _finite(column: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in column.tolist()]


def check_search(config: DictConfig) -> None:
    """Refuse options of a search that do not go together, or that would run foreign code without ``trust=true``.

    Raises:
        ValueError: names the option and what is allowed.
    """
    if config.get("search") is None:
        for name in ("verifier", "held_out"):
            if config.get(name) is not None:
                raise ValueError(f"{name} is an option of a search: choose one with search=NAME")
        return
    if config.sampler != "sde":
        raise ValueError(f"search varies the noise of sampler=sde, got sampler={config.sampler}")
    if config.method == "adams":
        raise ValueError("search goes on from any step, which method=euler alone can: leave out method=adams")
    for name in ("search", "verifier"):
        if config.get(name) is None:
            raise ValueError(f"search needs a judge: choose one with {name}=NAME")
        if not config.trust:
            check_trusted(config[name], name)
        check_options(config[name], name)
    if config.held_out is not None and not config.trust:
        raise ValueError(f"held_out would run {config.held_out}, which is not part of sbflow; allow it with trust=true")


def make_searcher(config: DictConfig, run: Run) -> Searcher | None:
    """The search that the options describe, on the device of the run's algorithm; None where there is to be none.

    A verifier that asks for a classifier gets one that is trained here, on half of the run's own training data; one
    that is trained on the other half is then held out.

    Raises:
        ValueError: the options are wrong, or the data do not have the wanted class.
    """
    if config.get("search") is None:
        return None
    search = build(config, "search")
    search.baseline = True
    # a budget that does not suffice is to be known before anything is trained
    search.evaluations(config.num_steps)
    part = {"_partial_": True, **OmegaConf.to_container(config.verifier, resolve=True, throw_on_missing=True)}
    make = build(OmegaConf.create({"verifier": part}), "verifier")
    held_out = None if config.held_out is None else import_function("held_out", config.held_out)
    if make.func is ClassifierLogProbability:
        verifier, *others = _trained(make, run, config, 2 if held_out is None else 1)
        return Searcher(search, _roll(run.algorithm, config), verifier, *others or [held_out])
    return Searcher(search, _roll(run.algorithm, config), make(), held_out)


def write_record(folder: Path, config: DictConfig, records: dict[str, list[Record]]) -> str:
    """Write ``search.json``, warn where a held-out verifier does not confirm it, and return one line on it.

    Args:
        folder: of the results.
        config: options of the command.
        records: results of every image.
    """
    means, warning = save_record(folder, config, records)
    if warning:
        print(f"sbflow: {warning}", file=sys.stderr)
    parts = [f"{means['drift_evaluations']:g} network evaluations per result"]
    for name in ("score", "held_out_score", "squared_distance"):
        before, after = means[f"baseline_{name}"], means[name]
        if before is not None and after is not None:
            parts.append(f"{name.replace('_', ' ')} {before:.4g} -> {after:.4g}")
    return "search: " + ", ".join(parts)


def save_record(
    folder: Path, config: DictConfig, records: dict[str, list[Record]]
) -> tuple[dict[str, float | None], str | None]:
    """Write ``search.json``, and return the means over all results and the warning in it.

    Images that an earlier call with the same options translated into the folder stay in the record.
    """
    chosen = ("checkpoint", "direction", "num_steps", "last_noise", "seed", "search", "verifier", "held_out")
    options = OmegaConf.to_container(OmegaConf.masked_copy(config, list(chosen)), resolve=True)
    file = folder / "search.json"
    images = _earlier(file, options) | {name: [record._asdict() for record in rows] for name, rows in records.items()}
    # whatever the order in which processes and earlier calls came to them
    images = dict(sorted(images.items()))
    rows = [row for results in images.values() for row in results]
    means = {name: _mean([row[name] for row in rows]) for name in Record._fields}
    warning = _warning(rows)
    write_json(file, {**means, "warning": warning, "options": options, "images": images})
    return means, warning


def _earlier(file: Path, options: Any) -> dict[str, Any]:
    # what is not such a record is written over
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        record = json.loads(file.read_text())
        if record["options"] == options:
            return {name: [Record(**row)._asdict() for row in rows] for name, rows in record["images"].items()}
    return {}


def _mean(values: Sequence[float | int | None]) -> float | None:
    """Average over all results; of a score that is missing or infinite somewhere there is none."""
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if len(finite) == len(values) > 0 else None


def _warning(rows: list[dict[str, Any]]) -> str | None:
    names = ("score", "baseline_score", "held_out_score", "baseline_held_out_score")
    table = [[row[name] for name in names] for row in rows]
    if not table or any(None in row for row in table):
        return None
    score, before, held_out, held_out_before = torch.tensor(table, dtype=torch.float64).T
    return doubt(score - before, (score - before) - (held_out - held_out_before))


def _roll(algorithm: Any, config: DictConfig) -> Roll:
    """The translation of ``sbflow translate``, its network called with as many rows at once as there."""
    network, flag = algorithm.ema.module.eval(), DIRECTIONS.index(config.direction)
    field = in_pieces(lambda x, u, rows: network(x, u.to(x.dtype).reshape(1), rows), config.batch_size)
    last_noise = algorithm.last_noise if config.last_noise is None else config.last_noise

    def drift(x: Tensor, u: Tensor) -> Tensor:
        return field(x, u, torch.full((len(x),), flag, device=x.device))

    return Roll(drift, algorithm.process, time_grid("uniform", config.num_steps), last_noise=last_noise)


def _trained(make: Any, run: Run, config: DictConfig, count: int) -> list[Verifier]:
    """Verifiers by classifiers, each trained on its own half of the training data."""
    data = build(run.config, "data")
    data.prepare_data()
    split, forward = data.split("train"), config.direction == "forward"
    wanted, verifiers = _wanted(make.keywords["label"], split.labels1 if forward else split.labels0), []
    for number, half in enumerate(halves(split)[:count]):
        classifier = train_classifier(half, seed=config.seed + number, device=run.algorithm.device)
        # the classes of x1 come after those of x0
        first = classifier.num_classes0 if forward else 0
        verifiers.append(make(classifier=classifier, label=[first + label for label in wanted]))
    return verifiers


def halves(split: LabelledSplit) -> tuple[Split, Split]:
    """Every other sample of each end, in random order since sets may come sorted, and the rest."""
    order0, order1 = (torch.randperm(len(x), generator=seeded_generator(0, len(x))) for x in (split.x0, split.x1))
    first, second = (
        Split(
            split.x0[order0[start::2]],
            split.x1[order1[start::2]],
            None if split.labels0 is None else split.labels0[order0[start::2]],
            None if split.labels1 is None else split.labels1[order1[start::2]],
        )
        for start in (0, 1)
    )
    return first, second


def _wanted(labels: int | Sequence[int], known: Tensor | None) -> list[int]:
    """The wanted classes, numbered within the end that is translated to.

    Raises:
        ValueError: the end does not have such a class.
    """
    count = 1 if known is None else int(known.max()) + 1
    wanted = [labels] if isinstance(labels, int) else list(labels)
    if not wanted or not all(0 <= label < count for label in wanted):
        raise ValueError(f"verifier.label must be a class of the results, from 0 to {count - 1}, got {labels}")
    return wanted
