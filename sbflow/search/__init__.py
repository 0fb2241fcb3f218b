"""Search at inference: noise under which a verifier likes the result, after Ma et al. 2025."""

from sbflow.search.base import Search
from sbflow.search.best_of_n import BestOfN
from sbflow.search.paths import Paths
from sbflow.search.result import HeldOut, SearchResult, rescore
from sbflow.search.roll import Roll, bridge_roll
from sbflow.search.zero_order import ZeroOrder

__all__ = [
    "BestOfN",
    "HeldOut",
    "Paths",
    "Roll",
    "Search",
    "SearchResult",
    "ZeroOrder",
    "bridge_roll",
    "rescore",
]
