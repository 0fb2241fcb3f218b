"""Files appear whole or not at all, whatever interrupts the writing."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from sbflow.atomic import remove_partial_files, replacing
from sbflow.callback import AtomicCheckpointIO


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    file = tmp_path / "deeper" / "file"
    with replacing(file) as handle:
        handle.write(b"old")
    with replacing(file) as handle:
        handle.write(b"new")
        handle.flush()
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(AttributeError), replacing(file) as handle:
        torch.save(object.no_such_thing, handle)
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(tmp_path, monkeypatch, call):
    file = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, file)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(OSError, match="No space left on device; the file from before is untouched"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, file)
    monkeypatch.undo()
    assert torch.load(file, weights_only=True)["step"] == 1
    assert not list(tmp_path.glob(".*"))


def test_a_file_size_limit_of_the_system_leaves_the_old_checkpoint(tmp_path):
    pytest.importorskip("resource")
    code = f"""
import resource, torch
from pathlib import Path
from sbflow.callback import AtomicCheckpointIO
file = Path({str(tmp_path)!r}) / "last.ckpt"
AtomicCheckpointIO().save_checkpoint({{"x": torch.ones(3)}}, file)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    AtomicCheckpointIO().save_checkpoint({{"x": torch.ones(200_000)}}, file)
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the file from before is untouched" in done.stdout, done.stderr
    assert len(torch.load(tmp_path / "last.ckpt", weights_only=True)["x"]) == 3
    assert not list(tmp_path.glob(".*"))


def test_the_checkpoint_before_is_kept_and_both_carry_the_format(tmp_path):
    for step in range(3):
        AtomicCheckpointIO().save_checkpoint({"step": step}, tmp_path / "last.ckpt")
    steps = {name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("last", "previous")}
    assert (steps["last"]["step"], steps["previous"]["step"]) == (2, 1)
    assert steps["last"]["sbflow_format"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_the_checkpoint_before_is_kept_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for step in range(2):
        AtomicCheckpointIO().save_checkpoint({"step": step}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "previous.ckpt", weights_only=True)["step"] == 0


def test_leftovers_of_dead_processes_are_removed_and_no_others(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "deeper").mkdir()
    kept = [f".a.png.{os.getppid()}.partial", ".notes.partial", "b.1.partial"]
    for name in (*kept, f"deeper/.a.png.{dead.pid}.partial"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
