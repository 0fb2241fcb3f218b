"""Losses."""

from sbflow.loss.bridge_matching import Pairs, bidirectional_pairs, bridge_matching, stratified_times
from sbflow.loss.end_scores import EndScores
from sbflow.loss.mixing import Denoising, Fisher, MixingName, Novel, Target, named_mixing
from sbflow.loss.score_matching import Coefficients, Mixing, ScoreMatching, score_label, score_matching

__all__ = [
    "Coefficients",
    "Denoising",
    "EndScores",
    "Fisher",
    "Mixing",
    "MixingName",
    "Novel",
    "Pairs",
    "ScoreMatching",
    "Target",
    "bidirectional_pairs",
    "bridge_matching",
    "named_mixing",
    "score_label",
    "score_matching",
    "stratified_times",
]
