"""Unpaired images in folders."""

import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pictures import fill, save_noise

from sbflow.data.celeba import CelebA
from sbflow.data.folders import AFHQ, CatsDogs64, ClassFolders, ImageFolders
from sbflow.data.image_data import Files, held_out
from sbflow.data.images import read_image
from sbflow.target.dataset import data_root


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return fill(tmp_path / "a", 9, 1), fill(tmp_path / "b", 5, 2, size=(20, 14), mode="L")


def batches(data: ImageFolders, start: int = 0, total: int = 4) -> torch.Tensor:
    data.trainer = SimpleNamespace(global_step=start, max_steps=total, accumulate_grad_batches=1, global_rank=0)
    return torch.stack([torch.cat([batch["x0"], batch["x1"]]) for batch in data.train_dataloader()])


def test_folders_of_unequal_counts_sizes_and_modes_become_tensors(folders):
    data = ImageFolders(*folders, size=(8, 6), test_fraction=0.0)
    split = data.split("train")
    assert data.event_shape == (3, 8, 6) and split.x0.shape == (9, 3, 8, 6) and split.x1.shape == (5, 3, 8, 6)
    assert split.x0.abs().max() <= 1 and split.x0.dtype == torch.get_default_dtype()
    expected = torch.stack([read_image(folders[0] / f"{k:03d}.png", (3, 8, 6), fit="crop") for k in range(9)])
    assert torch.equal(split.x0, expected)


def test_training_and_test_images_are_disjoint_and_together_everything(folders):
    data = ImageFolders(*folders, size=12, channels=1, test_fraction=0.4)
    whole = ImageFolders(*folders, size=12, channels=1, test_fraction=0.0).split("train")
    parts = data.split("train"), data.split("test")
    for all_of_it, *halves in zip(whole[:2], *(part[:2] for part in parts), strict=True):
        rows = [tuple(row.flatten().tolist()) for half in halves for row in half]
        assert len(rows) == len(set(rows)) == len(all_of_it) and min(map(len, halves)) >= 1
        assert set(rows) == {tuple(row.flatten().tolist()) for row in all_of_it}


def test_a_file_stays_in_its_split_when_others_come_and_go():
    names = [Path(f"{k}.png") for k in range(400)]
    files = Files("folder0", Path(), names)
    test = set(held_out(files, 0.25, "test").names)
    fewer = held_out(files._replace(names=names[:200]), 0.25, "test").names
    assert set(fewer) == test & set(names[:200])
    assert abs(len(test) - 100) < 5 * (400 * 0.25 * 0.75) ** 0.5
    assert set(held_out(files, 0.25, "train").names) == set(names) - test


def test_neither_split_of_two_images_is_empty():
    files = Files("folder0", Path(), [Path("a.png"), Path("b.png")])
    for fraction in (1e-9, 1 - 1e-9):
        assert len(held_out(files, fraction, "test").names) == len(held_out(files, fraction, "train").names) == 1


def test_of_eight_images_at_least_four_are_for_testing_and_of_fewer_one():
    files = Files("folder0", Path(), [Path(f"{k}.png") for k in range(17)])
    for n, least in ((7, 1), (8, 4), (17, 4)):
        some = files._replace(names=files.names[:n])
        test, train = (held_out(some, 1e-9, split).names for split in ("test", "train"))
        assert len(test) == least and sorted([*test, *train]) == sorted(some.names)


def test_a_name_that_is_not_utf_8_belongs_to_one_split():
    files = Files("folder0", Path(), [Path(os.fsdecode(b"caf%c.png" % byte)) for byte in range(0xE0, 0xF0)])
    test, train = (held_out(files, 0.5, split).names for split in ("test", "train"))
    assert not set(test) & set(train) and set(test) | set(train) == set(files.names)


def test_test_folders_are_used_where_they_are_given(folders, tmp_path):
    test = fill(tmp_path / "test", 3, 7)
    data = ImageFolders(*folders, test0=test, test_fraction=0.2)
    assert len(data.split("train").x0) == 9 and len(data.split("test").x0) == 3
    assert len(data.split("train").x1) == 5 - len(data.split("test").x1) < 5


@pytest.mark.parametrize("cache", ["memory", "none", "file"])
def test_damaged_files_are_skipped_counted_and_named(folders, tmp_path, cache):
    (folders[0] / "000b.png").write_bytes(b"no image")
    (folders[0] / "deep").mkdir()
    (folders[0] / "deep" / "cut.png").write_bytes((folders[0] / "000.png").read_bytes()[:200])
    where = str(tmp_path / "cache") if cache == "file" else cache
    data = ImageFolders(*folders, size=12, test_fraction=0.0, cache=where)
    with pytest.warns(UserWarning, match=r"skipped 2 of 11 images in .*a that cannot be read: 000b.png .*deep/cut.png"):
        split = data.split("train")
    whole = torch.stack([read_image(folders[0] / f"{k:03d}.png", (3, 12, 12)) for k in range(9)])
    assert torch.equal(split.x0, whole)


@pytest.mark.parametrize(("readable", "damaged"), [(0, 3), (1, 0), (1, 2)])
def test_too_few_readable_images_are_one_clear_error(folders, tmp_path, readable, damaged):
    few = tmp_path / "few"
    few.mkdir()
    fill(few, readable)
    for k in range(damaged):
        (few / f"damaged{k}.jpg").write_bytes(b"")
    message = f"folder1=.*few must hold at least 2 readable images .*, got {readable} and {damaged} that cannot"
    data = ImageFolders(folders[0], few, test_fraction=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=message):
            data.prepare_data()


def test_missing_and_empty_folders_are_named_with_their_option(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder0=.*nothing is not a folder"):
        ImageFolders(tmp_path / "nothing", folders[1]).prepare_data()
    with pytest.raises(FileNotFoundError, match=r"folder1=.*empty holds no image"):
        ImageFolders(folders[0], tmp_path / "empty").prepare_data()
    with pytest.raises(FileNotFoundError, match=r"test0=.*empty holds no image"):
        ImageFolders(*folders, test0=tmp_path / "empty").prepare_data()


def test_links_that_lead_out_are_skipped_and_named(folders, tmp_path):
    save_noise(tmp_path / "outside.png", 3)
    (folders[0] / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.warns(UserWarning, match=r"skipped 1 links that lead out of folder0=.*: link.png"):
        assert len(ImageFolders(*folders, test_fraction=0.0).split("train").x0) == 9


@pytest.mark.parametrize("options", [{}, {"flip": True, "crop_margin": 3}])
def test_every_cache_and_number_of_workers_gives_the_same_batches(folders, tmp_path, options):
    common = {"size": 8, "batch_size": 6, "seed": 5, **options}
    expected = batches(ImageFolders(*folders, **common))
    for cache, workers in (("none", 0), (str(tmp_path / "cache"), 0), (str(tmp_path / "cache"), 0), ("none", 2)):
        assert torch.equal(batches(ImageFolders(*folders, cache=cache, num_workers=workers, **common)), expected)


def test_a_resumed_run_sees_the_augmented_batches_of_the_undisturbed_one(folders):
    data = ImageFolders(*folders, size=8, batch_size=6, flip=True, crop_margin=2)
    undisturbed = batches(data)[2:]
    assert torch.equal(batches(data, start=2)[: len(undisturbed)], undisturbed)


@pytest.mark.parametrize(("suffix", "left"), [("npy", 0), ("npy", 40), ("npy", -1), ("json", 0), ("json", 1)])
def test_decoded_images_that_were_cut_short_are_decoded_again(folders, tmp_path, suffix, left):
    def split() -> torch.Tensor:
        return ImageFolders(*folders, size=8, cache=str(tmp_path / "cache"), test_fraction=0.0).split("train").x0

    first = split().clone()
    for file in (tmp_path / "cache").glob(f"*.{suffix}"):
        file.write_bytes(file.read_bytes()[:left])
    assert torch.equal(split(), first)


def test_a_file_of_decoded_images_is_read_again_and_renewed_when_an_image_changes(folders, tmp_path, monkeypatch):
    def split() -> torch.Tensor:
        return ImageFolders(*folders, size=8, cache=str(tmp_path / "cache"), test_fraction=0.0).split("train").x0

    first = split()
    monkeypatch.setattr("sbflow.data.image_store.read_pixels", lambda *args, **options: pytest.fail("decoded again"))
    assert torch.equal(split(), first)
    monkeypatch.undo()
    save_noise(folders[0] / "000.png", 99)
    os.utime(folders[0] / "000.png", ns=(1, 1))
    assert not torch.equal(split(), first)
    assert not list((tmp_path / "cache").glob(".*"))


def test_an_interrupted_file_of_decoded_images_is_made_anew(folders, tmp_path):
    def split() -> torch.Tensor:
        return ImageFolders(*folders, size=8, cache=str(tmp_path / "cache"), test_fraction=0.0).split("train").x0

    first = split()
    for notes in (tmp_path / "cache").glob("*.json"):
        notes.unlink()
    for pixels in (tmp_path / "cache").glob("*.npy"):
        pixels.write_bytes(pixels.read_bytes()[:50])
    assert torch.equal(split(), first)


def test_a_set_larger_than_memory_is_refused_in_memory_and_sampled_from_disk(folders, tmp_path):
    room = 2 * 4 * 4 * 12 * 12 * 3 / 2**30  # four images of each end, in float32
    with pytest.raises(ValueError, match=r"the 9 images of folder0 take 0.00 GiB, more than half of memory_gb"):
        ImageFolders(*folders, size=12, test_fraction=0.0, memory_gb=room / 8).prepare_data()
    data = ImageFolders(*folders, size=12, test_fraction=0.0, memory_gb=room, cache="none", batch_size=200)
    split = data.split("train")
    assert len(split.x0) == len(split.x1) == 4
    # batches still come from all of them
    assert len(batches(data, total=1)[0, :200].flatten(1).unique(dim=0)) == 9


def test_a_batch_is_reflected_and_cut_at_random_and_a_split_is_not(tmp_path):
    from PIL import Image

    ramp = torch.arange(10, dtype=torch.uint8).repeat(10, 1) * 10
    for end in ("a", "b"):
        (tmp_path / end).mkdir()
        for k in range(2):
            Image.fromarray(ramp.numpy()).save(tmp_path / end / f"{k}.png")
    data = ImageFolders(
        tmp_path / "a", tmp_path / "b", size=8, channels=1, flip=True, crop_margin=2, batch_size=2000, test_fraction=0.0
    )
    x = data.split("train").x0
    assert torch.allclose(x[0, 0, 0] * 127.5 + 127.5, torch.arange(10.0, 90, 10), atol=1e-4)
    rows = (batches(data, total=1)[0, :, 0, 0] * 127.5 + 127.5).round()
    lefts, flipped = rows.amin(1) / 10, rows[:, 0] > rows[:, 1]
    n = len(rows)
    assert abs(flipped.double().mean() - 0.5) < 5 * 0.5 / n**0.5
    for left in (0, 1, 2):
        assert abs((lefts == left).double().mean() - 1 / 3) < 5 * (2 / 9 / n) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3}, "size must be at least 4 pixels in height and width, got 3 x 3"),
        ({"size": [16, 16.5]}, r"size must be an int or two ints, height and width, got \[16, 16.5\]"),
        ({"size": [16]}, r"size must be an int or two ints, height and width, got \[16\]"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"crop_margin": -1}, "crop_margin must be at least 0, got -1"),
        ({"cache": ""}, "cache must be 'memory', 'none' or a folder"),
        ({"memory_gb": 0.0}, "memory_gb must be positive, got 0.0"),
        ({"test_fraction": 1.0}, r"test_fraction must lie in \[0, 1\), got 1.0"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolders("a", "b", **options)


@pytest.mark.parametrize("test", ["test", "val"])
def test_the_layout_of_afhq_is_read(tmp_path, test):
    for seed, (split, name) in enumerate([("train", "cat"), ("train", "wild"), (test, "cat"), (test, "wild")]):
        fill(tmp_path / split / name, 2 + seed, seed)
    data = AFHQ(root=tmp_path, size=8)
    assert [len(x) for x in data.split("train")[:2]] == [3, 2]
    assert [len(x) for x in data.split("test")[:2]] == [5, 4]
    with pytest.raises(FileNotFoundError, match=r"no folder .*dog: expected .*\{cat,dog\} \(source"):
        AFHQ(root=tmp_path, class0="cat", class1="dog").prepare_data()


@pytest.mark.parametrize("name", ["../a", "a/b", "..", "/etc"])
def test_a_class_is_a_name_and_no_path(tmp_path, name):
    with pytest.raises(ValueError, match="class1 must be the name of a folder"):
        ClassFolders(tmp_path, "a", name)


ATTRIBUTES = "{n}\nMale Smiling\n{rows}\n"


def celeba(root: Path, rows: dict[str, str], table: str = ATTRIBUTES) -> Path:
    for seed, name in enumerate(rows):
        save_noise(root / "img_align_celeba" / name, seed, size=(9, 11))
    lines = "\n".join(f"{name} {values}" for name, values in rows.items())
    (root / "list_attr_celeba.txt").write_text(table.format(n=len(rows), rows=lines))
    return root


ROWS = {f"{k:06d}.jpg": ("1 -1" if k % 3 else "-1 1") for k in range(1, 13)}


def test_celeba_is_split_by_attribute_and_partition(tmp_path):
    celeba(tmp_path, ROWS)
    partition = [f"{name} {0 if k < 8 else 2 - (k == 8)}" for k, name in enumerate(ROWS)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    data = CelebA(root=tmp_path, size=8)
    assert [len(x) for x in data.split("train")[:2]] == [2, 6]
    assert [len(x) for x in data.split("test")[:2]] == [1, 2]
    without = read_image(tmp_path / "img_align_celeba" / "000003.jpg", (3, 8, 8), fit="crop")
    assert torch.equal(data.split("train").x0[0], without)


def test_a_table_separated_by_commas_is_read_too(tmp_path):
    celeba(tmp_path, ROWS)
    table = tmp_path / "list_attr_celeba.txt"
    lines = ["image_id,Male,Smiling", *(line.replace(" ", ",") for line in table.read_text().splitlines()[2:])]
    table.unlink()
    (tmp_path / "list_attr_celeba.csv").write_text("\n".join(lines))
    expected = sorted(name for name, values in ROWS.items() if values.startswith("1"))
    data = CelebA(root=tmp_path)
    found = [*data.files("train")[1].names, *data.files("test")[1].names]
    assert sorted(map(str, found)) == expected


def test_a_name_in_the_table_that_leads_out_of_the_folder_is_not_read(tmp_path):
    save_noise(tmp_path / "secret.jpg", 0)
    root = celeba(tmp_path / "celeba", ROWS)
    with (root / "list_attr_celeba.txt").open("a") as table:
        table.write("../../secret.jpg 1 -1\n")
    data = CelebA(root=root)
    names = [name for split in ("train", "test") for files in data.files(split) for name in files.names]
    assert sorted(map(str, names)) == sorted(ROWS)


@pytest.mark.parametrize(
    ("rows", "attribute", "message"),
    [
        (ROWS, "Hat", "attribute=Hat is not in .*; allowed: Male, Smiling"),
        ({**ROWS, "x.jpg": "1"}, "Male", "must hold a name and 2 values of 1 or -1 per line, got"),
        ({**ROWS, "x.jpg": "1 0"}, "Smiling", "must hold a name and 2 values"),
        (dict.fromkeys(ROWS, "1 1"), "Male", "attribute=Male leaves 0 images without and .* with it"),
    ],
)
def test_a_table_that_does_not_serve_is_refused(tmp_path, rows, attribute, message):
    with pytest.raises(ValueError, match=message):
        CelebA(root=celeba(tmp_path, rows), attribute=attribute).prepare_data()


def test_missing_sets_are_reported_with_their_source(tmp_path):
    for data in (AFHQ(root=tmp_path), CatsDogs64(root=tmp_path), CelebA(root=tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"source: ") as error:
            data.prepare_data()
        assert "\n" not in str(error.value)


@pytest.mark.skipif(not (data_root() / "cats_dogs64").is_dir(), reason="needs cats_dogs64 under SBFLOW_DATA")
def test_the_real_cats_and_dogs_are_read():
    split = CatsDogs64(flip=True).split("test")
    assert split.x0.shape[1:] == split.x1.shape[1:] == (3, 64, 64) and min(len(split.x0), len(split.x1)) > 100
