"""Two folders of images."""

from pathlib import Path
from typing import Any, Literal

from sbflow.data.image_data import Files, ImageData, held_out, list_folder
from sbflow.target.dataset import data_root

__all__ = ["AFHQ", "CatsDogs64", "ClassFolders", "ImageFolders"]

AFHQ_SOURCE = "https://github.com/clovaai/stargan-v2"
CATS_DOGS_SOURCE = "64x64 photographs of the Asirra set, https://www.microsoft.com/download/details.aspx?id=54765"


class ImageFolders(ImageData):
    """Images of any size and format in two folders, sub-folders included; their numbers need not be equal.

    Args:
        folder0: images of π₀.
        folder1: images of π₁.
        test0: test images of π₀; by default a part of ``folder0``.
        test1: test images of π₁; by default a part of ``folder1``.
        test_fraction: share of a folder that is kept for testing where there is no test folder, chosen by a hash of
            each name; 0 tests on the training images.
        **kwargs: see `ImageData`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        folder0: str | Path,
        folder1: str | Path,
        *,
        test0: str | Path | None = None,
        test1: str | Path | None = None,
        test_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= test_fraction < 1:
            raise ValueError(f"test_fraction must lie in [0, 1), got {test_fraction}")
        self.train = (folder0, folder1)
        self.test = (test0, test1)
        self.test_fraction = test_fraction

    def files(self, split: Literal["train", "test"]) -> tuple[Files, Files]:
        """Images of both ends of a split.

        Raises:
            FileNotFoundError: a folder does not exist or holds no image.
        """
        return self._end(0, split), self._end(1, split)

    def _end(self, end: Literal[0, 1], split: Literal["train", "test"]) -> Files:
        test = self.test[end]
        if split == "test" and test is not None:
            return list_folder(f"test{end}", test)
        files = list_folder(f"folder{end}", self.train[end])
        return files if test is not None else held_out(files, self.test_fraction, split)


class ClassFolders(ImageData):
    """Two classes of a set laid out as ``<root>/<split>/<class>/``, with a test split called test or val.

    Args:
        root: folder of the set.
        class0: name of the folders of π₀.
        class1: name of the folders of π₁.
        **kwargs: see `ImageData`.
    """

    source = "your own images"

    def __init__(self, root: str | Path, class0: str, class1: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for option, name in (("class0", class0), ("class1", class1)):
            if len(Path(name).parts) != 1 or name == "..":
                raise ValueError(f"{option} must be the name of a folder in <root>/<split>, got {name!r}")
        self.root = Path(root)
        self.classes = (class0, class1)

    def files(self, split: Literal["train", "test"]) -> tuple[Files, Files]:
        """Images of both classes in a split.

        Raises:
            FileNotFoundError: a folder does not exist or holds no image; the message says where the set comes from.
        """
        folder = self.root / split
        if split == "test" and not folder.is_dir():
            folder = self.root / "val"
        for name in self.classes:
            if not (folder / name).is_dir():
                expected = f"{self.root}/{{train,test}}/{{{','.join(self.classes)}}}"
                raise FileNotFoundError(f"no folder {folder / name}: expected {expected} (source: {self.source})")
        return list_folder("class0", folder / self.classes[0]), list_folder("class1", folder / self.classes[1])


class AFHQ(ClassFolders):
    """Faces of animals: two of cat, dog and wild, in the layout of AFHQ v1 and v2.

    Args:
        class0: class of π₀.
        class1: class of π₁.
        root: folder that holds ``train`` and ``test`` or ``val``; by default ``afhq`` in the folder that
            ``SBFLOW_DATA`` names.
        **kwargs: see `ImageData`.

    References:
        Choi, Uh, Yoo, Ha, StarGAN v2: Diverse Image Synthesis for Multiple Domains, 2020.
    """

    source = AFHQ_SOURCE

    def __init__(
        self, *, class0: str = "wild", class1: str = "cat", root: str | Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_root() / "afhq" if root is None else root, class0, class1, **kwargs)


class CatsDogs64(ClassFolders):
    """Photographs of cats (x0) and dogs (x1), whole animals that are not aligned.

    Args:
        root: folder that holds ``{train,test}/{A,B}``; by default ``cats_dogs64`` in the folder that ``SBFLOW_DATA``
            names.
        **kwargs: see `ImageData`.
    """

    source = CATS_DOGS_SOURCE

    def __init__(self, *, root: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(data_root() / "cats_dogs64" if root is None else root, "A", "B", **kwargs)
