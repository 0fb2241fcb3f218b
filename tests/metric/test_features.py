"""Extractors whose weights may be absent: what they feed to the network, and what they say where it cannot be had."""

import pytest
import torch
from torch import nn

from sbflow.metric import features


class Recording(nn.Module):
    """In the place of Inception: mean of each channel."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return x.float().mean((2, 3))


def test_inception_sees_colour_bytes(monkeypatch):
    monkeypatch.setattr(features, "NoTrainInceptionV3", Recording)
    extract = features.inception_features(torch.device("cpu"))
    x = torch.tensor([-1.0, 0.0, 1.0, 7.0]).reshape(4, 1, 1, 1).expand(4, 1, 5, 6)
    assert torch.equal(extract(x)[:, 2], torch.tensor([0.0, 128.0, 255.0, 255.0]).double())
    assert extract(torch.zeros(60, 3, 4, 4)).shape == (60, 3)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "NoTrainInceptionV3",
            features.inception_features,
            "features=inception needs torch-fidelity, .*no such package",
        ),
        ("LearnedPerceptualImagePatchSimilarity", features.perceptual_distance, "lpips=true needs .*no such package"),
    ],
)
def test_missing_weights_are_named_in_one_line(monkeypatch, name, make, message):
    def absent(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("no such package")

    monkeypatch.setattr(features, name, absent)
    with pytest.raises(ValueError, match=message) as caught:
        make(torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_perceptual_distance_gets_pairs_in_range_and_large_enough(monkeypatch):
    class Fake(nn.Module):
        def __init__(self, **_: object) -> None:
            super().__init__()
            self.values = []

        def reset(self) -> None:
            self.values = []

        def update(self, x: torch.Tensor, y: torch.Tensor) -> None:
            assert x.shape == y.shape and x.shape[1] == 3 and min(x.shape[2:]) >= 32 and x.abs().max() <= 1
            self.values.append((x - y).abs().mean())

        def compute(self) -> torch.Tensor:
            return torch.stack(self.values).mean()

    monkeypatch.setattr(features, "LearnedPerceptualImagePatchSimilarity", Fake)
    measure = features.perceptual_distance(torch.device("cpu"))
    x = torch.full((3, 1, 16, 20), -1.0)
    assert measure(x, x + 0.5) == measure(x, x + 0.5) == pytest.approx(0.5)
