"""Freed memory stays with the process of a command, unless the environment says otherwise."""

import platform
import subprocess
import sys

import pytest

from sbflow.command import heap

FAULTS = """
import resource
from sbflow.command.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        # several at once: glibc keeps a single block by itself
        blocks = [b"x" * size for size in 4 * [2**24]]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


class Library:
    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return int(value < 2**30)


@pytest.fixture
def library(monkeypatch):
    library = Library()
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: library)
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    return library


def test_a_value_that_the_library_refuses_is_followed_by_one_that_it_takes(library):
    heap.keep_freed_memory()
    assert library.calls == [(-1, 2**31 - 1), (-3, 2**30), (-3, 2**25)]


def test_the_environment_comes_first(library, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    heap.keep_freed_memory()
    assert not library.calls


def test_a_library_without_the_function_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    heap.keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back in this way")
def test_large_blocks_are_not_cleared_again(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 0 and after < before / 20
