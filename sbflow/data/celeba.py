"""CelebA and sets in its layout: one folder of images and a table of attributes."""

from pathlib import Path
from typing import Any, Literal

from torchvision.datasets import CelebA as TorchvisionCelebA

from sbflow.data.image_data import Files, ImageData, held_out, list_folder
from sbflow.target.dataset import data_root

__all__ = ["CelebA", "read_attribute"]

SOURCE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
PARTITIONS = {"train": "0", "test": "2"}


class CelebA(ImageData):
    """Aligned faces without an attribute (x0) and with it (x1).

    Read from ``<root>/img_align_celeba/`` and ``<root>/list_attr_celeba.txt``: the number of images, the names of the
    attributes, then a file name and 1 or -1 for each attribute per line. Where ``<root>/list_eval_partition.txt`` says
    which image is for training (0) and which for testing (2), it decides; otherwise a tenth is kept for testing.

    Args:
        attribute: name of the attribute.
        root: folder of the set; by default ``celeba`` in the folder that ``SBFLOW_DATA`` names.
        download: fetch the set where it is missing, by torchvision, which checks its md5 (1.4 GB, needs gdown).
        **kwargs: see `ImageData`.

    References:
        Liu, Luo, Wang, Tang, Deep Learning Face Attributes in the Wild, 2015.
    """

    def __init__(
        self, *, attribute: str = "Male", root: str | Path | None = None, download: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.attribute = attribute
        self.root = data_root() / "celeba" if root is None else Path(root)
        self.download = download

    def prepare_data(self) -> None:
        """Fetch the set where that is allowed, and look whether it is there."""
        if self.download and self._table("list_attr_celeba") is None:
            if self.root.name != "celeba":
                raise ValueError(f"root must end in celeba for download=true, got {self.root}")
            try:
                TorchvisionCelebA(str(self.root.parent), split="all", target_type="attr", download=True)
            except (RuntimeError, OSError) as error:
                raise FileNotFoundError(f"CelebA cannot be fetched ({error}); source: {SOURCE}") from error
        super().prepare_data()

    def files(self, split: Literal["train", "test"]) -> tuple[Files, Files]:
        """Images without and with the attribute in a split.

        Raises:
            FileNotFoundError: the images or the table are not there.
            ValueError: the table is damaged, has no such attribute, or leaves an end empty.
        """
        table = self._table("list_attr_celeba")
        if table is None:
            missing = self.root / "list_attr_celeba.txt"
            raise FileNotFoundError(f"no file {missing}: set SBFLOW_DATA or root, or download=true (source: {SOURCE})")
        present = read_attribute(table, self.attribute)
        images = list_folder("root", self.root / "img_align_celeba")
        without, having = (self._end(images, present, split, value) for value in (False, True))
        if not without.names or not having.names:
            counts = f"{len(without.names)} images without and {len(having.names)} with it"
            raise ValueError(f"attribute={self.attribute} leaves {counts} in the {split} split of {self.root}")
        return without, having

    def _end(self, images: Files, present: dict[str, bool], split: Literal["train", "test"], value: bool) -> Files:
        end = images._replace(names=[name for name in images.names if present.get(name.as_posix()) is value])
        table = self._table("list_eval_partition")
        if table is None:
            return held_out(end, 0.1, split)
        partition = {row[0]: row[1] for row in _rows(table) if len(row) == 2}
        return end._replace(names=[name for name in end.names if partition.get(name.as_posix()) == PARTITIONS[split]])

    def _table(self, name: str) -> Path | None:
        """The table as it is published, or as a copy separated by commas."""
        return next((file for suffix in (".txt", ".csv") if (file := self.root / f"{name}{suffix}").is_file()), None)


def read_attribute(table: Path, attribute: str) -> dict[str, bool]:
    """Whether each image has an attribute, by file name.

    Raises:
        ValueError: the table is damaged or has no such attribute.
    """
    rows = _rows(table)
    # the number of images stands first in the original; a copy may begin with the names, or with a name for the files
    start = 1 if rows and len(rows[0]) == 1 else 0
    names = [name for name in (rows[start] if rows[start:] else []) if name != "image_id"]
    if attribute not in names:
        raise ValueError(f"attribute={attribute} is not in {table}; allowed: {', '.join(names)}")
    column = 1 + names.index(attribute)
    present = {}
    for row in rows[start + 1 :]:
        if len(row) != 1 + len(names) or row[column] not in ("1", "-1"):
            raise ValueError(f"{table} must hold a name and {len(names)} values of 1 or -1 per line, got {row[:3]} …")
        present[row[0]] = row[column] == "1"
    return present


def _rows(table: Path) -> list[list[str]]:
    """Words of each line that is not empty."""
    lines = table.read_text(errors="replace").replace(",", " ").splitlines()
    return [line.split() for line in lines if line.strip()]
