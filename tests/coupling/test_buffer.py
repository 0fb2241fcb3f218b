"""The buffer: its calendar, relaxation, the iteration it stands for, and its state."""

import io

import pytest
import torch
from assertions import assert_mean_close
from problems import LinearDrift, scalar_coupling, simulated_cross
from torch import nn

from sbflow.coupling import Buffer, Online, Rollout
from sbflow.integrator import time_grid
from sbflow.network import MLP, BridgeDrift
from sbflow.process import Brownian, gaussian_bridge


def rollout(drift: nn.Module | None = None, *, num_steps: int = 5) -> Rollout:
    drift = drift or LinearDrift(scalar_coupling(1.0, 1.0, 0.3), 1.0)
    return Rollout(drift, Brownian(1.0), time_grid("uniform", num_steps))


def network() -> BridgeDrift:
    drift = BridgeDrift(MLP((1,), hidden=(8,), num_directions=2), (1,), 1.0)
    nn.init.normal_(drift.network.out.weight)
    return drift


def walk(buffer: Buffer, steps: int, *, start: int = 0, n: int = 8, drift: nn.Module | None = None):
    """Pairs of consecutive steps, each with its own data and random stream, as in training."""
    for step in range(start, start + steps):
        torch.manual_seed(step)
        yield buffer.pairs(torch.randn(n, 1), torch.randn(n, 1), rollout(drift), step)


def labels(pairs) -> list[int]:
    """Number of the first step that showed the same pairs."""
    pairs = list(pairs)
    return [next(j for j, other in enumerate(pairs) if torch.equal(one.start, other.start)) for one in pairs]


def test_refreshed_at_every_step_it_is_online_bit_for_bit():
    for buffer in (Buffer(), Buffer(size=3), Buffer(size=3, refresh_every=3)):
        for one, other in zip(walk(buffer, 7), walk(Online(), 7), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"reuse": 3}, [0, 0, 0, 3, 3, 3, 6]),
        ({"size": 2, "reuse": 2}, [0, 1, 0, 1, 4, 5, 4, 5]),
        ({"size": 2, "refresh_every": 5}, [0, 1, 0, 1, 0, 5, 6, 5]),
    ],
)
def test_batches_are_used_again_as_often_as_chosen(options, expected):
    assert labels(walk(Buffer(**options), len(expected))) == expected


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_go_through_all_pairs_of_a_batch_as_often_as_chosen(parts):
    buffer, whole = Buffer(parts=parts, reuse=2), Buffer(reuse=2 * parts)
    shown, kept = list(walk(buffer, 2 * parts + 1)), list(walk(whole, 2 * parts + 1))
    together = torch.cat([part.start for part in shown[: 2 * parts]])
    assert torch.equal(together.sort(0).values, torch.cat([kept[0].start] * 2).sort(0).values)
    # the next period begins with new pairs
    assert not torch.isin(shown[-1].start, kept[0].start).any() and torch.isin(shown[-1].start, kept[-1].start).all()


def test_a_part_keeps_pairs_whole_and_has_as_many_of_each_direction():
    part, kept = (next(walk(Buffer(parts=parts), 1)) for parts in (2, 1))
    rows = [
        torch.equal(torch.cat([x[i : i + 1] for x in part[:2]]), torch.cat([x[2 * i : 2 * i + 1] for x in kept[:2]]))
        for i in range(len(part.start))
    ]
    assert all(rows) and part.direction.bincount().tolist() == [4, 4]


def test_of_fewer_pairs_than_parts_every_step_has_one():
    assert [len(pairs.start) for pairs in walk(Buffer(parts=5), 5, n=1)] == [1] * 5


def test_directions_take_turns_and_each_change_brings_fresh_pairs():
    buffer = Buffer(size=2, alternate_every=4)
    pairs = list(walk(buffer, 12))
    assert [one.direction.unique().tolist() for one in pairs] == [[0]] * 4 + [[1]] * 4 + [[0]] * 4
    assert labels(pairs) == [0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9]


@pytest.mark.parametrize(("reset", "expected"), [(True, [0, 4, 8]), (False, [0])])
def test_the_optimiser_restarts_where_chosen(reset, expected):
    buffer = Buffer(size=2, alternate_every=4, reset_optimizer=reset)
    assert [step for step in range(12) if buffer.restarts(step)] == expected


def test_a_frozen_network_makes_the_whole_period():
    x, drift = torch.full((8, 1), 2.0), network()
    for frozen in (True, False):
        buffer, made = Buffer(size=3, frozen=frozen), []
        for step in range(4):
            torch.manual_seed(7)
            made.append(buffer.pairs(x, x, rollout(drift), step).start)
            nn.init.normal_(drift.network.out.weight, std=2.0 + step)
        # the same noise each time: the starts differ only by the weights
        assert torch.equal(made[0], made[1]) == torch.equal(made[0], made[2]) == frozen
        assert not torch.equal(made[2], made[3])


@pytest.mark.parametrize("alpha", [0.25, 0.8])
def test_relaxation_replaces_pairs_as_wholes_with_its_probability(alpha):
    buffer = Buffer(relaxation=alpha)
    first, second = walk(buffer, 2, n=20_000)
    kept = (first.end == second.end).squeeze(1)
    assert torch.equal(kept, (first.start == second.start).squeeze(1))
    assert_mean_close(kept.double(), 1 - alpha)


def test_the_first_old_coupling_is_the_independent_one():
    x0, x1 = torch.randn(5000, 1), torch.randn(5000, 1)
    pairs = Buffer(relaxation=0.5).pairs(x0, x1, rollout(), 0)
    real = (pairs.start == torch.cat([x0, x1])).squeeze(1)
    assert torch.equal(pairs.end, torch.cat([x1, x0]))
    assert_mean_close(real.double(), 0.5)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_relaxed_fitting_contracts_as_the_exact_iteration_does(alpha):
    epsilon, num_steps, n, cross = 1.0, 12, 20_000, 0.0
    buffer = Buffer(relaxation=alpha)
    for step in range(3):
        coupling = scalar_coupling(1.0, 1.0, cross)
        x0, x1 = torch.randn(n, 1).double(), torch.randn(n, 1).double()
        pairs = buffer.pairs(x0, x1, rollout(LinearDrift(coupling, epsilon), num_steps=num_steps), step)
        cross = (1 - alpha) * cross + alpha * simulated_cross(coupling, epsilon, num_steps).item()
        assert_mean_close((pairs.start * pairs.end)[:n], cross)
        assert_mean_close((pairs.start * pairs.end)[n:], cross)


def test_the_exact_iteration_has_its_tabulated_rate():
    exact, cross, errors = gaussian_bridge(torch.eye(1), torch.eye(1), 1.0).item(), 0.0, []
    for _ in range(4):
        errors.append(exact - cross)
        cross = simulated_cross(scalar_coupling(1.0, 1.0, cross), 1.0, 1000).item()
    assert [abs(error) for error in errors] == pytest.approx([0.618, 0.072, 0.0069, 0.00065], rel=0.02)


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_restored_buffer_goes_on_bit_for_bit(cut):
    options = {"size": 2, "alternate_every": 4, "relaxation": 0.7, "frozen": True}
    drift = network()
    expected = list(walk(Buffer(**options), 10, drift=drift))
    buffer = Buffer(**options)
    list(walk(buffer, cut, drift=drift))
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    restored = Buffer(**options)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for one, other in zip(walk(restored, 10 - cut, start=cut, drift=drift), expected[cut:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_restored_frozen_network_is_that_of_the_start_of_the_period():
    drift, buffer = network(), Buffer(size=3, frozen=True)
    x = torch.full((8, 1), 2.0)
    buffer.pairs(x, x, rollout(drift), 0)
    restored = Buffer(size=3, frozen=True)
    restored.load_state_dict(buffer.state_dict())
    nn.init.normal_(drift.network.out.weight)
    made = []
    for one in (buffer, restored):
        torch.manual_seed(7)
        made.append(one.pairs(x, x, rollout(drift), 1).start)
    assert torch.equal(*made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"reuse": 0}, "reuse must be at least 1, got 0"),
        ({"reuse": 2, "refresh_every": 4}, "give reuse or refresh_every, not both: got 2 and 4"),
        ({"size": 4, "refresh_every": 3}, "refresh_every must be at least size=4, got 3"),
        ({"alternate_every": 0}, "alternate_every must be at least 1, got 0"),
        ({"size": 3, "alternate_every": 2}, "refresh_every must be at least size=3, got 2"),
        ({"size": 2, "reuse": 2, "alternate_every": 6}, "alternate_every must be a multiple of the period, 4 steps"),
        ({"relaxation": 0.0}, r"relaxation must lie in \(0, 1\], got 0.0"),
        ({"relaxation": 1.1}, r"relaxation must lie in \(0, 1\], got 1.1"),
    ],
)
def test_an_impossible_calendar_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Buffer(**options)
