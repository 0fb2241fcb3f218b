import pytest
import torch
from assertions import assert_mean_close

from sbflow.gaussian import Gaussian


@pytest.mark.parametrize("event", [(), (3,), (2, 2, 2)])
@pytest.mark.parametrize("per_sample", [True, False])
def test_the_log_density_is_that_of_independent_normals(event, per_sample):
    mean, x = torch.randn(2, 5, *event, dtype=torch.float64)
    std = torch.rand(5, dtype=torch.float64) + 0.5 if per_sample else torch.tensor(0.7, dtype=torch.float64)
    scale = std.reshape(-1, *(1,) * len(event)).expand(mean.shape)
    expected = torch.distributions.Normal(mean, scale).log_prob(x).reshape(5, -1).sum(1)
    assert torch.allclose(Gaussian(mean, std).log_prob(x), expected, rtol=1e-12)


def test_draws_have_the_mean_and_variance_of_each_row():
    mean = torch.tensor([[-1.0, 2.0], [5.0, 0.0]], dtype=torch.float64).repeat_interleave(20_000, dim=0)
    std = torch.tensor([0.5, 3.0], dtype=torch.float64).repeat_interleave(20_000)
    draws = Gaussian(mean, std).sample()
    for rows, m, s in ((slice(0, 20_000), [-1.0, 2.0], 0.5), (slice(20_000, None), [5.0, 0.0], 3.0)):
        centred = draws[rows] - torch.tensor(m)
        assert_mean_close(centred, 0.0)
        assert_mean_close(centred**2, s**2)


def test_without_spread_a_draw_is_the_mean():
    mean = torch.randn(4, 3)
    assert torch.equal(Gaussian(mean, torch.tensor(0.0)).sample(), mean)
