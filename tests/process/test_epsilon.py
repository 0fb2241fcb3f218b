import pytest
import torch

from sbflow.process import suggest_epsilon

X0, X1 = torch.randn(2, 400, 3, 4, generator=torch.Generator().manual_seed(0))


def test_unit_gaussians_get_noise_of_0775_deviations_at_half_time():
    x = torch.randn(100_000, 5, generator=torch.Generator().manual_seed(1))
    epsilon = suggest_epsilon(x, x)
    # a variance over 5e5 numbers has a relative standard error of 0.002
    assert epsilon**0.5 / 2 == pytest.approx(0.775, rel=5 * 0.001)


@pytest.mark.parametrize("scale", [1e-3, 50.0, 1e4])
def test_other_units_scale_epsilon_by_their_square(scale):
    assert suggest_epsilon(scale * X0, scale * X1) == pytest.approx(scale**2 * suggest_epsilon(X0, X1), rel=1e-5)


def test_constant_and_nearly_constant_elements_and_shifts_do_not_matter():
    base = suggest_epsilon(X0, X1)
    still = torch.full((400, 3, 50), 7.0)
    nearly = still + 1e-4 * torch.randn(still.shape, generator=torch.Generator().manual_seed(2))
    for extra in (still, nearly):
        padded = suggest_epsilon(torch.cat([X0, extra], 2), torch.cat([X1, extra], 2))
        assert padded == pytest.approx(base, rel=1e-6)
    offsets = 100 * torch.arange(12.0).reshape(3, 4)
    assert suggest_epsilon(X0 + offsets, X1 - offsets) == pytest.approx(base, rel=1e-4)


def test_the_two_ends_are_interchangeable_and_both_count():
    assert suggest_epsilon(X0, 2 * X1) == suggest_epsilon(2 * X1, X0) > 2 * suggest_epsilon(X0, X1)
    assert suggest_epsilon(torch.zeros(10, 3, 4), X1) == pytest.approx(suggest_epsilon(X1, X1) / 2)


@pytest.mark.parametrize(
    ("x0", "message"),
    [
        (torch.ones(5, 2), "epsilon cannot be chosen for data whose largest variance is 0.0"),
        (torch.full((5, 2), torch.nan), "epsilon cannot be chosen for data whose largest variance is nan"),
        (torch.ones(1, 2), "x0 must hold at least 2 samples to choose epsilon, got 1"),
    ],
)
def test_data_without_a_scale_are_refused(x0, message):
    with pytest.raises(ValueError, match=message):
        suggest_epsilon(x0, x0)
