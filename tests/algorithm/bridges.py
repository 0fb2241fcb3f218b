"""Small flows and their training, shared by the tests of the algorithm."""

import logging
import warnings

import torch
from lightning import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.data import UnpairedTensors
from sbflow.data.unpaired import UnpairedBatches
from sbflow.network import MLP
from sbflow.process import Brownian

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class DropoutMLP(nn.Module):
    """A perceptron that draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = MLP((2,), hidden=(16,), embed_dim=8, num_directions=2)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x, t, direction):
        return self.mlp(self.dropout(x), t, direction)


class ValidatedTensors(UnpairedTensors):
    """Tensors with a validation loader."""

    def val_dataloader(self):
        return DataLoader(UnpairedBatches(self.split("test"), 64, num_batches=2, seed=9), batch_size=None)


def make_flow(network: nn.Module | None = None, *, epsilon: float = 1.0, **options) -> SchrodingerBridgeFlow:
    network = network or MLP((2,), hidden=(16,), embed_dim=8, num_directions=2)
    return SchrodingerBridgeFlow(network, Brownian(epsilon), (2,), **{"num_steps": 3, "guard": "off"} | options)


def make_data(cls=ValidatedTensors, **options) -> UnpairedTensors:
    generator = torch.Generator().manual_seed(1)
    x0, x1 = (torch.randn(300, 2, generator=generator) for _ in range(2))
    return cls(x0, 2 * x1 + 1, **{"batch_size": 16} | options)


def fit(module, data, *callbacks: Callback, ckpt_path=None, **options) -> Trainer:
    """Train in silence, without validation unless asked for."""
    options = {"max_steps": module.max_steps, "max_epochs": -1, "limit_val_batches": 0, "logger": False} | options
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*many workers.*|.*val_dataloader.*|.*treespec, LeafSpec.*")
        run = Trainer(accelerator="cpu", callbacks=list(callbacks), num_sanity_val_steps=0, **quiet | options)
        run.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return run
