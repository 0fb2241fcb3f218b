"""Quality of an unpaired image translation: is the output like the other end, and does it stay near its input?"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from sbflow.metric.classifier import EndClassifier, train_classifier
from sbflow.metric.features import FeatureExtractor, inception_features, perceptual_distance
from sbflow.metric.frechet import FrechetFloor, frechet_distance, frechet_floor
from sbflow.metric.kernel import kernel_distance
from sbflow.metric.protocol import Direction, Translator, TwoSided, check_least, check_translates, translate_all
from sbflow.metric.transport import PairCosts, mean_squared_distance, pair_costs

__all__ = ["TranslationQuality", "class_consistency"]

SUFFIXES: dict[Direction, str] = {"forward": "", "backward": "_backward"}
LEAST_SAMPLES = 4  # two in each half of the real samples


class _Reference(NamedTuple):
    """What depends on the data alone, so that several modules are measured with the same yardstick."""

    classifier: EndClassifier
    extract: FeatureExtractor
    accuracy: float
    samples: tuple[Tensor, Tensor]
    labels: tuple[Tensor | None, Tensor | None]
    features: tuple[Tensor, Tensor]
    floors: tuple[FrechetFloor, FrechetFloor]
    source_distance: float
    costs: PairCosts


class TranslationQuality:
    """Measures a translation of images on the test split, in the features of a classifier or of Inception.

    Of each end a random subset of ``num_samples`` test samples is used (all, where there are no more). Keys, for the
    forward direction; those of the backward direction end in ``_backward``:

    - ``test/frechet``: Fréchet distance of the translated x0 to the real x1, in the chosen features.
    - ``test/frechet_source``: of the untranslated x0 to the real x1.
    - ``test/frechet_floor``: between two disjoint random halves of the real x1; the samples in each half are
      ``test/frechet_floor_num_samples``.
    - ``test/kid``, ``test/kid_floor``: kernel distance of the same sets, and between the halves.
    - ``test/target_class_share``: share of the translated x0 whose most probable class is one of x1's.
    - ``test/class_consistency``: where x0 has labels, the share of the translated x0 whose class is the most frequent
      one among translations of its source class: 1 for a map of classes. ``test/class_consistency_floor`` is the
      share for shuffled source classes.
    - ``test/lpips``: perceptual distance of input and output, where ``lpips`` is set.
    - ``test/msd``: squared distance per element between input and output, averaged.
    - ``test/msd_random_pair``, ``test/msd_optimal_transport``: the same for real samples under the independent and
      the exact optimal coupling (of at most 2000 samples of each end).
    - ``test/classifier_accuracy``: of the classifier on the test samples, without suffix.

    The classifier is trained here on the training split. It and the values of the data are computed at the first call
    for a data object and kept for the next, so two stages of a training are compared in the same features. Fréchet
    distances in the classifier's features of different data objects, sizes or seeds are not comparable; their ratio to
    source and floor is.

    Args:
        num_samples: test samples of each end, at least 4.
        num_steps: steps of the sampler.
        directions: what to measure, of "forward" and "backward".
        features: ``"classifier"``, or ``"inception"`` for values comparable to published ones, which needs
            torch-fidelity and its weights.
        lpips: measure the perceptual distance, which needs the weights of torchvision's VGG.
        seed: seed of the classifier, the subsets and the sampler's noise.
        batch_size: samples translated at once.
    """

    def __init__(
        self,
        *,
        num_samples: int = 2000,
        num_steps: int = 30,
        directions: Sequence[str] = ("forward",),
        features: Literal["classifier", "inception"] = "classifier",
        lpips: bool = False,
        seed: int = 0,
        batch_size: int = 500,
    ) -> None:
        check_least(LEAST_SAMPLES, num_samples=num_samples)
        check_least(1, num_steps=num_steps, batch_size=batch_size)
        if not directions or set(directions).difference(SUFFIXES):
            raise ValueError(f"directions must be some of {list(SUFFIXES)}, got {list(directions)}")
        if features not in ("classifier", "inception"):
            raise ValueError(f"features must be 'classifier' or 'inception', got {features!r}")
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.directions = tuple(direction for direction in SUFFIXES if direction in directions)
        self.features = features
        self.lpips = lpips
        self.seed = seed
        self.batch_size = batch_size
        self._measured: tuple[TwoSided, _Reference] | None = None

    def check(self, module: object, data: object) -> None:
        """Refuse data that are no images or too few, and extractors that cannot be had, before anything is trained.

        Raises:
            ValueError: says which.
        """
        check_translates(self, module, data)
        shape = list(getattr(data, "event_shape", (1, 1, 1)))
        if len(shape) != 3:
            raise ValueError(f"metric TranslationQuality needs images [c, h, w], got samples of shape {shape}")
        if isinstance(data, TwoSided):
            _check_enough(data)
        if self.features == "inception":
            inception_features(torch.device("cpu"))
        if self.lpips:
            perceptual_distance(torch.device("cpu"))

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
        extract = classifier.features if self.features == "classifier" else inception_features(device)
        test = data.split("test")
        chosen0, chosen1 = self._subset(test.x0), self._subset(test.x1)
        x0, x1 = test.x0[chosen0], test.x1[chosen1]
        features = extract(x0), extract(x1)
        return _Reference(
            classifier=classifier,
            extract=extract,
            accuracy=classifier.accuracy(test),
            samples=(x0, x1),
            labels=tuple(
                None if labels is None else labels[chosen]
                for labels, chosen in ((test.labels0, chosen0), (test.labels1, chosen1))
            ),
            features=features,
            floors=(frechet_floor(features[0], seed=self.seed), frechet_floor(features[1], seed=self.seed)),
            source_distance=frechet_distance(*features),
            costs=pair_costs(x0, x1, seed=self.seed),
        )

    def _measure(self, module: Translator, direction: Direction, reference: _Reference) -> dict[str, float]:
        target: Literal[0, 1] = 1 if direction == "forward" else 0
        source, real = reference.samples[1 - target], reference.features[target]
        translated = self._translate(module, source, direction)
        features = reference.extract(translated)
        values = {
            "frechet": frechet_distance(features, real),
            "frechet_source": reference.source_distance,
            "frechet_floor": reference.floors[target].value,
            "frechet_floor_num_samples": float(reference.floors[target].num_samples),
            "kid": kernel_distance(features, real),
            "kid_floor": kernel_distance(*self._halves(real)),
            "target_class_share": reference.classifier.end_share(translated, target),
            "msd": mean_squared_distance(source, translated),
            "msd_random_pair": reference.costs.random,
            "msd_optimal_transport": reference.costs.optimal,
        }
        labels = reference.labels[1 - target]
        if labels is not None:
            values |= self._class_consistency(labels, reference.classifier.predict(translated))
        if self.lpips:
            values["lpips"] = perceptual_distance(module.device)(source, translated)
        return values

    def _class_consistency(self, labels: Int[Tensor, " n"], predicted: Int[Tensor, " n"]) -> dict[str, float]:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
        return {
            "class_consistency": class_consistency(labels, predicted),
            "class_consistency_floor": class_consistency(labels[order], predicted),
        }

    def _translate(self, module: Translator, x: Tensor, direction: Direction) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return translate_all(
            module, x, direction, num_steps=self.num_steps, generator=generator, batch_size=self.batch_size
        )

    def _halves(self, features: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed))
        half = len(features) // 2
        return features[order[:half]], features[order[half : 2 * half]]

    def _subset(self, x: Tensor) -> Int[Tensor, " num_samples"]:
        # sets come sorted by class or by writer, so the first samples would not do
        return torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))[: self.num_samples]


def _check_enough(data: TwoSided) -> None:
    test = data.split("test")
    if min(len(test.x0), len(test.x1)) < LEAST_SAMPLES:
        raise ValueError(
            f"metric TranslationQuality needs at least {LEAST_SAMPLES} test images of each end, got {len(test.x0)} and "
            f"{len(test.x1)}: raise data.test_fraction, or name folders with data.test0 and data.test1"
        )


def class_consistency(labels: Int[Tensor, " n"], predicted: Int[Tensor, " n"]) -> float:
    """Share of the samples whose predicted class is the most frequent one of their label.

    >>> class_consistency(torch.tensor([0, 0, 0, 1]), torch.tensor([5, 5, 2, 7]))
    0.75
    """
    counts = torch.zeros(int(labels.max()) + 1, int(predicted.max()) + 1, dtype=torch.long)
    counts.index_put_((labels.cpu(), predicted.cpu()), torch.ones(len(labels), dtype=torch.long), accumulate=True)
    return counts.amax(1).sum().item() / len(labels)
