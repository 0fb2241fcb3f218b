from sbflow.metric.coupling import GaussianCoupling, gaussian_bridge
from sbflow.metric.frechet import frechet_distance, frechet_floor
from sbflow.metric.log_normalizer import LogNormalizer
from sbflow.metric.translation import TranslationQuality
from sbflow.metric.transport import mean_squared_distance, pair_costs

__all__ = [
    "GaussianCoupling",
    "LogNormalizer",
    "TranslationQuality",
    "frechet_distance",
    "frechet_floor",
    "gaussian_bridge",
    "mean_squared_distance",
    "pair_costs",
]
