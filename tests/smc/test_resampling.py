import math

import pytest
import torch
from assertions import assert_mean_close

from sbflow.smc import effective_sample_size, systematic


def counts(ancestors: torch.Tensor, n: int) -> torch.Tensor:
    return torch.stack([torch.bincount(row, minlength=n) for row in ancestors])


def random_log_weights(rows: int, n: int) -> torch.Tensor:
    return 2 * torch.randn(rows, n, dtype=torch.float64)


def set_uniforms(monkeypatch, u: float) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, dtype, **_: torch.full(size, u, dtype=dtype))


def test_each_particle_is_chosen_its_expected_number_of_times_rounded_up_or_down():
    log_weights = random_log_weights(200, 50)
    excess = counts(systematic(log_weights), 50) - 50 * log_weights.softmax(-1)
    assert excess.abs().max() < 1


def test_counts_are_unbiased():
    log_weights = random_log_weights(1, 20)
    chosen = counts(systematic(log_weights.expand(20_000, 20)), 20)
    assert_mean_close(chosen, 20 * log_weights[0].softmax(-1))


def test_ancestors_do_not_depend_on_the_scale_of_the_weights():
    log_weights = random_log_weights(10, 30)
    one, other = (systematic(log_weights + shift, torch.Generator().manual_seed(0)) for shift in (-700.0, 700.0))
    assert torch.equal(one, other)


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_particles_of_zero_weight_are_never_chosen_not_even_the_first_or_the_last(monkeypatch, u, dtype):
    set_uniforms(monkeypatch, u)
    for n in (3, 10, 2000):
        log_weights = torch.randn(4, n, dtype=dtype)
        log_weights[:, 0] = log_weights[:, -1] = log_weights[:, n // 2 + 1] = -torch.inf
        chosen = counts(systematic(log_weights), n)
        assert (chosen[log_weights == -torch.inf] == 0).all() and (chosen.sum(-1) == n).all()


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_one_particle_that_holds_all_the_weight_is_every_ancestor(monkeypatch, u):
    set_uniforms(monkeypatch, u)
    log_weights = torch.full((3, 7), -torch.inf)
    log_weights[torch.arange(3), torch.tensor([0, 3, 6])] = 0.0
    assert torch.equal(systematic(log_weights), torch.tensor([[0], [3], [6]]).expand(3, 7))


def test_two_million_float32_weights_are_summed_without_bias():
    n = 2_000_000
    log_weights = torch.randn(1, n)
    excess = counts(systematic(log_weights), n) - n * log_weights.double().softmax(-1)
    assert excess.abs().max() < 1
    # a float32 sum drifts: the second half of the particles would get another share of the offspring
    assert excess[0, n // 2 :].sum().abs() < 1


def test_rows_are_resampled_by_independent_uniforms():
    # two particles with weights 1/4 and 3/4: the second count is 1 or 2 by the row's own uniform
    log_weights = torch.tensor([0.25, 0.75], dtype=torch.float64).log().expand(20_000, 2, 2).reshape(-1, 2)
    chosen = counts(systematic(log_weights), 2)[:, 1].reshape(20_000, 2).double() - 1.5
    assert_mean_close(chosen, 0.0)
    assert_mean_close(chosen[:, 0] * chosen[:, 1], 0.0)


def test_rows_do_not_see_each_other():
    log_weights = random_log_weights(2, 30)
    together = systematic(log_weights, torch.Generator().manual_seed(0))
    other = systematic(torch.stack([log_weights[0], torch.zeros(30)]), torch.Generator().manual_seed(0))
    assert torch.equal(together[0], other[0]) and not torch.equal(together[1], other[1])


def test_the_effective_sample_size_counts_equal_weights():
    log_weights = torch.full((3, 8), -torch.inf, dtype=torch.float64)
    for row, k in enumerate((1, 3, 8)):
        log_weights[row, :k] = 500.0
    assert effective_sample_size(log_weights).tolist() == pytest.approx([1, 3, 8])


def test_the_effective_sample_size_is_the_squared_sum_over_the_sum_of_squares():
    weights = torch.rand(5, 9, dtype=torch.float64)
    expected = weights.sum(-1) ** 2 / (weights**2).sum(-1)
    assert torch.allclose(effective_sample_size(weights.log() - math.pi), expected, rtol=1e-12)
