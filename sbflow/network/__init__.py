"""Backbones with one contract: ``forward(x, t, **condition)`` has the shape of x."""

from sbflow.network.adapter import Adapter, DiffusersUNet
from sbflow.network.drift import BridgeDrift
from sbflow.network.embedding import ConditionEmbedding, FourierFeatures
from sbflow.network.mlp import MLP, ResidualMLP
from sbflow.network.presets import UNet28, UNet64, UNet256, UNetSmall
from sbflow.network.unet import SelfAttention, UNet

__all__ = [
    "MLP",
    "Adapter",
    "BridgeDrift",
    "ConditionEmbedding",
    "DiffusersUNet",
    "FourierFeatures",
    "ResidualMLP",
    "SelfAttention",
    "UNet",
    "UNet28",
    "UNet64",
    "UNet256",
    "UNetSmall",
]
