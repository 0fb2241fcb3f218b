"""What every resampling scheme keeps, whatever the weights."""

from typing import get_args

import pytest
import torch
from hypothesis import assume, given
from strategies import log_weights, seeds, sizes, thrifty

from sbflow import smc

SCHEMES = {name: smc.resampling_scheme(name) for name in get_args(smc.Scheme)}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


def counts(ancestors, n):
    return torch.zeros(len(ancestors), n, dtype=torch.long).scatter_add(1, ancestors, torch.ones_like(ancestors))


@every_scheme
@thrifty
@given(log_weights(), seeds)
def test_ancestors_are_particles_that_have_weight(scheme, log_weights, seed):
    ancestors = scheme(log_weights, torch.Generator().manual_seed(seed))
    assert ancestors.shape == log_weights.shape
    chosen = log_weights.gather(1, ancestors)
    assert (chosen > -torch.inf).all()


@pytest.mark.parametrize("name", ["systematic", "ssp"])
@thrifty
@given(log_weights(), seeds, sizes)
def test_offspring_are_the_expected_number_rounded_up_or_down(name, log_weights, seed, num):
    ancestors = SCHEMES[name](log_weights, torch.Generator().manual_seed(seed), num)
    expected = num * log_weights.softmax(-1)
    # a number that is whole but for rounding may be rounded either way
    assert ((counts(ancestors, log_weights.shape[1]) - expected).abs() < 1 + 1e-9).all()


@thrifty
@given(log_weights(), seeds, sizes)
def test_residual_resampling_keeps_the_whole_part_of_the_expected_number(log_weights, seed, num):
    ancestors = smc.residual(log_weights, torch.Generator().manual_seed(seed), num)
    whole = (num * log_weights.softmax(-1) - 1e-9).floor()
    assert (counts(ancestors, log_weights.shape[1]) >= whole).all()


@thrifty
@given(log_weights(), seeds)
def test_stratified_and_systematic_ancestors_keep_the_order_of_the_particles(log_weights, seed):
    for scheme in (smc.stratified, smc.systematic):
        assert (scheme(log_weights, torch.Generator().manual_seed(seed)).diff() >= 0).all()


@thrifty
@given(log_weights())
def test_the_effective_sample_size_lies_between_one_and_the_number_of_weights_that_are_not_zero(log_weights):
    ess = smc.effective_sample_size(log_weights)
    assert (ess >= 1 - 1e-9).all()
    assert (ess <= (log_weights > -torch.inf).sum(1).double() * (1 + 1e-9)).all()


@thrifty
@given(log_weights())
def test_the_effective_sample_size_does_not_depend_on_scale_or_order(log_weights):
    assume(log_weights.shape[1] > 1)
    ess = smc.effective_sample_size(log_weights)
    assert torch.allclose(smc.effective_sample_size(log_weights.flip(1) + 3.5), ess, rtol=1e-9)
