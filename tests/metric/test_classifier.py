from typing import NamedTuple

import pytest
import torch

from sbflow.metric.classifier import train_classifier


class Images(NamedTuple):
    x0: torch.Tensor
    x1: torch.Tensor
    labels0: torch.Tensor | None = None
    labels1: torch.Tensor | None = None


def bars(n: int, seed: int, labelled: bool = True) -> Images:
    """Bars on noise: x0 has a row at a third or two thirds of the height, x1 a column at the middle."""
    generator = torch.Generator().manual_seed(seed)
    x0, x1 = 0.3 * torch.randn(2, n, 1, 12, 12, generator=generator) - 1
    labels0 = torch.randint(2, (n,), generator=generator)
    x0[torch.arange(n), 0, 4 + 4 * labels0] += 2
    x1[:, :, :, 6] += 2
    return Images(x0, x1, labels0 if labelled else None, torch.zeros(n, dtype=torch.long) if labelled else None)


def test_separable_images_are_told_apart():
    classifier = train_classifier(bars(200, 0), num_steps=60)
    unseen = bars(300, 1)
    assert classifier.accuracy(unseen) > 0.98
    assert classifier.end_share(unseen.x1, 1) > 0.98 and classifier.end_share(unseen.x0, 0) > 0.98


def test_shares_of_the_two_ends_add_to_one():
    classifier = train_classifier(bars(50, 0), num_steps=3)
    x = torch.rand(100, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert classifier.end_share(x, 0) + classifier.end_share(x, 1) == pytest.approx(1)


def test_an_end_without_labels_is_one_class():
    classifier = train_classifier(bars(200, 0, labelled=False), num_steps=60)
    assert classifier(bars(4, 1).x0).shape == (4, 2)
    assert classifier.accuracy(bars(300, 1, labelled=False)) > 0.98


def test_training_is_a_function_of_its_seed_and_leaves_the_global_stream_alone():
    before = torch.get_rng_state()
    first = train_classifier(bars(50, 0), num_steps=5, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    x = bars(10, 2).x0
    assert torch.equal(first.features(x), train_classifier(bars(50, 0), num_steps=5, seed=1).features(x))
    assert not torch.equal(first.features(x), train_classifier(bars(50, 0), num_steps=5, seed=2).features(x))


def test_features_do_not_depend_on_the_other_images():
    classifier = train_classifier(bars(50, 0), num_steps=5)
    x = bars(600, 3).x0
    assert classifier.features(x).dtype == torch.float64
    assert torch.allclose(classifier.features(x)[:7], classifier.features(x[:7]), atol=1e-5)


def test_points_are_refused():
    with pytest.raises(ValueError, match=r"needs images \[n, c, h, w\], got x0 of shape \[5, 2\]"):
        train_classifier(Images(torch.zeros(5, 2), torch.zeros(5, 2)))
