import pytest
import torch

from sbflow.tensor import expand_to, flat_sum, randn_like, seed_streams


@pytest.mark.parametrize("event", [(), (3,), (2, 4, 5)])
def test_a_time_per_sample_scales_each_sample(event):
    x, t = torch.randn(6, *event), torch.arange(6.0)
    scaled = expand_to(t, x) * x
    assert scaled.shape == x.shape
    assert all(torch.equal(scaled[i], i * x[i]) for i in range(6))


def test_a_scalar_time_is_left_alone():
    assert expand_to(torch.tensor(2.0), torch.zeros(3, 1, 4)).shape == ()


@pytest.mark.parametrize("event", [(), (3,), (2, 4, 5)])
def test_the_sum_runs_over_the_event_only(event):
    x = torch.randn(6, *event, dtype=torch.float64)
    expected = torch.stack([row.sum() for row in x])
    assert torch.allclose(flat_sum(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_keeps_shape_and_dtype_and_is_a_function_of_the_generator(dtype):
    x = torch.zeros(5, 2, 3, dtype=dtype)
    first, second, other = (randn_like(x, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert first.shape == x.shape and first.dtype == dtype
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_one_generator_per_sample_makes_noise_independent_of_the_batch():
    x = torch.zeros(6, 2, 3)
    whole = randn_like(x, [torch.Generator().manual_seed(seed) for seed in range(6)])
    parts = [randn_like(x[i : i + 2], [torch.Generator().manual_seed(seed) for seed in (i, i + 1)]) for i in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert len({row.sum().item() for row in whole}) == 6


def test_too_few_generators_are_refused():
    with pytest.raises(ValueError, match="one generator per sample: got 1 for 2 samples"):
        randn_like(torch.zeros(2, 3), [torch.Generator()])


def test_the_global_stream_is_that_of_manual_seed():
    torch.manual_seed(12345)
    expected = torch.rand(5)
    seed_streams(12345, torch.device("cpu"))
    assert torch.equal(torch.rand(5), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_stream_of_the_device_is_seeded_with_it():
    seed_streams(3, torch.device("cuda"))
    first = torch.rand(5, device="cuda")
    seed_streams(3, torch.device("cuda"))
    assert torch.equal(torch.rand(5, device="cuda"), first)


def test_seeding_a_stream_leaves_no_call_behind():
    queued = len(torch.cuda._queued_calls)
    seed_streams(0, torch.device("cpu"))
    assert len(torch.cuda._queued_calls) == queued
