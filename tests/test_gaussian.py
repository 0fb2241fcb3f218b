import pytest
import torch
from assertions import assert_mean_close
from scipy import stats

from sbflow.gaussian import Gaussian, reflection_maximal


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


SHIFTS = (0.05, 0.5, 1.0, 2.0, 4.0)


def coupled(shift: float, dim: int, n: int):
    """Draws of N(1, 0.7² I) reflected to a law whose mean is ``shift`` deviations away, along no axis."""
    direction = torch.linspace(1, 2, dim, dtype=torch.float64)
    direction = direction / direction.norm()
    std = torch.full((n,), 0.7, dtype=torch.float64)
    draft = Gaussian(torch.ones(n, dim, dtype=torch.float64), std)
    target = Gaussian(draft.mean - shift * 0.7 * direction, std)
    y = draft.sample()
    x, accepted = reflection_maximal(draft, target, y)
    return (x - target.mean) / 0.7, accepted, direction, torch.equal(x[accepted], y[accepted])


@pytest.mark.parametrize("dim", [1, 2, 50])
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_draft_is_kept_with_one_minus_the_total_variation_and_what_comes_out_is_the_target(shift, dim):
    z, accepted, direction, kept_as_they_are = coupled(shift, dim, 20_000)
    assert kept_as_they_are
    assert_mean_close(accepted.double(), 2 * stats.norm.cdf(-shift / 2))
    assert_mean_close(z, 0.0)
    assert_mean_close(z**2, 1.0)
    across = torch.randn(dim, dtype=torch.float64)
    for axis in (direction, across / across.norm()):
        assert stats.kstest((z @ axis).numpy(), "norm").pvalue > 1e-4


def test_kept_and_reflected_draws_share_the_target_as_the_overlap_and_the_rest():
    z, accepted, _, _ = coupled(1.0, 1, 50_000)
    # in units of the target's deviation the draft lies 1 higher: they cross at 1/2, and beyond it every draft is cut
    expected = 2 * stats.norm.cdf(-0.5) - stats.norm.cdf(-0.5)
    assert_mean_close((accepted & (z[:, 0] > 0.5)).double(), stats.norm.cdf(-0.5))
    assert_mean_close((accepted & (z[:, 0] <= 0.5)).double(), expected)
    assert (z[~accepted] < 0.5).all()


def test_equal_laws_keep_every_draft():
    law = Gaussian(torch.randn(500, 3, 4, 4), torch.rand(500) + 0.1)
    y = law.sample()
    x, accepted = reflection_maximal(law, law, y)
    assert torch.equal(x, y) and accepted.all()


def test_a_point_mass_gives_its_mean_and_keeps_only_an_equal_one():
    mean, std = torch.randn(4, 2), torch.tensor([0.0, 0.0, 1.0, 1.0])
    draft = Gaussian(mean + torch.tensor([0.0, 1e-3, 0.0, 1e-3])[:, None], std)
    x, accepted = reflection_maximal(draft, Gaussian(mean, std), draft.sample())
    assert torch.equal(x[:2], mean[:2]) and accepted[:2].tolist() == [True, False]
    assert x.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_shifts_too_small_or_too_large_for_their_square_leave_finite_draws(dtype):
    scale = torch.finfo(dtype).tiny ** 0.75, torch.finfo(dtype).max ** 0.75
    mean = torch.tensor([[size] * 5 for size in scale], dtype=dtype)
    draft = Gaussian(torch.zeros_like(mean), torch.ones(2, dtype=dtype))
    x, accepted = reflection_maximal(draft, Gaussian(mean, draft.std), draft.sample())
    assert x.isfinite().all() and x.dtype == dtype and accepted.tolist() == [True, False]


def test_one_generator_per_sample_couples_each_row_alike_whatever_is_beside_it():
    draft, target = Gaussian(torch.zeros(6, 2), torch.ones(6)), Gaussian(torch.ones(6, 2), torch.ones(6))
    y = draft.sample()

    def run(rows: slice):
        laws = (Gaussian(law.mean[rows], law.std[rows]) for law in (draft, target))
        return reflection_maximal(*laws, y[rows], generator=[torch.Generator().manual_seed(k) for k in range(6)[rows]])

    whole, parts = run(slice(0, 6)), [run(slice(0, 2)), run(slice(2, 6))]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(whole, zip(*parts, strict=True), strict=True))
