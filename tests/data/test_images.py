"""Images in and out."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from pictures import save_noise
from PIL import Image

from sbflow.data.images import image_files, image_size, read_image, read_pixels, write_image


def test_an_image_survives_the_round_trip(tmp_path):
    pixels = torch.randint(0, 256, (3, 9, 7)) / 127.5 - 1
    write_image(pixels, tmp_path / "deep" / "a.png")
    assert torch.allclose(read_image(tmp_path / "deep" / "a.png", (3, 9, 7)), pixels, atol=1e-6)


def test_values_outside_the_range_are_clamped_for_display(tmp_path):
    write_image(torch.tensor([[[-3.0, 3.0]]]), tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 255]]


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


@pytest.mark.parametrize(("largest", "expected"), [(255, 200 / 127.5 - 1), (65535, -1)])
def test_32_bit_grey_is_read_as_8_bits_where_its_values_fit(tmp_path, largest, expected):
    pixels = np.full((100, 100), 200, dtype=np.int32)
    pixels[0, 0] = largest
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert abs(read_image(tmp_path / "a.tif", (1, 100, 100)).median() - expected) < 1e-6


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


def test_an_image_is_turned_upright_by_its_exif(tmp_path):
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(pixels, -1)
    assert np.array_equal(read_pixels(tmp_path / "a.png", (3, 4, 6)).permute(1, 2, 0), upright)
    assert image_size(tmp_path / "a.png") == (4, 6)


def test_the_size_of_an_image_is_height_and_width(tmp_path):
    save_noise(tmp_path / "a.png", 0, size=(7, 3))
    assert image_size(tmp_path / "a.png") == (3, 7)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.convert(mode).save(tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png", (1, 1, 2)).flatten().tolist() == [255, 0]


def test_colours_survive_a_palette_and_cmyk(tmp_path):
    for mode, name in (("P", "a.png"), ("CMYK", "a.tif"), ("RGB", "a.bmp")):
        Image.new("RGB", (3, 3), (255, 0, 0)).convert(mode).save(tmp_path / name)
        assert (read_pixels(tmp_path / name, (3, 3, 3))[:, 0, 0] - torch.tensor([255, 0, 0])).abs().max() <= 3


def test_cropping_keeps_proportions_and_stretching_does_not(tmp_path):
    pixels = np.zeros((8, 32), dtype=np.uint8)
    pixels[:, 12:20] = 255  # a square in the middle of a wide picture
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png", (1, 8, 8), fit="crop").min() == 255
    stretched = read_pixels(tmp_path / "a.png", (1, 8, 8), fit="stretch")
    assert stretched.min() == 0 and stretched.shape == (1, 8, 8)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (5, 4)])
def test_cropping_takes_any_proportions(tmp_path, size):
    save_noise(tmp_path / "a.png", 0, size=size)
    for shape in ((3, 8, 8), (3, 4, 9)):
        assert read_pixels(tmp_path / "a.png", shape, fit="crop").shape == shape


def test_floating_point_pixels_are_refused(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="floating-point"):
        read_image(tmp_path / "a.tif", (1, 4, 4))


def _png_header(width: int, height: int) -> bytes:
    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT" + zlib.compress(b"\0" * 100))


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    (tmp_path / "a.png").write_bytes(_png_header(side, side))
    for read in (lambda file: read_image(file, (3, 4, 4)), image_size):
        with pytest.raises((OSError, ValueError), match=r"pixels"):
            read(tmp_path / "a.png")


def test_whatever_is_no_image_raises_one_line(tmp_path):
    save_noise(tmp_path / "whole.jpg", 0, size=(64, 64))
    save_noise(tmp_path / "whole.png", 0, size=(64, 64))
    jpeg, png = ((tmp_path / f"whole.{kind}").read_bytes() for kind in ("jpg", "png"))
    contents = [b"", b"text", jpeg[:-200], jpeg[:20], png[:-40], png[:30], png[:60] + b"\xff" * 30 + png[90:]]
    contents.append(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    for content in contents:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises((OSError, ValueError)) as error:
            read_image(tmp_path / "a.png", (3, 8, 8))
        assert str(error.value) and "\n" not in str(error.value)


def test_a_pipe_is_neither_listed_nor_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    save_noise(tmp_path / "a.png", 0)
    assert [name.name for name in image_files(tmp_path)] == ["a.png"]
    with pytest.raises(OSError, match="is not a file"):
        read_image(tmp_path / "pipe.png", (3, 8, 8))


def test_links_that_lead_out_of_the_folder_are_left_out_and_named(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    save_noise(folder / "deep" / "a.png", 0)
    save_noise(outside / "b.png", 1)
    (folder / "inside.png").symlink_to(folder / "deep" / "a.png")
    (folder / "leaving.png").symlink_to(outside / "b.png")
    (folder / "away").symlink_to(outside)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    left_out = []
    assert [str(name) for name in image_files(folder, left_out=left_out)] == ["deep/a.png", "inside.png"]
    assert [str(name) for name in left_out] == ["away", "leaving.png"]


def test_a_folder_that_is_itself_a_link_is_read(tmp_path):
    save_noise(tmp_path / "real" / "a.png", 0)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [str(name) for name in image_files(tmp_path / "link")] == ["a.png"]


def test_a_message_about_a_folder_names_the_option(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^folder1=.*nothing is not a folder$"):
        image_files(tmp_path / "nothing", option="folder1")


def test_writing_gives_the_same_bytes_and_leaves_nothing_else(tmp_path):
    image = torch.rand(3, 9, 7) * 2 - 1
    for name in ("a.png", "b.png"):
        write_image(image, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    write_image(torch.zeros(1, 4, 4), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(image, file, **options):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_image(torch.ones(1, 4, 4), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_an_image_is_resized_before_it_is_written(tmp_path):
    write_image(torch.full((3, 4, 4), 0.2), tmp_path / "a.png", size=(10, 6))
    assert image_size(tmp_path / "a.png") == (10, 6)
    assert np.unique(np.asarray(Image.open(tmp_path / "a.png"))).tolist() == [153]


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    name = "x" * 251 + ".png"
    write_image(torch.zeros(1, 4, 4), tmp_path / name)
    assert (tmp_path / name).is_file()


def test_a_name_that_is_not_utf_8_is_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_image(torch.zeros(1, 4, 4), tmp_path / name)
    assert [file.name for file in image_files(tmp_path)] == [name]
