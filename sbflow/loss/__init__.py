"""Losses."""

from sbflow.loss.bridge_matching import Pairs, bidirectional_pairs, bridge_matching, stratified_times
from sbflow.loss.score_matching import (
    ScoreMatching,
    denoising_score_matching,
    fisher_score_matching,
    novel_score_matching,
    target_score_matching,
)

__all__ = [
    "Pairs",
    "ScoreMatching",
    "bidirectional_pairs",
    "bridge_matching",
    "denoising_score_matching",
    "fisher_score_matching",
    "novel_score_matching",
    "stratified_times",
    "target_score_matching",
]
