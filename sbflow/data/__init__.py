"""Data modules."""

from sbflow.data.gaussians import Gaussians
from sbflow.data.glyphs import Glyphs
from sbflow.data.letters import MNISTEMNIST, MNISTLetters
from sbflow.data.particles import ParticleData
from sbflow.data.unpaired import Split, UnpairedBatches, UnpairedData, UnpairedTensors

__all__ = [
    "MNISTEMNIST",
    "Gaussians",
    "Glyphs",
    "MNISTLetters",
    "ParticleData",
    "Split",
    "UnpairedBatches",
    "UnpairedData",
    "UnpairedTensors",
]
