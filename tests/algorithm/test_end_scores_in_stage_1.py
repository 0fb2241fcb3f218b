"""The scores of the ends in training: where they are used, and that a config can name them."""

import torch
from bridges import fit, make_data, make_flow
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sbflow.cli import config_dir
from sbflow.command.build import build
from sbflow.target import CountingTarget, GaussianTarget


def gaussian() -> CountingTarget:
    return CountingTarget(GaussianTarget([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]))


def test_the_scores_are_used_in_stage_1_and_never_after():
    ends = gaussian(), gaussian()
    flow = make_flow(end_scores=ends, pretrain_steps=3, finetune_steps=2)
    data = make_data()
    fit(flow, data)
    assert [end.gradient_evaluations for end in ends] == [3 * 16, 3 * 16]
    assert all(parameter.isfinite().all() for parameter in flow.parameters())
    assert not any(name.startswith("end_scores") for name in flow.state_dict())


def test_unknown_ends_train_as_ever():
    weights = []
    for ends in ((None, None), [None, None]):
        torch.manual_seed(4)
        flow = make_flow(end_scores=ends, pretrain_steps=3, finetune_steps=2)
        fit(flow, make_data())
        weights.append(torch.nn.utils.parameters_to_vector(flow.drift.parameters()))
    assert torch.equal(*weights)


def test_a_config_names_the_ends():
    node = "{_target_:sbflow.target.gaussian.GaussianTarget,mean:[0.0,1.0],covariance:[[1.0,0.0],[0.0,2.0]]}"
    overrides = ["experiment=sbf_gaussian", f"+algorithm.end_scores=[null,{node}]"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=overrides)
    OmegaConf.set_struct(config, False)
    config.event_shape = [2]
    flow = build(config, "algorithm")
    assert list(flow.end_scores.targets) == ["1"] and flow.end_scores.targets["1"].dim == 2
