"""Digits and letters drawn offline from the fonts that matplotlib ships.

Each (font, character) is rendered once at 64×64; every sample is a random affine change of one of these pictures,
antialiased down to the requested size. The fonts of the test split are not used for training, though relatives of each
(another weight or slant of its family) are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from sbflow.data.unpaired import Split, UnpairedData

__all__ = ["DIGITS", "LETTERS", "TEST_FONTS", "TRAIN_FONTS", "Glyphs", "draw_glyphs", "random_affine", "warp"]

DIGITS = "0123456789"
LETTERS = "ABCDEabcde"
TRAIN_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmb10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
TEST_FONTS = ("DejaVuSans-BoldOblique", "DejaVuSansMono", "DejaVuSerif", "STIXGeneralBol", "cmr10")

CANVAS = 64
CAPITAL_HEIGHT = 42
MAX_ROTATION = 0.2  # radians
MAX_SHEAR = 0.15
MAX_SHIFT = 0.1  # of half the picture
SCALES = (0.85, 1.1)


class Glyphs(UnpairedData):
    """Printed digits 0–9 (x0) and printed letters A–E, a–e (x1), white (1) on black (-1), one channel.

    Labels number the characters in the order of `DIGITS` and `LETTERS`. Fonts, characters and affine changes are drawn
    uniformly: rotation up to 0.2 rad, shear up to 0.15, scale 0.85 to 1.1 per axis, shift up to a tenth of half a side.

    Args:
        size: side of the square pictures in pixels, 8 to 64.
        num_train: training pictures of each end.
        num_test: test pictures of each end, from fonts that training does not see.
        render_seed: seed of the pictures, apart from ``seed`` so that runs of several seeds share one test split.
        **kwargs: see `UnpairedData`.
    """

    def __init__(
        self, *, size: int = 16, num_train: int = 8000, num_test: int = 2000, render_seed: int = 0, **kwargs: int
    ) -> None:
        super().__init__(**kwargs)
        if not 8 <= size <= CANVAS:
            raise ValueError(f"size must lie in [8, {CANVAS}], got {size}")
        for name, count in (("num_train", num_train), ("num_test", num_test)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.size = size
        self.counts = {"train": num_train, "test": num_test}
        self.render_seed = render_seed

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Draw the pictures of one split."""
        fonts = {"train": TRAIN_FONTS, "test": TEST_FONTS}[split]
        generator = torch.Generator().manual_seed(2 * self.render_seed + (split == "test"))
        x0, labels0 = self._draw(fonts, DIGITS, self.counts[split], generator)
        x1, labels1 = self._draw(fonts, LETTERS, self.counts[split], generator)
        return Split(x0, x1, labels0, labels1)

    def _draw(self, fonts: Sequence[str], characters: str, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        glyphs = draw_glyphs(fonts, characters)
        labels = torch.randint(len(characters), (n,), generator=generator)
        font = torch.randint(len(fonts), (n,), generator=generator)
        affine = random_affine(n, generator=generator)
        # in pieces: a full-resolution picture of every sample at once would take hundreds of megabytes
        pieces = zip(font.split(1000), labels.split(1000), affine.split(1000), strict=True)
        return torch.cat([warp(glyphs[one, label], change, self.size) for one, label, change in pieces]), labels


def draw_glyphs(fonts: Sequence[str], characters: str) -> Float[Tensor, "fonts characters 64 64"]:
    """Each character in each font, with values in [0, 1], centred by its bounding box.

    Capitals have the same height in all fonts; other characters keep their size relative to them.

    Args:
        fonts: file names without ``.ttf`` in matplotlib's font folder.
        characters: the characters to draw.

    Raises:
        FileNotFoundError: this matplotlib ships without one of the fonts.
    """
    return torch.stack([torch.stack([_draw_one(c, font) for c in characters]) for font in map(_load_font, fonts)])


def _load_font(name: str) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise FileNotFoundError(f"the glyphs are drawn with the fonts of matplotlib, but {path} does not exist")
    # the basic layout is in every build of Pillow, so pictures do not depend on whether libraqm is installed
    at_100 = ImageFont.truetype(path, 100, layout_engine=ImageFont.Layout.BASIC)
    _, top, _, bottom = at_100.getbbox("E")
    return at_100.font_variant(size=100 * CAPITAL_HEIGHT / (bottom - top))


def _draw_one(character: str, font: ImageFont.FreeTypeFont) -> Float[Tensor, "64 64"]:
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (CANVAS, CANVAS))
    corner = ((CANVAS - left - right) / 2, (CANVAS - top - bottom) / 2)
    ImageDraw.Draw(image).text(corner, character, fill=255, font=font)
    return torch.from_numpy(np.array(image)).float() / 255


def random_affine(n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n 2 3"]:
    """Random affine maps from output to input coordinates, as `torch.nn.functional.affine_grid` takes them."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle, shear = uniform(-MAX_ROTATION, MAX_ROTATION), uniform(-MAX_SHEAR, MAX_SHEAR)
    width, height = uniform(*SCALES), uniform(*SCALES)
    shift = torch.stack([uniform(-MAX_SHIFT, MAX_SHIFT), uniform(-MAX_SHIFT, MAX_SHIFT)], dim=1)
    cos, sin = angle.cos(), angle.sin()
    # rotation · shear · scale, applied to the glyph; the grid needs its inverse
    columns = torch.stack(
        [
            torch.stack([cos, sin], 1) * width[:, None],
            torch.stack([shear * cos - sin, shear * sin + cos], 1) * height[:, None],
        ],
        dim=2,
    )
    inverse = torch.linalg.inv(columns)
    return torch.cat([inverse, -inverse @ shift[:, :, None]], dim=2)


def warp(glyphs: Float[Tensor, "n 64 64"], affine: Float[Tensor, "n 2 3"], size: int) -> Float[Tensor, "n 1 size size"]:
    """Apply one affine map per glyph and antialias down to ``size`` pixels; values in [0, 1] become [-1, 1]."""
    oversampling = max(1, CANVAS // size)
    side = oversampling * size
    grid = F.affine_grid(affine, [len(glyphs), 1, side, side], align_corners=False)
    fine = F.grid_sample(glyphs[:, None], grid, align_corners=False)
    return 2 * F.avg_pool2d(fine, oversampling).clamp(0, 1) - 1
