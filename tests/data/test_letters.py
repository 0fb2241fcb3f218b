import struct
from pathlib import Path

import pytest
import torch

from sbflow.data.letters import MNISTEMNIST, MNISTLetters, read_idx
from sbflow.target.dataset import data_root


def write_idx(path: Path, x: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape)
    path.write_bytes(header + bytes(x.to(torch.uint8).flatten().tolist()))


def pictures(n: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (n, 28, 28), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for prefix, n in (("train", 6), ("t10k", 4)):
        write_idx(tmp_path / "MNIST/raw" / f"{prefix}-images-idx3-ubyte", pictures(n, n))
        write_idx(tmp_path / "MNIST/raw" / f"{prefix}-labels-idx1-ubyte", torch.arange(n))
    for split, n in (("train", 8), ("test", 5)):
        write_idx(tmp_path / "letters" / f"letters-{split}-images-idx3-ubyte", pictures(n, 10 + n))
        write_idx(tmp_path / "letters" / f"letters-{split}-byclass-labels-idx1-ubyte", torch.arange(n))
        emnist = tmp_path / "EMNIST/raw" / f"emnist-letters-{split}"
        write_idx(emnist.with_name(emnist.name + "-images-idx3-ubyte"), pictures(n, 20 + n))
        write_idx(emnist.with_name(emnist.name + "-labels-idx1-ubyte"), 1 + torch.arange(n))
    return tmp_path


def test_digits_and_letters_are_read_into_minus_one_to_one(root):
    split = MNISTLetters(root=root).split("train")
    assert torch.allclose(split.x0[:, 0] * 127.5 + 127.5, pictures(6, 6).float(), atol=1e-4)
    assert torch.allclose(split.x1[:, 0] * 127.5 + 127.5, pictures(8, 18).float(), atol=1e-4)
    assert split.labels0.tolist() == list(range(6)) and split.labels1.tolist() == list(range(8))


def test_the_test_split_is_read_from_its_own_files(root):
    split = MNISTLetters(root=root).split("test")
    assert torch.allclose(split.x0[:, 0] * 127.5 + 127.5, pictures(4, 4).float(), atol=1e-4)
    assert torch.allclose(split.x1[:, 0] * 127.5 + 127.5, pictures(5, 15).float(), atol=1e-4)


def test_emnist_letters_are_turned_upright_and_only_the_first_five_kept(root):
    split = MNISTEMNIST(root=root, download=False).split("train")
    assert torch.allclose(split.x1[:, 0].mT * 127.5 + 127.5, pictures(8, 28)[:5].float(), atol=1e-4)
    assert split.labels1.tolist() == [0, 1, 2, 3, 4] and len(split.x0) == 6


def test_resizing_keeps_constant_images_and_the_range(root):
    write_idx(root / "letters/letters-test-images-idx3-ubyte", torch.full((5, 28, 28), 51))
    split = MNISTLetters(root=root, size=16).split("test")
    assert split.x0.shape == (4, 1, 16, 16) and split.x0.abs().max() <= 1
    assert torch.allclose(split.x1, torch.full((5, 1, 16, 16), 51 / 127.5 - 1), atol=1e-5)


def test_missing_letters_are_reported_in_one_line_with_place_and_source(root):
    (root / "letters/letters-test-images-idx3-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"letters-test-images-idx3-ubyte: set SBFLOW_DATA .*UNIPEN") as error:
        MNISTLetters(root=root).split("test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [(MNISTLetters, r"MNIST not found in .*MNIST.raw: set SBFLOW_DATA"), (MNISTEMNIST, "EMNIST letters not found in")],
)
def test_missing_mnist_files_are_reported_in_one_line(root, data, message):
    for path in (root / ("MNIST" if data is MNISTLetters else "EMNIST")).glob("raw/*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=message) as error:
        data(root=root, download=False).split("train")
    assert "\n" not in str(error.value)


def test_the_default_root_is_the_one_that_the_environment_names(monkeypatch, root):
    monkeypatch.setenv("SBFLOW_DATA", str(root))
    assert len(MNISTLetters().split("test").x1) == 5


def test_an_idx_file_is_read_back(tmp_path):
    x = torch.arange(24).reshape(2, 3, 4)
    write_idx(tmp_path / "x", x)
    assert torch.equal(read_idx(tmp_path / "x"), x.to(torch.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be an idx file of unsigned bytes"),
        (b"\x1f\x8b\x08\x00", "must be an idx file of unsigned bytes, got the first bytes '1f 8b 08 00'"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 0]), "unsigned bytes"),
        (bytes([0, 0, 8, 2, 0, 0]), "got 6: fetch it again"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2]), r"must hold 11 bytes for axes of \[3\], got 10"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 1, 2]), r"must hold 9 bytes for axes of \[1\], got 10"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "x")


def test_a_size_below_eight_is_refused(root):
    with pytest.raises(ValueError, match="size must be at least 8, got 7"):
        MNISTLetters(root=root, size=7)


@pytest.mark.skipif(not (data_root() / "letters").is_dir(), reason="needs the handwritten letters under SBFLOW_DATA")
def test_the_real_digits_and_letters_have_ten_classes_each():
    split = MNISTLetters().split("test")
    assert split.x0.shape == (10_000, 1, 28, 28) and len(split.x1) == len(split.labels1)
    assert set(split.labels0.tolist()) == set(split.labels1.tolist()) == set(range(10))
