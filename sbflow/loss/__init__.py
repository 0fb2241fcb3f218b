"""Losses."""

from sbflow.loss.bridge_matching import Pairs, bidirectional_pairs, bridge_matching, stratified_times
from sbflow.loss.score_matching import novel_score_matching

__all__ = ["Pairs", "bidirectional_pairs", "bridge_matching", "novel_score_matching", "stratified_times"]
