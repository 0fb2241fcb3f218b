"""Images in and out."""

import pytest
import torch
from PIL import Image

from sbflow.data.images import image_files, read_image, write_image


def test_an_image_survives_the_round_trip(tmp_path):
    pixels = torch.randint(0, 256, (3, 9, 7)) / 127.5 - 1
    write_image(pixels, tmp_path / "deep" / "a.png")
    assert torch.allclose(read_image(tmp_path / "deep" / "a.png", (3, 9, 7)), pixels, atol=1e-6)


def test_values_outside_the_range_are_clamped_for_display(tmp_path):
    write_image(torch.tensor([[[-3.0, 3.0]]]), tmp_path / "a.png")
    assert list(Image.open(tmp_path / "a.png").getdata()) == [0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_and_size_becomes_what_the_model_takes(tmp_path, mode, channels):
    Image.new(mode, (20, 31)).save(tmp_path / "a.tiff")
    image = read_image(tmp_path / "a.tiff", (channels, 16, 12))
    assert image.shape == (channels, 16, 12)
    assert image.min() >= -1 and image.max() <= 1


def test_sixteen_bit_grey_keeps_its_contrast(tmp_path):
    Image.new("I;16", (4, 4), 32768).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", (1, 4, 4)).mean().abs() < 0.01


def test_files_are_listed_in_order_with_their_sub_folders(tmp_path):
    for name in ("b/x.png", "a.JPG", "notes.txt", "b/a.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [str(name) for name in image_files(tmp_path)] == ["a.JPG", "b/a.webp", "b/x.png"]


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no image"):
        image_files(tmp_path)


def test_a_model_of_vectors_refuses_images(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="not images"):
        read_image(tmp_path / "a.png", (5,))
