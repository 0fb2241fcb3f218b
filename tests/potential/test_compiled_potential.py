import shutil
import subprocess
import sys

import pytest
from problems_targets import needs_data

# in a process of its own: the checks of shapes, which tests have and users have not, do not compile
COMPARISON = """
import torch
from sbflow.network import MLP
from sbflow.potential import NaivePotential, NeuralPotential
from sbflow.potential.neural import Guide
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import Mixture2D, Sonar

torch.manual_seed(0)
target, process = {target}(), OrnsteinUhlenbeck()
potential = NeuralPotential(NaivePotential(target, process), Guide(MLP((target.dim,), hidden=(32, 32))))
with torch.no_grad():
    # a fresh guide is zero, and its gradient with it
    for parameter in potential.guide.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
z, t = torch.randn(64, target.dim), torch.tensor(0.3)
compiled = torch.compile(potential.log_g_and_grad, fullgraph=True)
for found, expected in zip(compiled(z, t), potential.log_g_and_grad(z, t), strict=True):
    # float32, in another order of some hundred additions
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("target", ["Mixture2D", pytest.param("Sonar", marks=needs_data)])
def test_value_and_gradient_compile_into_one_graph(target):
    done = subprocess.run([sys.executable, "-c", COMPARISON.format(target=target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
