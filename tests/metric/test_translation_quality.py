"""Known translations of the embedded glyphs; the classifier is trained once for all of them."""

import pytest
import torch

from sbflow.data import UnpairedTensors
from sbflow.data.glyphs import Glyphs
from sbflow.metric import translation
from sbflow.metric.translation import TranslationQuality, class_consistency


class Identity:
    device = torch.device("cpu")

    def translate(self, x, direction, *, num_steps=30, generator=None):
        return x.clone()


class Oracle(Identity):
    """Real samples of the other end, from the training split, whatever the input."""

    def __init__(self, data: Glyphs) -> None:
        self.ends = {"forward": data.split("train").x1, "backward": data.split("train").x0}

    def translate(self, x, direction, *, num_steps=30, generator=None):
        end = self.ends[direction]
        return end[torch.randint(len(end), (len(x),), generator=generator)]


@pytest.fixture(scope="module")
def data() -> Glyphs:
    return Glyphs(num_train=4000, num_test=1000)


@pytest.fixture(scope="module")
def quality() -> TranslationQuality:
    return TranslationQuality(num_samples=800, directions=("forward", "backward"))


@pytest.fixture(scope="module")
def identity(quality, data) -> dict[str, float]:
    return quality(Identity(), data)


@pytest.fixture(scope="module")
def oracle(quality, data, identity) -> dict[str, float]:
    return quality(Oracle(data), data)


@pytest.mark.slow
def test_the_classifier_reads_held_out_fonts(identity):
    assert identity["test/classifier_accuracy"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "_backward"])
def test_the_identity_stays_at_the_source(identity, suffix):
    assert identity["test/msd" + suffix] == 0
    assert identity["test/frechet" + suffix] == pytest.approx(identity["test/frechet_source" + suffix], rel=1e-6)
    assert identity["test/target_class_share" + suffix] < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "_backward"])
def test_real_samples_of_the_other_end_are_near_the_floor(oracle, suffix):
    assert oracle["test/frechet" + suffix] < 0.05 * oracle["test/frechet_source" + suffix]
    assert oracle["test/frechet_floor" + suffix] < 0.05 * oracle["test/frechet_source" + suffix]
    assert oracle["test/frechet_floor_num_samples" + suffix] == 400
    assert oracle["test/target_class_share" + suffix] > 0.98


@pytest.mark.slow
def test_the_oracle_pairs_at_random_and_optimal_transport_is_shorter(oracle):
    random, optimal = oracle["test/msd_random_pair"], oracle["test/msd_optimal_transport"]
    assert oracle["test/msd"] == pytest.approx(random, rel=0.1), "the fonts of the splits differ, so not exactly"
    assert 0 < optimal < 0.7 * random


@pytest.mark.slow
def test_values_of_the_data_do_not_depend_on_the_module(identity, oracle):
    for name in ("frechet_source", "frechet_floor", "msd_random_pair", "msd_optimal_transport"):
        assert identity[f"test/{name}"] == oracle[f"test/{name}"]


@pytest.fixture
def trainings(monkeypatch) -> list[object]:
    """Train for a moment only, and remember each training."""
    splits: list[object] = []
    train = translation.train_classifier

    def brief(split, **kwargs):
        splits.append(split)
        return train(split, num_steps=2, **kwargs)

    monkeypatch.setattr(translation, "train_classifier", brief)
    return splits


def tiny(seed: int = 0) -> Glyphs:
    return Glyphs(num_train=60, num_test=30, size=8, render_seed=seed)


def test_the_classifier_is_trained_once_per_data_object(trainings):
    quality, first, second = TranslationQuality(), tiny(), tiny(1)
    quality(Identity(), first)
    quality(Oracle(first), first)
    assert trainings == [first.split("train")]
    quality(Identity(), second)
    assert len(trainings) == 2


def test_only_the_directions_asked_for_are_measured(trainings):
    forward = TranslationQuality()(Identity(), tiny())
    assert len(forward) == 13 and not [name for name in forward if name.endswith("_backward")]
    backward = TranslationQuality(directions=["backward"])(Identity(), tiny())
    assert "test/frechet_backward" in backward and "test/frechet" not in backward


def test_the_number_of_steps_and_a_seeded_generator_reach_the_module(trainings):
    class Recording(Identity):
        def translate(self, x, direction, *, num_steps=30, generator=None):
            seen.append((len(x), direction, num_steps))
            return x + torch.randn(x.shape, generator=generator)

    seen = []
    quality, data = TranslationQuality(num_steps=7, batch_size=20), tiny()
    first = quality(Recording(), data)
    before = torch.get_rng_state()
    assert quality(Recording(), data) == first
    assert torch.equal(before, torch.get_rng_state())
    assert seen[:2] == [(20, "forward", 7), (10, "forward", 7)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 3}, "num_samples must be at least 4, got 3"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"directions": ("sideways",)}, r"directions must be some of \['forward', 'backward'\], got \['sideways'\]"),
        ({"directions": ()}, "directions must be some of"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TranslationQuality(**arguments)


def test_classes_that_go_to_one_class_each_are_consistent():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert class_consistency(labels, torch.tensor([4, 4, 3, 3, 3, 3])) == 1
    assert class_consistency(labels, torch.tensor([4, 3, 3, 4, 1, 0])) == 0.5


def test_labelled_sources_have_a_consistency_and_its_floor(trainings):
    metrics = TranslationQuality(directions=("forward", "backward"))(Identity(), tiny())
    for suffix in ("", "_backward"):
        assert 0 < metrics["test/class_consistency_floor" + suffix] <= 1
        assert metrics["test/kid" + suffix] > metrics["test/kid_floor" + suffix] - 1


def test_data_without_labels_have_no_consistency(trainings):
    images = tiny().split("train")
    data = UnpairedTensors(images.x0, images.x1)
    assert not [name for name in TranslationQuality()(Identity(), data) if "consistency" in name]


def test_vectors_are_refused_before_training():
    data = UnpairedTensors(torch.randn(9, 3), torch.randn(9, 3))
    with pytest.raises(ValueError, match=r"needs images \[c, h, w\], got samples of shape \[3\]"):
        TranslationQuality().check(Identity(), data)
    with pytest.raises(ValueError, match="measures a translation, and object does not translate"):
        TranslationQuality().check(object(), tiny())


def test_too_few_test_images_are_refused_before_training():
    data = UnpairedTensors(torch.zeros(4, 1, 8, 8), torch.zeros(3, 1, 8, 8))
    message = "at least 4 test images of each end, got 4 and 3: raise data.test_fraction, or name .* data.test0 and"
    with pytest.raises(ValueError, match=message):
        TranslationQuality().check(Identity(), data)


def test_four_test_images_of_each_end_are_enough(trainings):
    data = UnpairedTensors(torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8) - 1)
    quality = TranslationQuality(directions=("forward", "backward"))
    quality.check(Identity(), data)
    values = quality(Identity(), data)
    assert values["test/frechet_floor_num_samples"] == 2 and all(value == value for value in values.values())


def test_extractors_that_cannot_be_had_are_refused_before_training(monkeypatch):
    def absent(device):
        raise ValueError("cannot be had")

    monkeypatch.setattr(translation, "inception_features", absent)
    monkeypatch.setattr(translation, "perceptual_distance", absent)
    for options in ({"features": "inception"}, {"lpips": True}):
        with pytest.raises(ValueError, match="cannot be had"):
            TranslationQuality(**options).check(Identity(), tiny())


def test_an_unknown_extractor_is_refused(unchecked_types):
    with pytest.raises(ValueError, match="features must be 'classifier' or 'inception', got 'clip'"):
        TranslationQuality(features="clip")
