"""Speculative translation: the law of the bridge with fewer calls of the network in sequence."""

import pytest
import torch
from assertions import assert_mean_close
from bridges import make_flow
from problems import LinearDrift, Scalars, asymmetric_coupling, euler_moments, scalar_coupling
from torch import nn

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.network import MLP, UNet
from sbflow.process import Brownian

PAIRS, EPSILON = {"forward": Scalars(1.0, 4.0, 0.5), "backward": Scalars(4.0, 1.0, 0.5)}, 0.8


def linear_flow(**options) -> SchrodingerBridgeFlow:
    """A flow on the line whose network is exact for pairs of variances 1 and 4 and covariance 0.5."""
    network = MLP((1,), hidden=(4,), embed_dim=4, num_directions=2)
    flow = SchrodingerBridgeFlow(network, Brownian(EPSILON), (1,), **options)
    flow.ema.module = LinearDrift(scalar_coupling(1.0, 4.0, 0.5), EPSILON)
    return flow


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("last_noise", [True, False])
def test_the_ends_have_the_moments_of_plain_translation(direction, last_noise):
    pairs = PAIRS[direction]
    x = pairs.start**0.5 * torch.randn(20_000, 1)
    end, info = linear_flow().translate_speculatively(x, direction, num_steps=12, last_noise=last_noise)
    variance, cross = euler_moments(pairs.start, pairs, EPSILON, 12, last_noise)
    assert_mean_close(end.double() ** 2, variance)
    assert_mean_close(x.double() * end, cross)
    assert info.steps == 12 and info.sequential_calls.double().mean() < 5


def test_the_sampler_of_translate_is_the_same_with_its_options():
    module, x = linear_flow(last_noise=False), torch.randn(6, 1)
    options = {"num_steps": 9, "times": "cosine", "seed": 3}
    end, info = module.translate_speculatively(x, "backward", **options)
    assert torch.equal(module.translate(x, "backward", sampler="speculative", **options), end)
    # without noise at the end, as in training: eight of the nine steps may be kept or not
    assert info.tried.sum() == 8 * 6
    noisy = module.translate(x, "backward", sampler="speculative", last_noise=True, **options)
    assert not torch.equal(noisy, end)
    assert torch.equal(module.translate(x, "backward", sampler="speculative", last_noise=False, **options), end)


def test_correlated_samples_are_carried_with_their_own_seeds_whatever_is_beside_them():
    coupling = asymmetric_coupling()
    flow = make_flow(epsilon=0.5)
    flow.ema.module = LinearDrift(coupling, 0.5)
    x, seeds = coupling.sample(9)[0].float(), list(range(9))
    whole, info = flow.translate_speculatively(x, num_steps=20, seed=seeds)
    for size in (1, 4, 100):
        parts, costs = flow.translate_speculatively(x, num_steps=20, seed=seeds, batch_size=size)
        assert torch.allclose(parts, whole, atol=1e-5)
        assert torch.equal(costs.sequential_calls, info.sequential_calls) and costs.rows == info.rows
    alone = flow.translate(x[7:], num_steps=20, sampler="speculative", seed=seeds[7:])
    assert torch.allclose(alone, whole[7:], atol=1e-5)


class Counting(nn.Module):
    """A network that counts its calls and rows."""

    def __init__(self, network):
        super().__init__()
        self.network, self.rows = network, []

    def forward(self, x, u, direction):
        assert len(u) == len(direction) == len(x)
        self.rows.append(len(x))
        return self.network(x, u, direction)


def test_a_single_image_saves_seventy_percent_of_the_calls_at_a_hundred_steps():
    # a network of smooth random weights in place of a trained one
    network = UNet((1, 8, 8), width=8, num_directions=2)
    flow = SchrodingerBridgeFlow(network, Brownian(0.5), (1, 8, 8), last_noise=False)
    with torch.no_grad():
        for parameter in flow.ema.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    counting = flow.ema.module = Counting(flow.ema.module)
    x = torch.randn(1, 1, 8, 8)
    end, info = flow.translate_speculatively(x, num_steps=100, seed=0)
    assert end.shape == x.shape and end.isfinite().all()
    assert len(counting.rows) == info.sequential_calls.item() <= 30
    assert sum(counting.rows) == info.rows and max(counting.rows) <= 9


def test_a_draft_model_that_is_the_network_is_never_refused():
    module, x = linear_flow(), torch.randn(8, 1)
    draft = lambda x, u: module.ema.module(x, u, torch.zeros(len(x), dtype=torch.long))  # noqa: E731
    _, info = module.translate_speculatively(x, num_steps=32, window=8, draft=draft)
    assert torch.equal(info.accepted, info.tried) and info.sequential_calls.tolist() == [4] * 8


def test_no_samples_give_no_samples():
    assert linear_flow().translate(torch.zeros(0, 1), sampler="speculative").shape == (0, 1)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"policy": "fresh"}, "policy must be 'stale' or 'root', got 'fresh'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"seed": [1, 2]}, "got 2 for 3 samples"),
    ],
)
def test_impossible_speculative_translations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        linear_flow().translate_speculatively(torch.zeros(3, 1), **options)


def test_a_path_is_not_to_be_had():
    with pytest.raises(ValueError, match="return_path is an option of sampler='sde', got sampler='speculative'"):
        linear_flow().translate(torch.zeros(3, 1), sampler="speculative", return_path=True)
