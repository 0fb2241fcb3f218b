import pytest
import torch

from sbflow.potential import NaivePotential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc.memory import AllocatedBytes, Pieces, check_chunk_size, memory_bytes
from sbflow.target import CallableTarget, Funnel, GaussianTarget

DOUBLE = 8


def squares(x):
    """Two numbers of float64 for each coordinate, and the view makes nothing."""
    return (x.square() + 1).view(-1)


def test_bytes_are_those_of_what_operations_make():
    x = torch.zeros(5, 3, dtype=torch.float64)
    with AllocatedBytes() as allocated:
        squares(x)
    assert allocated.count == 2 * 5 * 3 * DOUBLE


@pytest.mark.parametrize(("memory", "count"), [("2GB", 2 * 10**9), ("1.5 MB", 1_500_000), (" .3kB ", 300)])
def test_a_memory_is_read(memory, count):
    assert memory_bytes(memory) == count


@pytest.mark.parametrize("chunk_size", ["2", "GB", "-1GB", "0MB", "2gb", "1e3MB", "2TB", "", 2.5, 0, -1])
@pytest.mark.usefixtures("unchecked_types")
def test_what_is_neither_a_number_nor_a_memory_is_refused(chunk_size):
    with pytest.raises(ValueError, match="a number from 1 on or a memory such as '2GB', got"):
        check_chunk_size(chunk_size)


def recorded(function):
    """The function, and the points and bytes of its calls so far."""
    calls = []

    def call(x):
        with AllocatedBytes() as allocated:
            result = function(x)
        calls.append((len(x), allocated.count))
        return result

    return call, calls


def test_no_call_makes_more_than_the_memory_and_it_is_measured_once():
    call, calls = recorded(squares)
    pieces = Pieces("1kB")
    for n, sizes in ((100, [8, 1, *[20] * 4, 11]), (50, [20, 20, 10])):
        x = torch.randn(n, 3, dtype=torch.float64)
        calls.clear()
        assert torch.equal(torch.cat(pieces(call, x)), squares(x))
        # 48 bytes a point: 20 of them make 960
        assert [size for size, _ in calls] == sizes
        assert all(count == 48 * size for size, count in calls)


def test_what_every_call_makes_anew_is_set_aside():
    call, calls = recorded(lambda x: x * torch.ones(100, dtype=torch.float64).sum())
    Pieces("1kB")(call, torch.zeros(200, 1, dtype=torch.float64))
    # 800 bytes of ones and 8 of their sum; then 8 a point
    assert max(size for size, _ in calls) == (1000 - 808) // 8


def test_what_the_first_call_alone_makes_does_not_loosen_the_bound():
    kept = []

    def lazy(x):
        if not kept:
            kept.append(torch.ones(60, dtype=torch.float64))
        return squares(x)

    call, calls = recorded(lazy)
    Pieces("1kB")(call, torch.zeros(100, 3, dtype=torch.float64))
    assert max(count for _, count in calls[1:]) <= 1000


@pytest.mark.parametrize("count", [0, 1, 9])
def test_few_points_go_at_once(count):
    (piece,) = Pieces("1kB")(squares, torch.ones(count, 2))
    assert len(piece) == 2 * count


def test_a_memory_below_one_point_is_refused():
    with pytest.raises(ValueError, match=r"chunk_size=1kB is too little: one point takes up to 0.016 MB"):
        Pieces("1kB")(squares, torch.ones(10, 1000, dtype=torch.float64))


@pytest.mark.parametrize(
    "target",
    [Funnel(10), GaussianTarget([0.0, 0.0], [[2.0, 1.0], [1.0, 1.0]]), CallableTarget(lambda x: -(x**2).sum(), 4)],
)
def test_memory_of_a_density_with_gradient_is_linear_in_the_points(target):
    potential = NaivePotential(target, OrnsteinUhlenbeck())
    # the first call of a function finds out how it is batched
    potential.log_g_and_grad(torch.randn(10, target.dim), torch.tensor(0.5))
    counts = []
    for n in (50, 100, 150):
        with AllocatedBytes() as allocated:
            potential.log_g_and_grad(torch.randn(n, target.dim), torch.tensor(0.5))
        counts.append(allocated.count)
    assert counts[2] - counts[1] == counts[1] - counts[0] >= 50 * target.dim * 4
