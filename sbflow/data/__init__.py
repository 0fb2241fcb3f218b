"""Data modules."""

from sbflow.data.arrays import ArrayFiles
from sbflow.data.celeba import CelebA
from sbflow.data.folders import AFHQ, CatsDogs64, ClassFolders, ImageFolders
from sbflow.data.gaussians import Gaussians
from sbflow.data.glyphs import Glyphs
from sbflow.data.letters import MNISTEMNIST, MNISTLetters
from sbflow.data.mixture_bridge import MixtureBridgeData
from sbflow.data.particles import ParticleData
from sbflow.data.planar import Planar
from sbflow.data.unpaired import Samples, Sources, Split, UnpairedBatches, UnpairedData, UnpairedTensors

__all__ = [
    "AFHQ",
    "MNISTEMNIST",
    "ArrayFiles",
    "CatsDogs64",
    "CelebA",
    "ClassFolders",
    "Gaussians",
    "Glyphs",
    "ImageFolders",
    "MNISTLetters",
    "MixtureBridgeData",
    "ParticleData",
    "Planar",
    "Samples",
    "Sources",
    "Split",
    "UnpairedBatches",
    "UnpairedData",
    "UnpairedTensors",
]
