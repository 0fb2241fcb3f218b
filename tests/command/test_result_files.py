"""Which files a translation reads and writes."""

import os
from pathlib import Path

import pytest
from PIL import Image

from sbflow.command.result_files import plan_task


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 9).save(folder / name, format="png")
    return folder


def results(task):
    return {str(name): [str(result) for result in found] for name, found in task.results.items()}


def test_results_keep_sub_folders_and_names(tmp_path):
    task = plan_task(make(tmp_path / "in", "a.png", "deeper/b.jpg"), tmp_path / "out", 1)
    assert results(task) == {"a.png": ["a.png"], "deeper/b.jpg": ["deeper/b.png"]}


def test_several_results_are_numbered(tmp_path):
    task = plan_task(make(tmp_path / "in", "a.png"), tmp_path / "out", 3)
    assert results(task) == {"a.png": ["a-0.png", "a-1.png", "a-2.png"]}


@pytest.mark.parametrize("count", [1, 2])
def test_no_two_inputs_share_a_result(tmp_path, count):
    names = ("g.png", "g.bmp", "g.png.jpg", "G.gif", "h-0.png", "h.png", "h.jpg", "k.png", "deeper/g.png")
    task = plan_task(make(tmp_path / "in", *names), tmp_path / "out", count)
    every = [str(result).lower() for found in task.results.values() for result in found]
    assert len(every) == len(set(every)) == count * len(names)
    assert results(task)["k.png"][0] == ("k.png" if count == 1 else "k-0.png")


def test_one_image_goes_to_a_file_or_into_a_folder(tmp_path):
    image = make(tmp_path / "in", "a.jpg") / "a.jpg"
    for output, folder, name in (("b.png", ".", "b.png"), ("out", "out", "a.png"), (".", ".", "a.png")):
        task = plan_task(image, tmp_path / output, 1)
        assert (task.destination, results(task)) == (tmp_path / folder, {"a.jpg": [name]})
    with pytest.raises(ValueError, match=r"end in \.png, got .*b\.jpg"):
        plan_task(image, tmp_path / "b.jpg", 1)


def test_an_input_is_never_written_over(tmp_path):
    make(tmp_path / "data", "in/in/a.png", "in/b.png")
    for output in (tmp_path / "data", tmp_path / "data" / "in", tmp_path / "data" / "in" / "out"):
        with pytest.raises(ValueError, match="outside input"):
            plan_task(tmp_path / "data" / "in", output, 1)
    with pytest.raises(ValueError, match="over an input"):
        plan_task(tmp_path / "data" / "in" / "b.png", tmp_path / "data" / "in", 1)
    (tmp_path / "link.png").symlink_to(tmp_path / "data" / "in" / "b.png")
    with pytest.raises(ValueError, match="over an input"):
        plan_task(tmp_path / "data" / "in" / "b.png", tmp_path / "link.png", 1)


def test_links_that_lead_out_are_neither_read_nor_written_through(tmp_path):
    secret = make(tmp_path / "secret", "s.png")
    folder = make(tmp_path / "in", "a.png", "deeper/b.png")
    (folder / "link.png").symlink_to(secret / "s.png")
    os.symlink(secret, folder / "linked")
    task = plan_task(folder, tmp_path / "out", 1)
    assert set(results(task)) == {"a.png", "deeper/b.png"}
    assert Path("link.png") in task.left_out
    (tmp_path / "out").mkdir()
    os.symlink(secret, tmp_path / "out" / "deeper")
    with pytest.raises(ValueError, match="leads out of"):
        plan_task(folder, tmp_path / "out", 1)


def test_a_file_in_the_place_of_the_output_folder_is_named(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="is a file; give a folder"):
        plan_task(make(tmp_path / "in", "a.png"), tmp_path / "out", 1)
