import pytest
import torch
from torch import nn

from sbflow.algorithm.ema import averaged


def constant(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def updates(decay: float, values: list[float]) -> list[float]:
    """Average after each update of a module whose weights take the given values."""
    module = constant(-100.0)
    average = averaged(module, decay)
    out = []
    for value in values:
        for parameter in module.parameters():
            nn.init.constant_(parameter, value)
        average.update_parameters(module)
        assert average.module.weight.item() == pytest.approx(average.module.bias.item())
        out.append(average.module.weight.item())
    return out


def test_the_decay_warms_up_so_that_the_initial_weights_are_forgotten_at_once():
    values = [1.0, 3.0, -2.0, 5.0, 0.5]
    expected = [values[0]]
    for k, value in enumerate(values[1:], start=1):
        decay = min(0.3, (k + 1) / (k + 10))
        expected.append(decay * expected[-1] + (1 - decay) * value)
    assert [min(0.3, (k + 1) / (k + 10)) for k in range(1, 5)] == pytest.approx([2 / 11, 3 / 12, 0.3, 0.3])
    assert updates(0.3, values) == pytest.approx(expected)


def test_a_decay_that_is_given_takes_the_place_of_the_warm_up():
    average = averaged(constant(1.0), 0.3)
    average.update_parameters(constant(1.0), 0.9)
    average.update_parameters(constant(3.0), 0.9)
    assert average.module.weight.item() == pytest.approx(0.9 * 1.0 + 0.1 * 3.0)


def test_another_module_is_followed_from_the_next_update_on():
    average = averaged(constant(0.0), 0.0)
    for value in (1.0, 2.0, 3.0):
        average.update_parameters(constant(value))
        assert average.module.weight.item() == value


def test_without_decay_the_average_is_the_latest_value():
    assert updates(0.0, [1.0, 3.0, -2.0]) == pytest.approx([1.0, 3.0, -2.0])


def test_constant_weights_are_their_own_average():
    assert updates(0.999, [2.0] * 30) == pytest.approx([2.0] * 30)


def test_the_average_takes_no_gradient_and_follows_buffers():
    module = nn.BatchNorm1d(2)
    average = averaged(module, 0.9)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    module.running_mean.fill_(7.0)
    average.update_parameters(module)
    assert torch.equal(average.module.running_mean, torch.full((2,), 7.0))


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_an_impossible_decay_is_refused(decay):
    with pytest.raises(ValueError, match=r"ema_decay must lie in \[0, 1\), got"):
        averaged(constant(0.0), decay)
