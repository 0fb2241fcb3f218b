import math

import pytest
import torch

from sbflow.smc.pareto import pareto_k


def weights(k: float, n: int = 20_000) -> torch.Tensor:
    """Log of draws from the Pareto law whose moments exist up to order 1/k."""
    u = torch.rand(n, dtype=torch.float64)
    return -k * u.log()


@pytest.mark.parametrize("k", [0.3, 0.7, 1.2])
def test_the_shape_of_pareto_weights_is_found(k):
    estimates = torch.tensor([pareto_k(weights(k)) for _ in range(20)])
    # the tail has 3 √n = 425 weights, and the maximum likelihood estimate of k a standard deviation of (1 + k) / √425;
    # the prior draws towards 0.5 by 10 in 435
    prior = 10 / 435 * (0.5 - k)
    assert abs(estimates.mean() - k - prior) < 5 * (1 + k) / 425**0.5 / 20**0.5


def test_bounded_weights_have_a_negative_shape():
    # the upper end of a uniform law is the generalised Pareto law of shape −1
    assert pareto_k(torch.rand(20_000).log()) < -0.7


def test_the_shape_is_that_of_arviz():
    arviz = pytest.importorskip("arviz", minversion="0.20")
    log_weights = torch.randn(2000, dtype=torch.float64) * 1.5
    array = log_weights.numpy()[None] if int(arviz.__version__.split(".")[0]) >= 1 else log_weights.numpy()
    assert pareto_k(log_weights) == pytest.approx(float(arviz.psislw(array)[1]), abs=0.02)


def test_a_factor_on_all_weights_and_their_order_do_not_matter():
    log_weights = weights(0.6, 500)
    shuffled = log_weights[torch.randperm(500)] - 1234.5
    assert pareto_k(shuffled) == pytest.approx(pareto_k(log_weights), abs=1e-6)


def test_weights_of_zero_are_left_out():
    log_weights = weights(0.6, 500)
    padded = torch.cat([log_weights, torch.full((100,), -torch.inf)])
    assert pareto_k(padded) == pytest.approx(pareto_k(log_weights))


def test_equal_weights_have_no_tail_and_few_weights_no_shape():
    assert pareto_k(torch.zeros(100) + 1e-9 * torch.randn(100)) == -math.inf
    assert math.isnan(pareto_k(torch.randn(10)))


def test_a_tail_of_rounding_errors_has_no_shape():
    # log weights that are equal but for a few outliers of some thousandths, as sums of float32 numbers leave them
    log_weights = torch.zeros(2000)
    log_weights[:20] = 2.0 ** -torch.arange(5, 25)
    assert pareto_k(log_weights) == -math.inf
