import math
from typing import get_args

import pytest
import torch
from assertions import assert_mean_close

from sbflow import smc
from sbflow.smc import effective_sample_size, systematic


def counts(ancestors: torch.Tensor, n: int) -> torch.Tensor:
    return torch.stack([torch.bincount(row, minlength=n) for row in ancestors])


def random_log_weights(rows: int, n: int) -> torch.Tensor:
    return 2 * torch.randn(rows, n, dtype=torch.float64)


def set_uniforms(monkeypatch, u: float) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, dtype, **_: torch.full(size, u, dtype=dtype))


SCHEMES = {name: smc.resampling_scheme(name) for name in get_args(smc.Scheme)}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
steady = pytest.mark.parametrize("scheme", [systematic, smc.ssp], ids=["systematic", "ssp"])


@steady
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_each_particle_is_chosen_its_expected_number_of_times_rounded_up_or_down(scheme, n):
    log_weights = random_log_weights(200, n)
    excess = counts(scheme(log_weights), n) - n * log_weights.softmax(-1)
    assert excess.abs().max() < 1


@every_scheme
def test_counts_are_unbiased(scheme):
    log_weights = random_log_weights(1, 20)
    chosen = counts(scheme(log_weights.expand(20_000, 20)), 20)
    assert_mean_close(chosen, 20 * log_weights[0].softmax(-1))


@pytest.mark.parametrize("name", ["multinomial", "residual", "stratified", "systematic", "ssp"])
@pytest.mark.parametrize("num", [3, 50])
def test_another_number_of_ancestors_is_unbiased_too(name, num):
    log_weights = random_log_weights(1, 13)
    ancestors = SCHEMES[name](log_weights.expand(20_000, 13), num=num)
    assert ancestors.shape == (20_000, num)
    assert_mean_close(counts(ancestors, 13), num * log_weights[0].softmax(-1))


def test_killing_replaces_and_cannot_change_the_number():
    with pytest.raises(ValueError, match="num must be 13, got 3"):
        smc.killing(random_log_weights(2, 13), num=3)


def test_killing_leaves_equal_weights_alone():
    assert torch.equal(smc.killing(torch.zeros(3, 50)), torch.arange(50).expand(3, 50))


@pytest.mark.parametrize("name", ["residual", "systematic", "ssp"])
def test_equal_weights_are_each_chosen_once(name):
    # 49 · (1 / 49) rounds to just under 1
    assert (counts(SCHEMES[name](torch.zeros(5, 49)), 49) == 1).all()


def test_the_variance_of_an_average_falls_from_scheme_to_scheme():
    log_weights = random_log_weights(1, 40).sort(-1).values
    values = torch.linspace(-1, 1, 40, dtype=torch.float64)
    variance = {
        name: (counts(scheme(log_weights.expand(4000, 40)), 40).double() @ values).var().item()
        for name, scheme in SCHEMES.items()
    }
    # a sample variance of 4000 draws is known to within 2.3 %
    assert variance["residual"] < 0.8 * variance["multinomial"]
    assert variance["killing"] < 1.1 * variance["multinomial"]
    assert variance["stratified"] < 0.8 * variance["residual"]
    assert variance["systematic"] < 0.8 * variance["residual"] and variance["ssp"] < 0.8 * variance["residual"]


def test_counts_of_ssp_are_negatively_correlated():
    log_weights = random_log_weights(1, 6)
    excess = counts(smc.ssp(log_weights.expand(40_000, 6)), 6).double() - 6 * log_weights.softmax(-1)
    products = excess[:, :, None] * excess[:, None]
    stderr = products.std(0) / 200
    above = products.mean(0) - 5 * stderr
    assert (above[~torch.eye(6, dtype=torch.bool)] <= 0).all()


@every_scheme
def test_ancestors_do_not_depend_on_the_scale_of_the_weights(scheme):
    log_weights = random_log_weights(10, 30)
    one, other = (scheme(log_weights + shift, torch.Generator().manual_seed(0)) for shift in (-512.0, 512.0))
    assert torch.equal(one, other)


@every_scheme
def test_the_generator_determines_the_ancestors(scheme):
    log_weights = random_log_weights(3, 30)
    runs = [scheme(log_weights, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@every_scheme
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_particles_of_zero_weight_are_never_chosen_not_even_the_first_or_the_last(monkeypatch, scheme, u, dtype):
    set_uniforms(monkeypatch, u)
    for n in (3, 10, 2000):
        log_weights = torch.randn(4, n, dtype=dtype)
        log_weights[:, 0] = log_weights[:, -1] = log_weights[:, n // 2 + 1] = -torch.inf
        chosen = counts(scheme(log_weights), n)
        assert (chosen[log_weights == -torch.inf] == 0).all() and (chosen.sum(-1) == n).all()


@every_scheme
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_one_particle_that_holds_all_the_weight_is_every_ancestor(monkeypatch, scheme, u):
    set_uniforms(monkeypatch, u)
    log_weights = torch.full((3, 7), -torch.inf)
    log_weights[torch.arange(3), torch.tensor([0, 3, 6])] = 0.0
    assert torch.equal(scheme(log_weights), torch.tensor([[0], [3], [6]]).expand(3, 7))


@every_scheme
def test_a_row_without_weight_has_ancestors_too_and_leaves_the_others_alone(scheme):
    log_weights = random_log_weights(3, 8)
    log_weights[1] = -torch.inf
    ancestors = scheme(log_weights)
    assert ancestors.shape == (3, 8) and ancestors.min() >= 0 and ancestors.max() < 8


@steady
def test_two_million_float32_weights_are_summed_without_bias(scheme):
    n = 2_000_000
    log_weights = torch.randn(1, n)
    ancestors = scheme(log_weights)
    excess = torch.bincount(ancestors[0], minlength=n) - n * log_weights.double().softmax(-1)[0]
    assert excess.abs().max() < 1
    # a float32 sum drifts: the second half of the particles would get another share of the offspring
    allowed = 1 if scheme is systematic else 5 * (n / 4) ** 0.5
    assert excess[n // 2 :].sum().abs() < allowed


@every_scheme
def test_no_index_is_out_of_range_among_two_million(scheme):
    ancestors = scheme(torch.randn(1, 2_000_000))
    assert ancestors.shape == (1, 2_000_000) and ancestors.min() >= 0 and ancestors.max() < 2_000_000


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="one of multinomial, residual, stratified, systematic, ssp, killing; got 'x'"):
        smc.resampling_scheme("x")


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
