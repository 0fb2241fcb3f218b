import pytest
import torch

from sbflow.potential import NaivePotential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc.memory import AllocatedBytes, in_pieces, memory_bytes
from sbflow.target import LGCP, CallableTarget, Funnel

DOUBLE = 8


def squares(x):
    """Two numbers of float64 for each coordinate, and the view makes nothing."""
    return (x.square() + 1).view(-1)


def test_bytes_are_those_of_what_operations_make():
    x = torch.zeros(5, 3, dtype=torch.float64)
    with AllocatedBytes() as allocated:
        squares(x)
    assert allocated.count == 2 * 5 * 3 * DOUBLE


@pytest.mark.parametrize(("memory", "count"), [("2GB", 2 * 10**9), ("1.5 MB", 1_500_000), (" 3kB ", 3000)])
def test_a_memory_is_read(memory, count):
    assert memory_bytes(memory) == count


@pytest.mark.parametrize("memory", ["2", "GB", "-1GB", "0MB", "2gb", "1e3MB", "2TB", ""])
def test_another_text_is_no_memory(memory):
    with pytest.raises(ValueError, match="a memory such as '2GB', got"):
        memory_bytes(memory)


def test_no_call_makes_more_than_the_memory():
    sizes, counts = [], []

    def call(x):
        with AllocatedBytes() as allocated:
            result = squares(x)
        sizes.append(len(x))
        counts.append(allocated.count)
        return result

    x = torch.randn(1000, 3, dtype=torch.float64)
    pieces = in_pieces(call, x, "1kB")
    # 48 bytes a point: 20 of them make 960
    assert sizes[:3] == [1, 8, 20] and max(sizes) == 20 and max(counts) <= 1000 and sum(sizes) == 1000
    assert torch.equal(torch.cat(pieces), squares(x))


def test_what_every_call_makes_anew_is_set_aside():
    sizes = []

    def call(x):
        sizes.append(len(x))
        return x * torch.ones(100, dtype=torch.float64).sum()

    x = torch.zeros(200, 1, dtype=torch.float64)
    in_pieces(call, x, "1kB")
    # 800 bytes of ones and 8 of their sum; then 8 a point
    assert max(sizes) == (1000 - 808) // 8


@pytest.mark.parametrize("count", [1, 9])
def test_few_points_go_at_once(count):
    (piece,) = in_pieces(squares, torch.ones(count, 2), "1kB")
    assert len(piece) == 2 * count


def test_a_memory_below_one_point_is_refused():
    with pytest.raises(ValueError, match=r"chunk_size=1kB is too little: one point takes up to 0.016 MB"):
        in_pieces(squares, torch.ones(10, 1000, dtype=torch.float64), "1kB")


@pytest.mark.parametrize("target", [Funnel(10), LGCP(), CallableTarget(lambda x: -x.square().sum(), 4)])
def test_memory_of_a_density_with_gradient_is_linear_in_the_points(target):
    potential = NaivePotential(target, OrnsteinUhlenbeck())
    counts = []
    for n in (50, 100):
        with AllocatedBytes() as allocated:
            potential.log_g_and_grad(torch.randn(n, target.dim), torch.tensor(0.5))
        counts.append(allocated.count)
    floor = 100 * target.dim * 4
    assert floor <= counts[1] <= 2.001 * counts[0]
