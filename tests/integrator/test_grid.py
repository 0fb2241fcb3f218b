import pytest
import torch

from sbflow.integrator import time_grid


@pytest.mark.parametrize("spacing", ["uniform", "cosine", "quadratic"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_a_named_grid_increases_from_exactly_0_to_exactly_1(spacing, num_steps):
    times = time_grid(spacing, num_steps)
    assert len(times) == num_steps + 1 and times.dtype == torch.float64
    assert times[0] == 0 and times[-1] == 1 and (times.diff() > 0).all()


def test_spacings_are_fine_where_they_say():
    uniform, cosine, quadratic = (time_grid(name, 20).diff() for name in ("uniform", "cosine", "quadratic"))
    assert torch.allclose(uniform, torch.full_like(uniform, 0.05))
    assert torch.allclose(cosine, cosine.flip(0)) and cosine[0] < 0.01 and cosine[10] > 0.05
    assert (quadratic.diff() < 0).all() and quadratic[-1] < 0.01


def test_a_grid_is_taken_as_it_is_in_double_precision():
    grid = torch.tensor([0.0, 0.1, 0.8, 1.0])
    assert torch.equal(time_grid(grid, 99), grid.double())


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("fine", "times must be one of uniform, cosine, quadratic or a tensor of times, got 'fine'"),
        (torch.tensor([0.0]), r"at least 2 times, got shape \[1\]"),
        (torch.zeros(2, 2), r"at least 2 times, got shape \[2, 2\]"),
        (torch.tensor([0.0, 0.5, 0.5, 1.0]), "times must increase from 0 to 1"),
        (torch.tensor([1.0, 0.0]), "times must increase from 0 to 1"),
        (torch.tensor([0.1, 1.0]), "times must increase from 0 to 1"),
    ],
)
def test_an_impossible_grid_is_refused(times, message):
    with pytest.raises(ValueError, match=message):
        time_grid(times, 3)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        time_grid("cosine", 0)
