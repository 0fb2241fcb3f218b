"""Which files a translation reads and writes."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from sbflow.data.images import image_files

__all__ = ["Task", "plan_task"]


class Task(NamedTuple):
    """Files of a translation.

    Attributes:
        source: folder of the inputs.
        destination: folder of the results.
        results: for every input, relative to ``source`` and in a fixed order, its results relative to ``destination``.
        left_out: links that lead out of the folder.
    """

    source: Path
    destination: Path
    results: dict[Path, list[Path]]
    left_out: list[Path]

    def exists(self, name: Path) -> bool:
        """Whether all results of an input are there; they are written whole or not at all."""
        return all((self.destination / result).exists() for result in self.results[name])


def plan_task(source: Path, output: Path, num_results: int) -> Task:
    """Find the inputs and name the results.

    Args:
        source: an image, or a folder of images.
        output: folder of the results; for one image it may be the ``.png`` file.
        num_results: files per input.

    Raises:
        FileNotFoundError: there is no such input, or no image in it.
        ValueError: a result would be written among the inputs, over one of them, or through a link out of the folder.
    """
    left_out: list[Path] = []
    if source.is_file():
        task = _single(source, output, num_results)
    else:
        names = image_files(source, left_out=left_out)
        bases = _bases(names)
        results = {name: _numbered(base, num_results) for name, base in bases.items()}
        task = Task(source, output, results, left_out)
    if source.is_dir():
        _check_outside(task)
    _check(task)
    return task


def _single(source: Path, output: Path, num_results: int) -> Task:
    name = Path(source.name)
    if output.suffix and not output.is_dir():
        if output.suffix.lower() != ".png":
            raise ValueError(f"output must be a folder or end in .png, got {output}")
        return Task(source.parent, output.parent, {name: _numbered(Path(output.stem), num_results)}, [])
    return Task(source.parent, output, {name: _numbered(name.with_suffix(""), num_results)}, [])


def _bases(names: list[Path]) -> dict[Path, Path]:
    """Name of each result before .png: that of the input without its suffix, with it where two would be the same."""
    bases = {name: name.with_suffix("") for name in names}
    while True:
        # letters of either case are the same to some file systems
        count = Counter(str(base).lower() for base in bases.values())
        clashing = [name for name, base in bases.items() if count[str(base).lower()] > 1 and base != name]
        if not clashing:
            return bases
        bases |= {name: name for name in clashing}


def _numbered(base: Path, num_results: int) -> list[Path]:
    if num_results == 1:
        return [base.with_name(f"{base.name}.png")]
    return [base.with_name(f"{base.name}-{k}.png") for k in range(num_results)]


def _check_outside(task: Task) -> None:
    """Refuse to write results among the inputs of a folder."""
    source = task.source.resolve()
    folders = {task.destination, *((task.destination / r).parent for names in task.results.values() for r in names)}
    if any(folder.resolve().is_relative_to(source) for folder in folders):
        raise ValueError(f"output must lie outside input, or a second run would translate it; got {task.destination}")


def _check(task: Task) -> None:
    """Refuse to write over an input or through a link out of the folder of the results."""
    if task.destination.exists() and not task.destination.is_dir():
        raise ValueError(f"output={task.destination} is a file; give a folder")
    root = task.destination.resolve()
    inputs = {(task.source / name).resolve() for name in task.results}
    for file in (task.destination / name for names in task.results.values() for name in names):
        if file.resolve() in inputs:
            raise ValueError(f"output: {file} would be written over an input; choose another folder")
        if not file.parent.resolve().is_relative_to(root):
            raise ValueError(f"output: {file.parent} leads out of {task.destination} by a link; choose another folder")
