from sbflow.data.glyphs import Glyphs
from sbflow.data.letters import MNISTEMNIST, MNISTLetters
from sbflow.data.unpaired import Split, UnpairedBatches, UnpairedData, UnpairedTensors

__all__ = ["MNISTEMNIST", "Glyphs", "MNISTLetters", "Split", "UnpairedBatches", "UnpairedData", "UnpairedTensors"]
