"""The drift as a graph of torch: parity with the model, any number of samples, no sbflow."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.command.exported import GRAPH, drift_graph, write_graph
from sbflow.network import MLP, UNet
from sbflow.process import Brownian

pytestmark = pytest.mark.usefixtures("unchecked_types")

CASES = {
    "perceptron": ((3,), lambda shape: MLP(shape, hidden=(16,), num_directions=2), {}),
    "u-net with attention": (
        (1, 10, 7),
        lambda shape: UNet(
            shape, width=8, multipliers=(1, 2), attention_levels=(1,), head_width=8, embed_dim=16, num_directions=2
        ),
        {"parametrisation": "endpoint"},
    ),
    "two networks": ((2,), lambda shape: MLP(shape, hidden=(16,), num_directions=2), {"bidirectional": False}),
}


def bridge(name):
    """A bridge with weights and moments that are not the initial ones; they are no other for the two directions."""
    shape, network, options = CASES[name]
    flow = SchrodingerBridgeFlow(network(shape), Brownian(0.7), shape, **options).eval()
    for module in (flow.drift, flow.ema.module):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)
        module.measure(1 + torch.randn(50, *shape), 3 * torch.randn(60, *shape))
    return flow


@pytest.mark.parametrize("name", CASES)
def test_the_graph_agrees_with_the_averaged_drift_for_any_number_of_samples(name, tmp_path):
    flow = bridge(name)
    write_graph(drift_graph(flow), flow, tmp_path / GRAPH)
    graph = torch.export.load(tmp_path / GRAPH).module()
    for n, direction in ((1, [1]), (5, [0, 1, 1, 0, 1]), (4, [0] * 4), (2, [1] * 2)):
        x, u, direction = 2 * torch.randn(n, *flow.event_shape), torch.rand(n), torch.tensor(direction)
        expected = flow.ema.module(x, u, direction)
        torch.testing.assert_close(graph(x, u, direction), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert not torch.allclose(expected, flow.drift(x, u, direction), rtol=0.1)


@pytest.mark.slow
def test_the_graph_is_loaded_and_simulated_without_sbflow(tmp_path):
    flow = bridge("perceptron")
    write_graph(drift_graph(flow), flow, tmp_path / GRAPH)
    code = f"""
import json, sys, torch
sys.modules["sbflow"] = None
notes = {{"sbflow.json": ""}}
drift = torch.export.load({str(tmp_path / GRAPH)!r}, extra_files=notes).module()
x, steps = torch.linspace(-1, 1, 12).reshape(4, 3), 5
for k in range(steps):
    x = x + drift(x, torch.full((4,), k / steps), torch.zeros(4, dtype=torch.long)) / steps
print(json.dumps([x.tolist(), json.loads(notes["sbflow.json"])]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got, notes = json.loads(done.stdout)
    x = torch.linspace(-1, 1, 12).reshape(4, 3)
    with torch.no_grad():
        for k in range(5):
            x = x + flow.ema.module(x, torch.full((1,), k / 5), torch.zeros(4, dtype=torch.long)) / 5
    torch.testing.assert_close(torch.tensor(got), x, rtol=1e-4, atol=1e-4)
    assert notes["event_shape"] == [3] and notes["epsilon"] == 0.7


def test_a_model_without_a_drift_is_named():
    with pytest.raises(ValueError, match="graph=true exports the drift of a bridge, which a Linear has not"):
        drift_graph(nn.Linear(2, 2))


class Branching(nn.Module):
    """A network whose way depends on its input."""

    def forward(self, x, t, direction=None):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_named():
    flow = SchrodingerBridgeFlow(Branching(), Brownian(1.0), (2,))
    with pytest.raises(ValueError, match=r"graph=true: torch\.export cannot trace Branching: ") as caught:
        drift_graph(flow)
    assert "\n" not in str(caught.value)


class Fickle(nn.Module):
    """A network that computes something else while it is traced."""

    def forward(self, x, t, direction=None):
        return x if torch.compiler.is_compiling() else -x


def test_a_graph_that_computes_something_else_is_refused():
    with pytest.raises(ValueError, match=r"is off by .* of its size"):
        drift_graph(SchrodingerBridgeFlow(Fickle(), Brownian(1.0), (2,)))
