import pytest
import torch

from sbflow.data.glyphs import (
    DIGITS,
    LETTERS,
    TEST_FONTS,
    TRAIN_FONTS,
    Glyphs,
    draw_glyphs,
    random_affine,
    warp,
)

IDENTITY = torch.eye(2, 3)[None]


def small(**kwargs: int) -> Glyphs:
    return Glyphs(**({"num_train": 300, "num_test": 200} | kwargs))


def test_both_splits_hold_labelled_white_on_black_images():
    for name, n in (("train", 300), ("test", 200)):
        split = small().split(name)
        for x, labels in ((split.x0, split.labels0), (split.x1, split.labels1)):
            assert x.shape == (n, 1, 16, 16) and x.dtype == torch.float32
            assert x.min() == -1 and 0.5 < x.max() <= 1
            assert set(labels.tolist()) == set(range(10))
            assert x.mean(dim=(1, 2, 3)).max() < 0, "every image is mostly black"
            assert x.amax(dim=(1, 2, 3)).min() > -0.5, "no image is empty"


def test_the_fonts_of_the_test_split_are_held_out():
    assert not set(TRAIN_FONTS) & set(TEST_FONTS)


def test_every_font_draws_every_character_differently():
    glyphs = draw_glyphs(TRAIN_FONTS + TEST_FONTS, DIGITS + LETTERS)
    assert glyphs.shape == (len(TRAIN_FONTS) + len(TEST_FONTS), 20, 64, 64)
    for font in glyphs.flatten(2):
        distances = torch.cdist(font, font) + 1e6 * torch.eye(20)
        assert distances.min() > 5, "a missing character would be drawn as the same box as another"
    assert (glyphs[:, :, 0] == 0).all() and (glyphs[:, :, :, 0] == 0).all(), "glyphs fit in the canvas"


def test_pictures_depend_on_the_render_seed_alone():
    once = small(render_seed=1, seed=5).split("train")
    torch.rand(3)
    again = small(render_seed=1, seed=6).split("train")
    assert torch.equal(once.x0, again.x0) and torch.equal(once.x1, again.x1)
    assert not torch.equal(once.x0, small(render_seed=2).split("train").x0)


def test_drawing_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    small().split("test")
    assert torch.equal(before, torch.get_rng_state())


def test_the_identity_only_shrinks_the_glyph():
    glyphs = draw_glyphs(TRAIN_FONTS[:1], "8")[0]
    expected = 2 * glyphs.reshape(1, 16, 4, 16, 4).mean(dim=(2, 4)) - 1
    assert torch.allclose(warp(glyphs, IDENTITY, 16)[:, 0], expected, atol=1e-5)


def test_a_shift_moves_the_centre_of_mass_by_as_much():
    glyph = torch.zeros(1, 64, 64)
    glyph[:, 28:36, 28:36] = 1
    shift = 8 / 32
    affine = IDENTITY.clone()
    affine[0, 0, 2] = -shift
    mass = (warp(glyph, affine, 16)[0, 0] + 1) / 2
    columns = torch.arange(16) + 0.5
    assert ((mass.sum(0) * columns).sum() / mass.sum()).item() == pytest.approx(8 + 8 * shift, abs=1e-4)


def test_random_maps_are_centred_and_keep_the_area_within_the_scales():
    affine = random_affine(20_000, generator=torch.Generator().manual_seed(0))
    determinant = torch.linalg.det(affine[:, :, :2])
    assert determinant.min() > 1.1**-2 - 1e-4 and determinant.max() < 0.85**-2 + 1e-4
    # for the inverse map -A⁻¹ b with b symmetric about 0 the mean is 0
    shift = affine[:, :, 2]
    assert (shift.mean(0).abs() < 5 * shift.std(0) / 20_000**0.5).all()


@pytest.mark.parametrize("size", [8, 28, 64])
def test_other_sizes_are_drawn(size):
    assert small(size=size, num_test=4).split("test").x0.shape == (4, 1, size, size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4}, r"size must lie in \[8, 64\], got 4"),
        ({"size": 65}, "size must lie"),
        ({"num_test": 0}, "num_test must be at least 1, got 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Glyphs(**arguments)


def test_a_missing_font_is_named():
    with pytest.raises(FileNotFoundError, match=r"NoSuchFont\.ttf does not exist"):
        draw_glyphs(["NoSuchFont"], "A")
