from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sbflow.data.unpaired import Split, UnpairedBatches, UnpairedData, UnpairedTensors


def numbered(n0: int = 50, n1: int = 80) -> Split:
    return Split(torch.arange(n0).float()[:, None], torch.arange(n1).float()[:, None])


def trainer(global_step: int, max_steps: int, rank: int = 0, accumulate: int = 1) -> SimpleNamespace:
    return SimpleNamespace(
        global_step=global_step, max_steps=max_steps, accumulate_grad_batches=accumulate, global_rank=rank
    )


def batches(data: UnpairedData) -> torch.Tensor:
    return torch.stack([batch["x0"] for batch in data.train_dataloader()])


def test_a_batch_depends_on_seed_and_index_alone():
    first, second = UnpairedBatches(numbered(), 8, 10, seed=3), UnpairedBatches(numbered(), 8, 10, seed=3)
    torch.rand(7)
    assert torch.equal(first[4]["x0"], second[4]["x0"]) and torch.equal(first[4]["x1"], second[4]["x1"])
    assert not torch.equal(first[4]["x0"], first[5]["x0"])
    assert not torch.equal(first[4]["x0"], UnpairedBatches(numbered(), 8, 10, seed=4)[4]["x0"])


def test_every_sample_is_drawn_equally_often():
    split = numbered(5, 5)
    counts = torch.bincount(
        torch.cat([batch["x1"].long().flatten() for batch in (UnpairedBatches(split, 100, 200)[k] for k in range(200))])
    )
    n, p = 20_000, 1 / 5
    assert (counts - n * p).abs().max() < 5 * (n * p * (1 - p)) ** 0.5


def test_the_two_ends_of_a_batch_are_drawn_independently():
    drawn = UnpairedBatches(numbered(50, 50), 10_000, 1)[0]
    correlation = torch.corrcoef(torch.cat([drawn["x0"], drawn["x1"]], dim=1).T)[0, 1]
    assert correlation.abs() < 5 / 10_000**0.5


def test_an_index_past_the_end_stops_iteration():
    assert len(list(UnpairedBatches(numbered(), 2, 3))) == 3


def test_a_resumed_run_sees_the_batches_that_the_undisturbed_run_would_have_seen():
    data = UnpairedTensors(*numbered()[:2], batch_size=4, seed=1)
    data.trainer = trainer(0, 10)
    undisturbed = batches(data)
    data.trainer = trainer(6, 10)
    # the trainer stops at its own count: the loader is as long as for a fresh run
    assert torch.equal(batches(data)[:4], undisturbed[6:])


def test_accumulated_gradients_take_as_many_batches_as_they_need():
    data = UnpairedTensors(*numbered()[:2], batch_size=4)
    data.trainer = trainer(2, 10, accumulate=3)
    assert len(data.train_dataloader()) == 30


def test_two_processes_see_different_batches():
    data = UnpairedTensors(*numbered()[:2], batch_size=4)
    data.trainer = trainer(0, 5, rank=0)
    first = batches(data)
    data.trainer = trainer(0, 5, rank=1)
    assert not torch.equal(batches(data), first)


def test_a_split_is_loaded_once():
    class Counting(UnpairedData):
        loads = 0

        def load_split(self, split):
            self.loads += 1
            return numbered()

    data = Counting()
    assert data.split("train") is data.split("train")
    assert data.loads == 1 and data.event_shape == (1,)


@pytest.mark.parametrize(
    ("x0", "x1", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 1), r"x0 must have shape \[n, \*event\] with n >= 1, got \[3\]"),
        (torch.zeros(3, 1), torch.zeros(0, 1), r"x1 must have shape .* got \[0, 1\]"),
        (torch.zeros(3, 1), torch.full((3, 1), float("nan")), "x1 holds NaN"),
        (torch.zeros(3, 1), np.zeros((3, 1), dtype=complex), "x1 must hold real numbers, got an array of complex128"),
        (np.zeros((3, 1), dtype=object), torch.zeros(3, 1), "x0 must hold real numbers, got an array of object"),
        (torch.zeros(3, 1, dtype=torch.complex64), torch.zeros(3, 1), "x0 must hold real .* tensor of torch.complex64"),
        (torch.zeros(3, 1), torch.zeros(3, 2), r"share their event shape, got \[1\] and \[2\]"),
    ],
)
def test_unusable_tensors_are_refused(x0, x1, message):
    with pytest.raises(ValueError, match=message):
        UnpairedTensors(x0, x1)


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i2", "float32", "bool"])
def test_arrays_of_any_byte_order_and_direction_are_taken(dtype):
    x = np.arange(12).reshape(4, 3).astype(dtype)
    for array in (x, x[::-1], x[:, ::-1], x[:1][::-1], x.T):
        data = UnpairedTensors(array, array)
        assert torch.equal(data.split("train").x0, torch.tensor(array.tolist(), dtype=torch.get_default_dtype()))


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        UnpairedTensors(*numbered()[:2], batch_size=0)
