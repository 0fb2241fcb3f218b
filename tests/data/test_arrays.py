"""Unpaired samples in files of arrays."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sbflow.data.arrays import ArrayFiles, read_array


def numbered(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float64)[:, None] * [1.0, -1.0]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    np.save(tmp_path / "a.npy", numbered(30))
    np.savez(tmp_path / "b.npz", first=numbered(20), second=numbered(25))
    return tmp_path / "a.npy", tmp_path / "b.npz"


def test_rows_are_split_without_loss_or_overlap(files):
    data = ArrayFiles(*files, key1="second", test_fraction=0.2)
    train, test = data.split("train"), data.split("test")
    assert data.event_shape == (2,) and train.x0.dtype == torch.get_default_dtype()
    assert [len(train.x0), len(test.x0), len(train.x1), len(test.x1)] == [24, 6, 20, 5]
    for parts, n in (((train.x0, test.x0), 30), ((train.x1, test.x1), 25)):
        assert sorted(torch.cat(parts)[:, 0].tolist()) == list(range(n))


def test_a_fraction_of_zero_tests_on_all_rows(files):
    data = ArrayFiles(*files, key1="first", test_fraction=0.0)
    assert torch.equal(data.split("train").x0, data.split("test").x0) and len(data.split("test").x0) == 30


def test_batches_come_from_the_training_rows_alone(files):
    data = ArrayFiles(*files, key1="first", test_fraction=0.5, batch_size=500)
    data.trainer = SimpleNamespace(global_step=0, max_steps=1, accumulate_grad_batches=1, global_rank=0)
    drawn = next(iter(data.train_dataloader()))
    for end in ("x0", "x1"):
        assert set(drawn[end][:, 0].tolist()) == set(getattr(data.split("train"), end)[:, 0].tolist())


def test_an_array_larger_than_memory_is_sampled(files):
    data = ArrayFiles(*files, key1="first", test_fraction=0.0, memory_gb=2 * 5 * 2 * 4 / 2**30)
    split = data.split("train")
    assert len(split.x0) == len(split.x1) == 5 and len(data.sources().x0) == 30


@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 1, 4, 5), (6, 4, 5, 3), (6, 3, 4, 5)])
def test_bytes_are_pixels(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    x = ArrayFiles(tmp_path / "a.npy", tmp_path / "a.npy", test_fraction=0.0).split("train").x0
    expected = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1) if shape[3] == 3 else pixels
    assert torch.allclose((x + 1) * 127.5, torch.from_numpy(np.ascontiguousarray(expected)).float(), atol=1e-4)


def test_tensors_are_read_from_torch_files(tmp_path):
    torch.save(torch.arange(12).reshape(4, 3), tmp_path / "a.pt")
    torch.save({"x": torch.ones(5, 3), "labels": [1, 2]}, tmp_path / "b.pt")
    split = ArrayFiles(tmp_path / "a.pt", tmp_path / "b.pt", key1="x", test_fraction=0.0).split("train")
    assert split.x0.tolist() == np.arange(12.0).reshape(4, 3).tolist() and len(split.x1) == 5


@pytest.mark.parametrize("dtype", [np.uint16, np.int8, np.float16, ">f8"])
def test_any_real_number_type_is_cast(tmp_path, dtype):
    np.save(tmp_path / "a.npy", numbered(4)[:, :1].astype(dtype))
    split = ArrayFiles(tmp_path / "a.npy", tmp_path / "a.npy", test_fraction=0.0).split("train")
    assert split.x0.flatten().tolist() == [0, 1, 2, 3]


class Harmful:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a file was executed",))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Harmful(), Harmful()]), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array([Harmful(), Harmful()]))
    torch.save(Harmful(), tmp_path / "c.pt")
    for name in ("a.npy", "b.npz", "c.pt"):
        with pytest.raises(ValueError, match=r"x0=.* must be") as error:
            read_array(tmp_path / name, None, "x0") if name != "b.npz" else read_array(tmp_path / name, "x", "x0")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(3), r"x0=.* must hold real numbers \[n, \*event\] with n >= 2, got torch.float64 of \[3\]"),
        (np.zeros((1, 2)), "n >= 2"),
        (np.zeros((3, 0)), r"of \[3, 0\]"),
        (np.zeros((3, 2), complex), "real numbers"),
        (np.zeros((3, 2), bool), "real numbers"),
        (np.full((3, 2), np.nan), "holds NaN or infinite values"),
        (np.zeros((3, 2), np.uint8), r"holds bytes, hence pixels, and must be \[n, h, w\]"),
    ],
)
def test_what_are_no_samples_is_refused(tmp_path, content, message):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=message):
        read_array(tmp_path / "a.npy", None, "x0")


def test_the_array_that_is_meant_must_be_clear(files, tmp_path):
    with pytest.raises(ValueError, match=r"x1=.*b.npz holds the arrays first, second; choose one with key1"):
        ArrayFiles(*files).prepare_data()
    with pytest.raises(ValueError, match="choose one with key1"):
        ArrayFiles(*files, key1="third").prepare_data()
    with pytest.raises(ValueError, match="holds one array without a name; leave out key0=x"):
        ArrayFiles(*files, key0="x", key1="first").prepare_data()


def test_missing_damaged_and_unequal_files_are_one_line(files, tmp_path):
    (tmp_path / "c.npy").write_bytes(files[0].read_bytes()[:-8])
    (tmp_path / "d.npz").write_bytes(files[1].read_bytes()[:-30])
    np.save(tmp_path / "e.npy", np.zeros((5, 3)))
    with pytest.raises(FileNotFoundError, match=r"x0=.*nothing.npy is no file"):
        ArrayFiles(tmp_path / "nothing.npy", files[1]).prepare_data()
    for name in ("c.npy", "d.npz"):
        with pytest.raises(ValueError, match=r"x1=.* must be a .npy, .npz or .pt file of numbers"):
            ArrayFiles(files[0], tmp_path / name).prepare_data()
    (tmp_path / "text.npy").write_text("1.0, 2.0")
    with pytest.raises(ValueError, match=r"x1=.*text.npy must be .* file of numbers: its content is none of these$"):
        ArrayFiles(files[0], tmp_path / "text.npy").prepare_data()
    with pytest.raises(ValueError, match=r"x0 and x1 must share their event shape, got \[2\] and \[3\]"):
        ArrayFiles(files[0], tmp_path / "e.npy").prepare_data()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"test_fraction": -0.1}, "test_fraction must lie in"), ({"memory_gb": 0.0}, "memory_gb must be positive")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ArrayFiles("a.npy", "b.npy", **options)
