"""Backbones with one contract: ``forward(x, t, **condition)`` has the shape of x."""

from sbflow.network.drift import BridgeDrift
from sbflow.network.embedding import ConditionEmbedding, FourierFeatures
from sbflow.network.mlp import MLP, ResidualMLP
from sbflow.network.unet import UNet

__all__ = ["MLP", "BridgeDrift", "ConditionEmbedding", "FourierFeatures", "ResidualMLP", "UNet"]
