import pytest
import torch
from assertions import assert_mean_close

from sbflow.metric.kernel import kernel_distance


def test_it_is_the_unbiased_discrepancy_of_the_cubic_kernel():
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)

    def kernel(x, y):
        return (x @ y.T / 4 + 1) ** 3

    off = ~torch.eye(6, dtype=torch.bool)
    expected = kernel(a, a)[off].mean() + kernel(b, b)[off].mean() - 2 * kernel(a, b).mean()
    assert kernel_distance(a, b) == pytest.approx(expected.item(), rel=1e-9)


def test_two_sets_of_one_law_are_at_zero_in_the_mean():
    values = [kernel_distance(*torch.randn(2, 20, 3, dtype=torch.float64)) for _ in range(400)]
    assert min(values) < 0
    assert_mean_close(torch.tensor(values), 0.0)


def test_sets_too_small_or_broken_are_refused():
    for bad in (torch.zeros(1, 3), torch.full((4, 3), torch.nan)):
        with pytest.raises(ValueError, match="the kernel distance needs at least 2 finite feature vectors"):
            kernel_distance(torch.zeros(4, 3), bad)
