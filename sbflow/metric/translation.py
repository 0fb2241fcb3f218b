"""Quality of an unpaired image translation: is the output like the other end, and does it stay near its input?"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.metric.classifier import EndClassifier, train_classifier
from sbflow.metric.frechet import FrechetFloor, frechet_distance, frechet_floor
from sbflow.metric.protocol import Direction, Translator, TwoSided
from sbflow.metric.transport import PairCosts, mean_squared_distance, pair_costs

__all__ = ["TranslationQuality"]

SUFFIXES: dict[Direction, str] = {"forward": "", "backward": "_backward"}


class _Reference(NamedTuple):
    """What depends on the data alone, so that several modules are measured with the same yardstick."""

    classifier: EndClassifier
    accuracy: float
    samples: tuple[Tensor, Tensor]
    features: tuple[Tensor, Tensor]
    floors: tuple[FrechetFloor, FrechetFloor]
    source_distance: float
    costs: PairCosts


class TranslationQuality:
    """Measures a translation on the test split, in the features of a classifier trained here on the training split.

    Of each end a random subset of ``num_samples`` test samples is used (all, where there are no more). Keys, for the
    forward direction; those of the backward direction end in ``_backward``:

    - ``test/frechet``: Fréchet distance of the translated x0 to the real x1, in the classifier's features.
    - ``test/frechet_source``: of the untranslated x0 to the real x1.
    - ``test/frechet_floor``: between two disjoint random halves of the real x1; the samples in each half are
      ``test/frechet_floor_num_samples``.
    - ``test/target_class_share``: share of the translated x0 whose most probable class is one of x1's.
    - ``test/msd``: squared distance per element between input and output, averaged.
    - ``test/msd_random_pair``, ``test/msd_optimal_transport``: the same for real samples under the independent and
      the exact optimal coupling (of at most 2000 samples of each end).
    - ``test/classifier_accuracy``: of the classifier on the test samples, without suffix.

    The classifier and the values of the data are computed at the first call for a data object and kept for the next,
    so two stages of a training are compared in the same features. Fréchet distances of different data objects, sizes
    or seeds are not comparable; their ratio to source and floor is.

    Args:
        num_samples: test samples of each end, at least 4.
        num_steps: steps of the sampler.
        directions: what to measure, of "forward" and "backward".
        seed: seed of the classifier, the subsets and the sampler's noise.
        batch_size: samples translated at once.
    """

    def __init__(
        self,
        *,
        num_samples: int = 2000,
        num_steps: int = 30,
        directions: Sequence[str] = ("forward",),
        seed: int = 0,
        batch_size: int = 500,
    ) -> None:
        for name, value, least in (("num_samples", num_samples, 4), ("num_steps", num_steps, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not directions or set(directions).difference(SUFFIXES):
            raise ValueError(f"directions must be some of {list(SUFFIXES)}, got {list(directions)}")
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.directions = tuple(direction for direction in SUFFIXES if direction in directions)
        self.seed = seed
        self.batch_size = batch_size
        self._measured: tuple[TwoSided, _Reference] | None = None

    def __call__(self, module: Translator, data: TwoSided) -> dict[str, float]:
        """Translate the test split and compare.

        Args:
            module: the translation.
            data: images of both ends, with class labels where they are known.
        """
        reference = self._reference(data, module.device)
        metrics = {"classifier_accuracy": reference.accuracy}
        for direction in self.directions:
            values = self._measure(module, direction, reference)
            metrics |= {name + SUFFIXES[direction]: value for name, value in values.items()}
        return {f"test/{name}": value for name, value in metrics.items()}

    def _reference(self, data: TwoSided, device: torch.device) -> _Reference:
        if self._measured is None or self._measured[0] is not data:
            self._measured = (data, self._measure_data(data, device))
        return self._measured[1]

    def _measure_data(self, data: TwoSided, device: torch.device) -> _Reference:
        classifier = train_classifier(data.split("train"), seed=self.seed, device=device)
        test = data.split("test")
        x0, x1 = self._subset(test.x0), self._subset(test.x1)
        features = classifier.features(x0), classifier.features(x1)
        return _Reference(
            classifier=classifier,
            accuracy=classifier.accuracy(test),
            samples=(x0, x1),
            features=features,
            floors=(frechet_floor(features[0], seed=self.seed), frechet_floor(features[1], seed=self.seed)),
            source_distance=frechet_distance(*features),
            costs=pair_costs(x0, x1, seed=self.seed),
        )

    def _measure(self, module: Translator, direction: Direction, reference: _Reference) -> dict[str, float]:
        target: Literal[0, 1] = 1 if direction == "forward" else 0
        source = reference.samples[1 - target]
        translated = self._translate(module, source, direction)
        features = reference.classifier.features(translated)
        return {
            "frechet": frechet_distance(features, reference.features[target]),
            "frechet_source": reference.source_distance,
            "frechet_floor": reference.floors[target].value,
            "frechet_floor_num_samples": float(reference.floors[target].num_samples),
            "target_class_share": reference.classifier.end_share(translated, target),
            "msd": mean_squared_distance(source, translated),
            "msd_random_pair": reference.costs.random,
            "msd_optimal_transport": reference.costs.optimal,
        }

    def _translate(self, module: Translator, x: Float[Tensor, "n *event"], direction: Direction) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.cat(
            [
                module.translate(
                    piece.to(module.device), direction, num_steps=self.num_steps, generator=generator
                ).cpu()
                for piece in x.split(self.batch_size)
            ]
        )

    def _subset(self, x: Tensor) -> Tensor:
        # sets come sorted by class or by writer, so the first samples would not do
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))
        return x[order[: self.num_samples]]
