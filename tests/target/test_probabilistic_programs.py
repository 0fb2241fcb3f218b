"""NumPyro, PyMC, Stan and JAX models against the same density written in torch; each skipped without its package."""

import sys
import types

import numpy as np
import pytest
import torch
from problems_eight_schools import EFFECTS, ERRORS, PARAMETERS, log_prob

from sbflow.target import (
    BridgeStanTarget,
    ConstrainedTarget,
    JaxTarget,
    NumPyroTarget,
    PyMCTarget,
    check_target,
)
from sbflow.whitening import Laplace


def points(dim: int) -> torch.Tensor:
    return torch.randn(5, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def assert_same(target, z) -> None:
    """Values, gradients, curvature and constrained points agree with those of the plain function."""
    names = target.parameters_by_name(z)
    plain = ConstrainedTarget(log_prob, {name: PARAMETERS[name] for name in names})
    torch.testing.assert_close(target.log_prob(z), plain.log_prob(z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(target.score(z), plain.score(z), rtol=1e-6, atol=1e-6)
    hessians = [torch.func.jacrev(lambda x, t=t: t.score(x[None])[0])(z[0]) for t in (target, plain)]
    torch.testing.assert_close(*hessians, rtol=1e-6, atol=1e-6)
    for name, value in plain.parameters_by_name(z).items():
        torch.testing.assert_close(names[name], value)
    torch.testing.assert_close(target.constrain(z), plain.constrain(z))
    assert target.constrain(z[:0]).shape == (0, 10)


def test_a_numpyro_model_is_the_density_of_its_unconstrained_variables() -> None:
    numpyro = pytest.importorskip("numpyro")
    dist = numpyro.distributions

    def model(effects, errors):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        tau = numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("schools", 8):
            eta = numpyro.sample("eta", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(mu + tau * eta, errors), obs=effects)

    target = NumPyroTarget(model, model_args=(EFFECTS.numpy(), ERRORS.numpy()))
    assert target.dim == 10
    assert_same(target, points(10))
    check_target(target)
    assert Laplace().fit(target).dim == 10


def test_a_numpyro_model_without_latent_variables_is_refused() -> None:
    numpyro = pytest.importorskip("numpyro")

    def model():
        numpyro.sample("y", numpyro.distributions.Normal(0, 1), obs=1.0)

    with pytest.raises(ValueError, match="model must have a continuous latent variable"):
        NumPyroTarget(model)


def test_a_pymc_model_is_the_density_of_its_unconstrained_variables() -> None:
    pytest.importorskip("jax")
    pymc = pytest.importorskip("pymc")
    with pymc.Model() as model:
        mu = pymc.Normal("mu", 0, 5)
        tau = pymc.HalfCauchy("tau", 5)
        eta = pymc.Normal("eta", 0, 1, shape=8)
        pymc.Normal("y", mu + tau * eta, ERRORS.numpy(), observed=EFFECTS.numpy())
    target = PyMCTarget(model)
    assert target.dim == 10
    assert_same(target, points(10))


def test_a_pymc_model_with_a_discrete_variable_is_refused() -> None:
    pytest.importorskip("jax")
    pymc = pytest.importorskip("pymc")

    def make():
        with pymc.Model() as model:
            pymc.Poisson("count", 3.0)
            pymc.Normal("mu", 0, 1)
        return model

    with pytest.raises(ValueError, match=r"no discrete ones, got discrete \['count'\]"):
        PyMCTarget(make)


def test_a_jax_function_is_batched_and_differentiated_in_float64() -> None:
    jnp = pytest.importorskip("jax.numpy")
    before = jnp.zeros(1).dtype
    target = JaxTarget(lambda x: -0.5 * jnp.sum(x**2) - x[0] ** 4, dim=2)
    z = points(2)
    expected = -0.5 * z.square().sum(1) - z[:, 0] ** 4
    torch.testing.assert_close(target.log_prob(z), expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(target.constrain(z), z)
    # the setting of the user's own JAX code is left as it was
    assert jnp.zeros(1).dtype == before


class FakeStanModel:
    """What BridgeStan offers of a model: exp(φ) ~ half-normal and a normal, rejecting beyond φ > 3."""

    def param_unc_num(self) -> int:
        return 2

    def param_names(self) -> list[str]:
        return ["tau", "mu"]

    def param_constrain(self, x):
        return np.array([np.exp(x[0]), x[1]])

    def log_density_gradient(self, x, *, propto):
        # without its constants a density has another normalising constant
        assert propto is False
        if x[0] > 3:
            raise RuntimeError("Exception: normal_lpdf: Scale parameter is inf")
        tau = np.exp(x[0])
        return -0.5 * tau**2 + x[0] - 0.5 * x[1] ** 2, np.array([1 - tau**2, -x[1]])

    def log_density_hessian_vector_product(self, x, v, *, propto):
        return None, np.array([-2 * np.exp(2 * x[0]), -1.0]) * v


def test_a_stan_model_is_evaluated_with_its_constants_and_rejects_with_density_zero() -> None:
    target = BridgeStanTarget(FakeStanModel())
    z = torch.tensor([[0.5, 1.0], [4.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)
    plain = ConstrainedTarget(lambda p: -0.5 * p["tau"] ** 2 - 0.5 * p["mu"] ** 2, {"tau": "positive", "mu": "real"})
    log_prob_of_z, score = target.log_prob_and_score(z)
    assert log_prob_of_z[1] == -torch.inf and not score[1].any()
    torch.testing.assert_close(log_prob_of_z[::2], plain.log_prob(z[::2]))
    torch.testing.assert_close(score[::2], plain.score(z[::2]))
    torch.testing.assert_close(target.parameters_by_name(z)["tau"], z[:, 0].exp())
    mode = Laplace().fit(target)(torch.zeros(1, 2, dtype=torch.float64))
    torch.testing.assert_close(mode, torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_stan_program_is_the_density_of_its_unconstrained_parameters(tmp_path) -> None:
    bridgestan = pytest.importorskip("bridgestan")
    (tmp_path / "schools.stan").write_text(
        "data { int J; vector[J] y; vector[J] s; }"
        "parameters { real mu; real<lower=0> tau; vector[J] eta; }"
        "model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); eta ~ normal(0, 1); y ~ normal(mu + tau * eta, s); }"
    )
    data = {"J": 8, "y": EFFECTS.tolist(), "s": ERRORS.tolist()}
    try:
        model = bridgestan.StanModel(str(tmp_path / "schools.stan"), data)
    except (ValueError, RuntimeError) as error:
        pytest.skip(f"Stan cannot compile here: {error}")
    target, z = BridgeStanTarget(model), points(10)
    plain = ConstrainedTarget(log_prob, PARAMETERS)
    # Stan's Cauchy on the positive half-line is not renormalised: half the density of the half-Cauchy
    torch.testing.assert_close(target.log_prob(z) + np.log(2), plain.log_prob(z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(target.score(z), plain.score(z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(target.constrain(z), plain.constrain(z))


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [
        (lambda: NumPyroTarget(lambda: None), "numpyro", "numpyro"),
        (lambda: PyMCTarget(types.SimpleNamespace(value_vars=[])), "pymc", "pymc"),
        (lambda: BridgeStanTarget("model.stan"), "bridgestan", "bridgestan"),
        (lambda: JaxTarget(lambda x: x, dim=1), "jax", "numpyro"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, make, package, extra) -> None:
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'sbflow\[{extra}\]'"):
        make()
