import pytest
import torch
from torch import nn

from sbflow.verifier import (
    CallableVerifier,
    ClassifierLogProbability,
    Counting,
    NegativeSquaredDistance,
    RankEnsemble,
    mean_rank,
)


def test_the_squared_distance_is_that_from_the_input_or_from_a_point():
    x_in, x_out = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    torch.testing.assert_close(NegativeSquaredDistance()(x_in, x_out), -((x_out - x_in).flatten(1).norm(dim=1) ** 2))
    point = torch.randn(2, 3, dtype=torch.float64)
    expected = -((x_out - point.float()).flatten(1).norm(dim=1) ** 2)
    torch.testing.assert_close(NegativeSquaredDistance(point)(x_in, x_out), expected)


def test_probabilities_of_all_classes_add_up_and_leaving_the_input_has_its_price():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    x_in, x_out = torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2)
    with torch.no_grad():
        single = torch.stack([ClassifierLogProbability(classifier, k)(x_in, x_out) for k in range(5)])
        torch.testing.assert_close(single.exp().sum(0), torch.ones(6))
        several = ClassifierLogProbability(classifier, [1, 3])(x_in, x_out)
        torch.testing.assert_close(several.exp(), single[1].exp() + single[3].exp())
        priced = ClassifierLogProbability(classifier, 2, distance_weight=0.5)(x_in, x_out)
    torch.testing.assert_close(priced, single[2] - 0.5 * (x_out - x_in).flatten(1).norm(dim=1) ** 2)
    assert not classifier.training


def test_images_are_clamped_for_the_classifier_alone():
    seen = []

    def classifier(x):
        seen.append(x)
        return x.flatten(1)

    image, vector = 3 * torch.randn(5, 1, 2, 2), 3 * torch.randn(5, 4)
    before = image.clone()
    for x in (image, vector):
        ClassifierLogProbability(classifier, 0)(x, x)
    assert seen[0].abs().max() == 1 and torch.equal(seen[1], vector) and torch.equal(image, before)


def test_ranks_ignore_scale_and_ties_count_half():
    columns = torch.tensor([[[3.0, 1e9], [1.0, 2e9], [1.0, -5.0]]])
    torch.testing.assert_close(mean_rank(columns), torch.tensor([[(1.0 + 0.5) / 2, (0.25 + 1.0) / 2, 0.25 / 2]]))
    assert torch.equal(mean_rank(torch.ones(2, 4, 3)), torch.full((2, 4), 0.5))
    assert torch.equal(mean_rank(torch.ones(2, 1, 3)), torch.full((2, 1), 0.5))
    x_in, x_out = torch.zeros(7, 2), torch.randn(7, 2)
    ensemble = RankEnsemble([lambda a, b: 100 * b[:, 0], lambda a, b: b[:, 0].tanh()])
    assert torch.equal(ensemble(x_in, x_out).sort().values, torch.arange(7) / 6)


def test_calls_are_counted_by_rows():
    counting = Counting(NegativeSquaredDistance())
    for n in (3, 5):
        x = torch.zeros(n, 2)
        assert torch.equal(counting(x, x + 1), torch.full((n,), -2.0))
    assert counting.evaluations == 8


def test_a_function_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "own_judge.py").write_text("def brightness(x_in, x_out):\n    return x_out.flatten(1).mean(1)\n")
    monkeypatch.chdir(tmp_path)
    x = torch.randn(4, 1, 2, 2)
    assert torch.equal(CallableVerifier("own_judge.brightness")(x, x), x.flatten(1).mean(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RankEnsemble([]), "at least one verifier"),
        (lambda: ClassifierLogProbability(nn.Flatten(), -1), "label must be a class from 0, or several, got -1"),
        (lambda: ClassifierLogProbability(nn.Flatten(), []), "label must be a class from 0"),
        (lambda: ClassifierLogProbability(nn.Flatten(), 0, distance_weight=-1.0), "distance_weight must be at least 0"),
        (lambda: CallableVerifier("nowhere_to_be_found.judge"), "function"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_class_that_the_classifier_does_not_know_is_refused():
    x = torch.rand(2, 1, 2, 2)
    with pytest.raises(ValueError, match=r"label must be below 4, the classes of the classifier, got \[4\]"):
        ClassifierLogProbability(nn.Flatten(), 4)(x, x)
