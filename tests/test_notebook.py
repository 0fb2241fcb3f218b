"""The two calls for notebooks."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

import sbflow


def correlated(x):
    """Unnormalised log density of a correlated Gaussian whose log Z is known, shifted away from the origin."""
    precision = x.new_tensor([[2.0, -0.9], [-0.9, 1.0]])
    centred = x - x.new_tensor([3.0, -1.0])
    return 1.5 - 0.5 * torch.einsum("ni,ij,nj->n", centred, precision, centred)


LOG_Z = 1.5 + math.log(2 * math.pi) - 0.5 * math.log(2.0 - 0.81)


def skewed(x):
    """A density that is not Gaussian: independent log-gamma coordinates with log Z = d log Γ(3)."""
    return (3 * x - x.exp()).sum(1)


def test_estimate_log_z_is_exact_for_a_gaussian():
    evidence = sbflow.estimate_log_z(correlated, dim=2)
    assert abs(evidence.log_z - LOG_Z) < 1e-4
    assert evidence.samples.shape == (2000, 2)
    assert evidence.log_weights.shape == (2000,)
    assert 1 <= evidence.ess <= 2000


def test_estimate_log_z_of_a_skewed_density_lies_within_its_error():
    evidence = sbflow.estimate_log_z(skewed, dim=3, replicates=10, seed=3)
    expected = 3 * math.log(2.0)
    assert 0 < evidence.log_z_stderr < 0.1
    assert abs(evidence.log_z - expected) < 5 * evidence.log_z_stderr
    # posterior mean digamma(3) of each coordinate
    mean = (evidence.log_weights.exp()[:, None] * evidence.samples).sum(0)
    stderr = evidence.samples.std(0) / math.sqrt(evidence.ess)
    digamma = float(torch.digamma(torch.tensor(3.0)))
    assert ((mean - digamma).abs() < 5 * stderr).all()


@pytest.mark.parametrize(
    "whitening", ["laplace", "standard", "isotropic", "mean_field", "low_rank", "full_rank", "pilot"]
)
@pytest.mark.parametrize("method", ["pdds", "smc"])
def test_every_method_and_whitening_finds_the_constant(method, whitening):
    evidence = sbflow.estimate_log_z(skewed, dim=3, method=method, whitening=whitening, num_particles=1000)
    assert abs(evidence.log_z - 3 * math.log(2.0)) < 5 * evidence.log_z_stderr + 1e-3
    assert evidence.whitening_cost.density > 0 and evidence.cost.gradient > 0


def test_bounded_parameters_come_back_by_name_and_within_their_bounds():
    # tau ~ Gamma(3, 1), p ~ Dirichlet(1, 2, 3) up to their constants Γ(3) = 2 and Γ(2) Γ(3) / Γ(6) = 1 / 60
    def log_prob(x):
        return 2 * x["tau"].log() - x["tau"] + x["p"][:, 1].log() + 2 * x["p"][:, 2].log()

    evidence = sbflow.estimate_log_z(log_prob, constraints={"tau": "positive", "p": "simplex(3)"}, replicates=5)
    assert abs(evidence.log_z - math.log(2 / 60)) < 5 * evidence.log_z_stderr
    tau, p = (evidence.equally_weighted()[name].flatten(0, 1) for name in ("tau", "p"))
    assert (tau > 0).all() and torch.allclose(p.sum(1), torch.ones(len(p)))
    assert abs(tau.mean() - 3) < 0.1
    assert torch.allclose(p.mean(0), torch.tensor([1.0, 2.0, 3.0]) / 6, atol=0.02)


def test_annealing_takes_no_training():
    with pytest.raises(ValueError, match="refinements must be 0 with method='smc'"):
        sbflow.estimate_log_z(skewed, dim=3, method="smc", refinements=1)


@pytest.mark.slow
def test_training_lowers_the_error_of_the_estimate():
    untrained = sbflow.estimate_log_z(skewed, dim=3, num_steps=6, replicates=20)
    trained = sbflow.estimate_log_z(
        skewed, dim=3, num_steps=6, replicates=20, refinements=1, updates_per_refinement=600
    )
    expected = 3 * math.log(2.0)
    before = ((untrained.log_z_replicates - expected) ** 2).mean()
    after = ((trained.log_z_replicates - expected) ** 2).mean()
    assert after < before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_density_may_hold_data_of_either_dtype(dtype):
    factor = torch.tensor([[1.0, 0.3], [0.0, 2.0]], dtype=dtype)
    evidence = sbflow.estimate_log_z(lambda x: -((x @ factor) ** 2).sum(1), dim=2)
    assert abs(evidence.log_z - math.log(math.pi / 2)) < 1e-4


def test_an_estimate_that_scatters_is_called_unreliable():
    def narrow(x):
        return -0.5 * ((x - 4) ** 2).sum(1) / 0.01

    assert "unreliable" in sbflow.estimate_log_z(narrow, dim=3, whitening="standard", replicates=5).warning
    assert sbflow.estimate_log_z(narrow, dim=3, replicates=5).warning is None


def test_estimate_log_z_leaves_the_global_stream_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    sbflow.estimate_log_z(correlated, dim=2, num_particles=50, num_steps=2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"whitening": "nope"}, "laplace"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_particles": 0}, "num_particles"),
        ({"refinements": -1}, "refinements"),
    ],
)
def test_estimate_log_z_names_a_bad_option(options, message):
    with pytest.raises(ValueError, match=message):
        sbflow.estimate_log_z(correlated, dim=2, **options)


def test_a_density_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match="shape"):
        sbflow.estimate_log_z(lambda x: x, dim=2, whitening="standard")


def test_a_nan_density_is_named_with_its_time():
    with pytest.raises(FloatingPointError, match=r"NaN for \d+ particles at time"):
        sbflow.estimate_log_z(lambda x: (x.sum(1) - 1).log(), dim=2, whitening="standard")


def gaussian_pair(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator) - 0.1, 2 * torch.randn(n, 5, generator=generator) + 0.1


@pytest.mark.slow
def test_fit_bridge_reaches_the_closed_form_of_an_asymmetric_gaussian():
    flow = sbflow.fit_bridge(*gaussian_pair(50_000, 0), epsilon=1.0, seed=0)
    x0, x1 = gaussian_pair(50_000, 1)
    forward = flow.translate(x0, direction="forward", num_steps=30, seed=2)
    backward = flow.translate(x1, direction="backward", num_steps=30, seed=3)
    exact = (math.sqrt(4 * 4 + 1) - 1) / 2
    assert _covariance(x0, forward) == pytest.approx(exact, rel=0.05)
    assert _covariance(backward, x1) == pytest.approx(exact, rel=0.05)
    assert _covariance(forward, forward) == pytest.approx(4, rel=0.05)
    assert _covariance(backward, backward) == pytest.approx(1, rel=0.05)


def test_fit_bridge_takes_double_integer_and_numpy_samples():
    x0, x1 = torch.randn(20, 2, dtype=torch.float64), torch.randint(0, 9, (30, 2)).numpy()
    flow = sbflow.fit_bridge(x0, x1, pretrain_steps=2, finetune_steps=1, num_steps=2, batch_size=4)
    assert flow.translate(x0, num_steps=2).isfinite().all()


def test_fit_bridge_repeats_with_its_seed_and_takes_unequal_sets():
    x0, x1 = gaussian_pair(100, 0)
    options = {"pretrain_steps": 3, "finetune_steps": 2, "num_steps": 2, "batch_size": 8, "seed": 5}
    first, second = (sbflow.fit_bridge(x0[:60], x1, **options).translate(x0, seed=1) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("x0", "x1", "message"),
    [
        (torch.zeros(0, 2), torch.randn(5, 2), "x0"),
        (torch.randn(5, 2), torch.randn(5, 3), "event shape"),
        (torch.randn(5, 2), torch.full((5, 2), float("nan")), "x1"),
        (torch.randn(5), torch.randn(5), "x0"),
        (torch.randn(5, 2), torch.zeros(5, 2), "constant"),
    ],
)
def test_fit_bridge_names_bad_samples(x0, x1, message):
    with pytest.raises(ValueError, match=message):
        sbflow.fit_bridge(x0, x1, pretrain_steps=1, finetune_steps=0)


def test_fit_bridge_chooses_epsilon_in_the_units_of_the_data():
    x0, x1 = gaussian_pair(200, 0)
    options = {"pretrain_steps": 1, "finetune_steps": 0}
    one, ten = (sbflow.fit_bridge(c * x0, c * x1, **options).process.epsilon for c in (1, 10))
    assert ten == pytest.approx(100 * one, rel=1e-4)
    assert sbflow.fit_bridge(x0, x1, epsilon=0.3, **options).process.epsilon == 0.3


def test_fit_bridge_takes_any_coupling_by_name():
    x0, x1 = gaussian_pair(50, 0)
    options = {"pretrain_steps": 2, "finetune_steps": 2, "num_steps": 2, "batch_size": 8}
    for coupling in ("online", "buffer", "minibatch_ot"):
        flow = sbflow.fit_bridge(x0, x1, coupling=coupling, **options)
        assert flow.translate(x0, num_steps=2).isfinite().all()


def test_translate_names_a_bad_argument():
    x0, x1 = gaussian_pair(50, 0)
    flow = sbflow.fit_bridge(x0, x1, pretrain_steps=1, finetune_steps=0, num_steps=2)
    # under the tests' run-time type check the annotation speaks first
    with pytest.raises((ValueError, TypeCheckError), match="direction"):
        flow.translate(x0, "sideways")
    with pytest.raises(ValueError, match="shape"):
        flow.translate(x0[:, :3])
    with pytest.raises(ValueError, match="num_steps"):
        flow.translate(x0, num_steps=0)


def _covariance(a, b):
    return float(((a - a.mean(0)) * (b - b.mean(0))).mean())
