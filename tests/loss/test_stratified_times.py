import pytest
import torch
from assertions import assert_mean_close

from sbflow.loss import stratified_times

DOUBLE = torch.zeros(0, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 7, 300, 1000])
def test_every_stratum_holds_exactly_one_time(n):
    times = stratified_times(n, 1e-3, 1.0, like=DOUBLE)
    strata = ((times - 1e-3) / (1 - 1e-3) * n).floor().long()
    assert torch.equal(strata.sort().values, torch.arange(n))


@pytest.mark.parametrize("n", [300, 1000])
def test_times_keep_the_range_and_dtype_and_have_a_far_steadier_mean_than_independent_ones(n):
    low, high = 0.2, 0.9
    times = torch.stack([stratified_times(n, low, high, like=torch.zeros(0)) for _ in range(200)])
    assert times.dtype == torch.float32 and times.min() >= low - 1e-7 and times.max() <= high + 1e-7
    assert_mean_close(times.mean(1), 0.5 * (low + high))
    # the mean of n strata deviates by (high − low) / (√12 n^1.5), that of independent times by 1 / (√12 n^0.5)
    assert times.double().mean(1).std().item() == pytest.approx((high - low) / (12 * n**3) ** 0.5, rel=0.3)


def test_times_are_in_random_order_so_that_halves_of_a_batch_cover_the_interval():
    times = torch.stack([stratified_times(100, 0.0, 1.0, like=DOUBLE) for _ in range(500)])
    assert_mean_close(times, 0.5)


def test_times_are_a_function_of_the_generator():
    one, same, other = (
        stratified_times(50, 0.0, 1.0, like=DOUBLE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
