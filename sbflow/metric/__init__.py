from sbflow.metric.coupling import GaussianCoupling, gaussian_bridge
from sbflow.metric.frechet import frechet_distance, frechet_floor
from sbflow.metric.kernel import kernel_distance
from sbflow.metric.log_normalizer import LogNormalizer
from sbflow.metric.plan import ConditionalPlan
from sbflow.metric.sample_quality import SampleQuality
from sbflow.metric.translation import TranslationQuality
from sbflow.metric.transport import mean_squared_distance, pair_costs
from sbflow.metric.wasserstein import (
    MarginalDistance,
    bures_wasserstein,
    sliced_wasserstein_distance,
    wasserstein_distance,
)

__all__ = [
    "ConditionalPlan",
    "GaussianCoupling",
    "LogNormalizer",
    "MarginalDistance",
    "SampleQuality",
    "TranslationQuality",
    "bures_wasserstein",
    "frechet_distance",
    "frechet_floor",
    "gaussian_bridge",
    "kernel_distance",
    "mean_squared_distance",
    "pair_costs",
    "sliced_wasserstein_distance",
    "wasserstein_distance",
]
