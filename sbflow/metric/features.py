"""Feature extractors of published numbers and perceptual distance, where their weights can be had."""

from collections.abc import Callable
from urllib.error import URLError

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.image.fid import NoTrainInceptionV3
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

__all__ = ["FeatureExtractor", "inception_features", "perceptual_distance"]

FeatureExtractor = Callable[[Tensor], Tensor]
"""(images in [-1, 1] ``[n, c, h, w]``) -> features ``[n, features]``, in double precision on the CPU."""

INCEPTION_BATCH = 50


def inception_features(device: torch.device) -> FeatureExtractor:
    """The 2048 pooled features of the Inception network that published FID values use, by torchmetrics.

    Raises:
        ValueError: the package or the weights cannot be had here.
    """
    try:
        network = NoTrainInceptionV3("inception-v3-compat", ["2048"]).to(device).eval()
    except (ImportError, OSError, URLError, RuntimeError) as error:
        raise ValueError(_missing("features=inception", "torch-fidelity", error)) from error

    @torch.no_grad()
    def extract(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        pieces = (_bytes(piece).to(device) for piece in x.split(INCEPTION_BATCH))
        return torch.cat([network(piece).flatten(1).cpu() for piece in pieces]).double()

    return extract


def perceptual_distance(device: torch.device) -> Callable[[Tensor, Tensor], float]:
    """Mean LPIPS (VGG) of pairs of images, by torchmetrics; images below 32 pixels are enlarged.

    Raises:
        ValueError: the weights cannot be had here.
    """
    try:
        network = LearnedPerceptualImagePatchSimilarity(net_type="vgg").to(device)
    except (ImportError, OSError, URLError, RuntimeError) as error:
        raise ValueError(_missing("lpips=true", "torchvision's weights", error)) from error

    @torch.no_grad()
    def measure(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> float:
        network.reset()
        for pair in zip(x.split(INCEPTION_BATCH), y.split(INCEPTION_BATCH), strict=True):
            network.update(*(_at_least_32(_colour(image.clamp(-1, 1))).to(device) for image in pair))
        return float(network.compute())

    return measure


def _bytes(x: Tensor) -> Tensor:
    """Colour images in 0 … 255, as the network takes them."""
    return ((_colour(x).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _colour(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]


def _at_least_32(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    if min(x.shape[2:]) >= 32:
        return x
    factor = 32 / min(x.shape[2:])
    size = [round(side * factor) for side in x.shape[2:]]
    return torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _missing(option: str, what: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{option} needs {what}, which cannot be had here ({reason}); leave the option out"
