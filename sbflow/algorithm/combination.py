"""One call for what trained models can be combined to."""

from collections.abc import Sequence
from typing import Any

from sbflow.algorithm.corrector import BridgeCorrector, Corrector, ScoreCorrector
from sbflow.algorithm.geometric_sampler import GeometricSampler
from sbflow.algorithm.particle_denoising_diffusion_sampler import ParticleDenoisingDiffusionSampler
from sbflow.algorithm.score_diffusion import ScoreDiffusion
from sbflow.algorithm.translation import BridgeTranslation

__all__ = ["Model", "combine"]

Model = ParticleDenoisingDiffusionSampler | ScoreDiffusion | BridgeTranslation


def combine(
    models: Model | Sequence[Model], exponents: float | Sequence[float | int], **options: Any
) -> GeometricSampler | Corrector:
    """Sampler of the density proportional to Π_i p_i^{a_i}, from models of the p_i; nothing is trained.

    ``combine(model, 2.0)`` tempers, ``combine([one, other], [1, 1])`` multiplies, ``combine([plain, conditional],
    [1 - w, w])`` guides. ``.estimate()`` of the result gives log Z with its error, and weighted samples.

    Args:
        models: one or several, trained and of one kind. Particle denoising diffusion samplers know densities: the
            result is a `GeometricSampler`, whose Ẑ is unbiased. Diffusions and bridges know scores: the result is a
            `sbflow.algorithm.corrector.Corrector`, as good as these are.
        exponents: one for each model, of any sign but with a positive sum; those of bridges sum to 1.
        **options: see `GeometricSampler`, `sbflow.algorithm.corrector.ScoreCorrector` and
            `sbflow.algorithm.corrector.BridgeCorrector`, which needs ``x0``.

    Raises:
        ValueError: models of different kinds, or that do not share what they must; exponents that do not fit.
    """
    parts = [models] if isinstance(models, Model) else list(models)
    powers = [float(exponents)] if isinstance(exponents, int | float) else [float(a) for a in exponents]
    if not parts or len(powers) != len(parts):
        raise ValueError(f"exponents must be one number for each of {len(parts)} models, got {powers}")
    makers = (
        (ParticleDenoisingDiffusionSampler, GeometricSampler),
        (ScoreDiffusion, ScoreCorrector),
        (BridgeTranslation, BridgeCorrector),
    )
    for kind, make in makers:
        if all(isinstance(part, kind) for part in parts):
            return make(parts, powers, **options)
    names = ", ".join(sorted({type(part).__name__ for part in parts}))
    raise ValueError(f"models must all be particle samplers, score diffusions or bridges, got {names}")
