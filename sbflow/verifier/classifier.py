"""How probable a classifier finds the wanted class."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.tensor import flat_sum

__all__ = ["Classifier", "ClassifierLogProbability"]

Classifier = Callable[[Tensor], Tensor]
"""Samples ``[n, *event]`` -> logits ``[n, classes]``."""


class ClassifierLogProbability:
    """Log probability in nats that a classifier gives the wanted classes, less a price of leaving the input.

    Images are clamped to [-1, 1] for the classifier, which has seen no others. A search finds the weak spots of its
    classifier; judge its results by another one.

    Args:
        classifier: logits of samples; a module is put into evaluation mode.
        label: the wanted class, or several of them, whose probabilities are added.
        distance_weight: nats per unit of ‖result − input‖², at least 0.

    Raises:
        ValueError: no class, a negative one, or a negative weight.
    """

    def __init__(self, classifier: Classifier, label: int | Sequence[int], *, distance_weight: float = 0.0) -> None:
        labels = [label] if isinstance(label, int) else list(label)
        if not labels or min(labels) < 0:
            raise ValueError(f"label must be a class from 0, or several, got {label}")
        if not distance_weight >= 0:
            raise ValueError(f"distance_weight must be at least 0, got {distance_weight}")
        self.classifier = classifier.eval() if isinstance(classifier, nn.Module) else classifier
        self.labels = labels
        self.distance_weight = distance_weight

    def __call__(self, x_in: Float[Tensor, "n *event"], x_out: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
        """Scores.

        Raises:
            ValueError: the classifier does not know a wanted class.
        """
        logits = self.classifier(x_out.clamp(-1, 1) if x_out.ndim == 4 else x_out)
        if max(self.labels) >= logits.shape[1]:
            raise ValueError(f"label must be below {logits.shape[1]}, the classes of the classifier, got {self.labels}")
        chosen = torch.logsumexp(logits.log_softmax(1)[:, self.labels], 1)
        return chosen - self.distance_weight * flat_sum((x_out - x_in) ** 2)
