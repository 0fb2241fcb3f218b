"""``sbflow sample`` with powers and products of trained runs."""

import pytest
import torch
from commands import TINY_PARTICLES, sbflow
from omegaconf import OmegaConf

from sbflow.command.build import build
from sbflow.smc import Evidence

TINY = ("experiment=pdds_gaussian", "whitening=standard", *TINY_PARTICLES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("factors")
    for name, mean, covariance in (("one", "[0.5]", "[[0.5]]"), ("other", "[-0.3]", "[[0.8]]")):
        assert (
            sbflow(
                "train", *TINY, f"target.mean={mean}", f"target.covariance={covariance}", f"run_dir={folder / name}"
            ).code
            == 0
        )
    return folder


def test_powers_and_products_of_runs_have_their_integrals(runs, tmp_path, capsys):
    # ∫ N(x; m, v)² dx = (4πv)^(-½), and ∫ of a product is N(m₁; m₂, v₁ + v₂)
    cases = {
        (f"checkpoint={runs / 'one'}", "exponent=2"): -0.91894,
        (f"checkpoint=[{runs / 'one'},{runs / 'other'}]", "exponents=[1,1]"): -1.29626,
    }
    for k, (arguments, exact) in enumerate(cases.items()):
        options = ("num_steps=20", "num_particles=2000", "replicates=5", f"run_dir={tmp_path / str(k)}")
        result = sbflow("sample", *arguments, *options, capsys=capsys)
        assert result.code == 0 and "pilot ess" in result.out
        evidence = Evidence.load(tmp_path / str(k))
        assert abs(evidence.log_z - exact) < 5 * evidence.log_z_stderr + 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("checkpoint=[{one},{other}]",), "need exponents="),
        (("checkpoint=[{one},{other}]", "exponents=[1]"), "one number for each of 2 models"),
        (("checkpoint={one}", "exponent=2", "exponents=[2]"), "not both"),
        (("checkpoint={one}", "exponent=-1"), "positive sum"),
        (("checkpoint={one}", "speed=2"), "need exponents="),
        (("checkpoint={one}", "exponents=two"), "exponents must be"),
    ],
)
def test_exponents_that_do_not_fit_are_refused(runs, arguments, message, capsys):
    filled = [argument.format(one=runs / "one", other=runs / "other") for argument in arguments]
    result = sbflow("sample", *filled, capsys=capsys)
    assert result.code == 2 and message in result.err


@pytest.fixture
def diffusion(tmp_path):
    """Run folder of an untrained diffusion."""
    parts = {
        "_target_": "sbflow.algorithm.score_diffusion.ScoreDiffusion",
        "target": {"_target_": "sbflow.target.mixture.Mixture2D"},
        "whitening": {"_target_": "sbflow.whitening.standard.Standard"},
        "process": {"_target_": "sbflow.process.ornstein_uhlenbeck.OrnsteinUhlenbeck"},
        "network": {"_target_": "sbflow.network.mlp.MLP", "event_shape": [2]},
    }
    config = OmegaConf.create({"algorithm": parts})
    (tmp_path / "checkpoints").mkdir()
    OmegaConf.save(config, tmp_path / "config.yaml")
    state = build(config, "algorithm").state_dict()
    torch.save({"state_dict": state, "sbflow_format": 1}, tmp_path / "checkpoints" / "last.ckpt")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("speed=2",), "speed is an option for particle samplers, not for ScoreDiffusion"),
        (("quality=true",), "quality=true compares with samples of the target, which a ScoreCorrector has not"),
    ],
)
def test_what_a_combination_of_scores_does_not_have_is_named(diffusion, options, message, tmp_path, capsys):
    arguments = (f"checkpoint={diffusion}", "exponent=2", *options, f"run_dir={tmp_path / 'out'}")
    result = sbflow("sample", *arguments, capsys=capsys)
    assert result.code == 2 and message in result.err and len(result.err.strip().splitlines()) == 1
