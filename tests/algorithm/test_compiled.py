import shutil
import warnings

import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from torch import nn

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.algorithm.compiled import compile_networks
from sbflow.data import Gaussians
from sbflow.network import MLP
from sbflow.process import Brownian

CPU = torch.device("cpu")


class Watch(Callback):
    """Whether the network is compiled while it trains."""

    def on_train_end(self, trainer, module):
        self.compiled = module.drift._compiled_call_impl is not None


def trained(compile, *callbacks):
    seed_everything(0, verbose=False)
    network = MLP((3,), hidden=(16, 16), num_directions=2)
    flow = SchrodingerBridgeFlow(
        network, Brownian(1.0), (3,), pretrain_steps=3, finetune_steps=3, num_steps=3, guard="off", compile=compile
    )
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        max_steps=flow.max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(flow, Gaussians(dim=3, num_samples=100, batch_size=16))
    return flow


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.slow
def test_a_compiled_network_trains_as_an_eager_one():
    watch = Watch()
    eager, compiled = trained(False), trained(True, watch)
    assert watch.compiled
    # the compilation ends with the training
    assert compiled.drift._compiled_call_impl is None
    for name, weight in eager.state_dict().items():
        # six steps of Adam at rate 1e-3, whose direction is a sign where gradients are all rounding
        torch.testing.assert_close(compiled.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


def test_without_a_compiler_there_is_one_warning_and_the_network_as_it_was():
    network = nn.Linear(2, 2)

    def fails():
        raise RuntimeError("\n\nNo working C++ compiler found\nmore")

    with pytest.warns(UserWarning, match=r"failed: No working C\+\+ compiler found; compile=false") as caught:
        assert not compile_networks([network], True, CPU, fails)
    assert len(caught) == 1
    assert network(torch.zeros(1, 2)).shape == (1, 2)
    assert network._compiled_call_impl is None


@pytest.mark.parametrize("choice", [False, "auto"])
def test_on_a_cpu_nothing_is_compiled_unasked(choice):
    network = nn.Linear(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not compile_networks([network], choice, CPU, lambda: pytest.fail("not wanted"))
    assert network._compiled_call_impl is None
