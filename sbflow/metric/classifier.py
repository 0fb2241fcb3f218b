"""A small convolutional classifier of both ends, trained on the spot: features and class probabilities for images."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sbflow.metric.protocol import LabelledSplit

__all__ = ["EndClassifier", "train_classifier"]

INFERENCE_BATCH = 500


class EndClassifier(nn.Module):
    """Classes of π₀ first, then those of π₁, in one softmax.

    Args:
        channels: channels of the images.
        num_classes0: classes of the x0 end.
        num_classes1: classes of the x1 end.
        width: channels after the first convolution.
        num_features: length of the feature vector, the activations before the last layer.
    """

    def __init__(
        self, channels: int, num_classes0: int, num_classes1: int, *, width: int = 16, num_features: int = 64
    ) -> None:
        super().__init__()
        self.num_classes0 = num_classes0
        self.trunk = nn.Sequential(
            *_convolution(channels, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Linear(2 * width * 16, num_features),
            nn.ReLU(),
        )
        self.head = nn.Linear(num_features, num_classes0 + num_classes1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        return self.head(self.trunk(x))

    @torch.no_grad()
    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """Activations before the last layer, in double precision on the CPU."""
        device = self.head.weight.device
        return torch.cat([self.trunk(piece.to(device)).cpu() for piece in x.split(INFERENCE_BATCH)]).double()

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
        """Most probable class of each image, on the CPU."""
        device = self.head.weight.device
        return torch.cat([self(piece.to(device)).argmax(1).cpu() for piece in x.split(INFERENCE_BATCH)])

    def end_share(self, x: Float[Tensor, "n c h w"], end: Literal[0, 1]) -> float:
        """Share of the images whose most probable class belongs to one end."""
        return ((self.predict(x) >= self.num_classes0) == bool(end)).double().mean().item()

    def accuracy(self, split: LabelledSplit) -> float:
        """Share of the images of both ends given their right class; ends without labels count as one class."""
        right = self.predict(torch.cat([split.x0, split.x1])) == _joint_labels(split, self.num_classes0)
        return right.double().mean().item()


def train_classifier(
    split: LabelledSplit,
    *,
    num_steps: int = 800,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    seed: int = 0,
    device: torch.device | None = None,
) -> EndClassifier:
    """Fit an `EndClassifier` with Adam under a one-cycle learning rate, on randomly moved images.

    The result is a function of its arguments alone; the global random state is neither read nor moved.

    Args:
        split: training images of both ends, values in [-1, 1].
        num_steps: optimiser steps.
        batch_size: images per step, drawn with replacement from both ends together.
        learning_rate: peak of the cycle.
        seed: seed of the weights, the batches and the augmentation.
        device: where to train and leave the classifier; the CPU by default.

    Raises:
        ValueError: the samples are not images.
    """
    if split.x0.ndim != 4:
        raise ValueError(f"the classifier needs images [n, c, h, w], got x0 of shape {list(split.x0.shape)}")
    num_classes0 = _num_classes(split.labels0)
    images, labels = torch.cat([split.x0, split.x1]), _joint_labels(split, num_classes0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = EndClassifier(images.shape[1], num_classes0, _num_classes(split.labels1)).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        moved = _move_randomly(images[chosen], generator).to(device)
        loss = F.cross_entropy(classifier(moved), labels[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval().requires_grad_(False)


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _num_classes(labels: Tensor | None) -> int:
    return 1 if labels is None else int(labels.max()) + 1


def _joint_labels(split: LabelledSplit, num_classes0: int) -> Int[Tensor, " n"]:
    labels0 = torch.zeros(len(split.x0), dtype=torch.long) if split.labels0 is None else split.labels0
    labels1 = torch.zeros(len(split.x1), dtype=torch.long) if split.labels1 is None else split.labels1
    return torch.cat([labels0, labels1 + num_classes0])


def _move_randomly(x: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """A small random linear map and shift of each image: fonts differ in slant, width and size."""
    change = 0.1 * (2 * torch.rand(len(x), 2, 3, generator=generator) - 1)
    grid = F.affine_grid(torch.eye(2, 3) + change, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
