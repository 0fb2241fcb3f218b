import pytest
import torch

from sbflow.whitening import Affine, Laplace, Standard

LOC = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
DIAGONAL = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
FULL = torch.tensor([[0.5, 0.0, 0.0], [1.0, 2.0, 0.0], [-0.3, 0.4, 3.0]], dtype=torch.float64)
scales = pytest.mark.parametrize("scale", [DIAGONAL, FULL], ids=["diagonal", "full"])


def points(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@scales
def test_forward_is_loc_plus_scale_times_z(scale) -> None:
    matrix = torch.diag(scale) if scale.ndim == 1 else scale
    expected = torch.stack([LOC + matrix @ z for z in points()])
    torch.testing.assert_close(Affine(LOC, scale)(points()), expected, rtol=1e-14, atol=1e-14)


@scales
def test_inverse_undoes_forward(scale) -> None:
    affine = Affine(LOC, scale)
    torch.testing.assert_close(affine.inverse(affine(points())), points(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(affine(affine.inverse(points())), points(), rtol=1e-13, atol=1e-13)


@scales
def test_log_det_is_that_of_the_jacobian(scale) -> None:
    affine = Affine(LOC, scale)
    jacobian = torch.func.jacrev(lambda z: affine(z[None])[0])(points()[0])
    torch.testing.assert_close(affine.log_det, torch.linalg.slogdet(jacobian)[1])


@scales
def test_pull_back_is_the_vector_jacobian_product_of_forward(scale) -> None:
    affine = Affine(LOC, scale)
    _, vjp = torch.func.vjp(affine, points())
    torch.testing.assert_close(affine.pull_back(points() + 1), vjp(points() + 1)[0])


@scales
def test_results_have_the_dtype_of_the_input(scale) -> None:
    affine, z = Affine(LOC, scale), points(torch.float32)
    assert affine(z).dtype == affine.inverse(z).dtype == affine.pull_back(z).dtype == torch.float32
    torch.testing.assert_close(affine(z).double(), affine(z.double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("whitening", "scale"), [(Standard(), DIAGONAL), (Laplace(), FULL)])
def test_an_empty_affine_loads_a_fitted_one_without_rounding(whitening, scale) -> None:
    empty = whitening.empty(3)
    empty.load_state_dict(Affine(LOC / 3, scale / 3).state_dict())
    assert torch.equal(empty.loc, LOC / 3) and torch.equal(empty.scale, scale / 3)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (-DIAGONAL, "positive on its diagonal"),
        (DIAGONAL * float("nan"), "positive on its diagonal"),
        (FULL.T.contiguous(), "must be lower-triangular"),
    ],
)
def test_a_bad_scale_is_refused(scale, message) -> None:
    with pytest.raises(ValueError, match=message):
        Affine(LOC, scale)


def test_moments_of_samples_are_the_weighted_mean_and_covariance() -> None:
    x, log_weights = points(), torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, -0.3]).double()
    affine = Affine.from_samples(x, log_weights + 7)
    weights = log_weights.exp() / log_weights.exp().sum()
    expected = torch.cov(x.T, aweights=weights, correction=0) / (1 - weights.square().sum())
    torch.testing.assert_close(affine.loc, weights @ x)
    torch.testing.assert_close(affine.scale @ affine.scale.T, expected)


def test_moments_of_equal_weights_are_the_unbiased_ones() -> None:
    affine = Affine.from_samples(points())
    torch.testing.assert_close(affine.scale @ affine.scale.T, torch.cov(points().T))
    diagonal = Affine.from_samples(points(), diagonal=True, inflation=2.0)
    torch.testing.assert_close(diagonal.scale, 2 * points().std(0))
    torch.testing.assert_close(diagonal.loc, points().mean(0))


def test_moments_pass_over_samples_of_weight_zero_wherever_they_are() -> None:
    x = torch.cat([points(), torch.full((2, 3), torch.nan).double()])
    log_weights = torch.tensor([0.0] * 6 + [-torch.inf] * 2)
    torch.testing.assert_close(Affine.from_samples(x, log_weights).scale, Affine.from_samples(points()).scale)


def test_moments_of_single_precision_samples_are_in_double_precision() -> None:
    assert Affine.from_samples(points(torch.float32)).scale.dtype == torch.float64


@pytest.mark.parametrize(
    ("x", "log_weights", "message"),
    [
        (points()[:3], None, "x must span its 3 dimensions .* samples of rank 2: take more of them or diagonal=True"),
        (points(), torch.full((6,), -torch.inf), "log_weights must be below infinity and not all -inf"),
        (points() / 0, None, "x must be finite where it has weight, got 6 of 6 samples that are not"),
    ],
    ids=["few", "weightless", "infinite"],
)
def test_samples_without_moments_are_refused(x, log_weights, message) -> None:
    with pytest.raises(ValueError, match=message):
        Affine.from_samples(x, log_weights)


@scales
def test_the_diagonal_of_the_precision_is_that_of_the_inverse_covariance(scale) -> None:
    matrix = torch.diag(scale) if scale.ndim == 1 else scale
    expected = torch.linalg.inv(matrix @ matrix.T).diagonal()
    torch.testing.assert_close(Affine(LOC, scale).precision_diagonal(), expected)
