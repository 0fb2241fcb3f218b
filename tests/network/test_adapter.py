"""Networks written elsewhere."""

from types import SimpleNamespace

import pytest
import torch

from sbflow.network import Adapter, DiffusersUNet


class Recording(torch.nn.Module):
    """Keeps what it was called with and returns its input."""

    def forward(self, x, t, *args, **kwargs):
        self.given = SimpleNamespace(x=x, t=t, args=args, kwargs=kwargs)
        return x


DIRECTION = torch.tensor([0, 1, 1])
X = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))


def test_the_module_gets_one_scaled_float_time_per_sample_and_the_direction_by_position():
    module = Recording()
    Adapter(module, time_scale=1000.0)(X, torch.tensor([0.25]), DIRECTION)
    assert module.given.t.tolist() == [250.0] * 3 and module.given.t.is_floating_point()
    assert module.given.args == (DIRECTION,) and not module.given.kwargs


def test_the_direction_can_be_passed_by_name():
    module = Recording()
    Adapter(module, direction_name="class_labels")(X, torch.rand(3), DIRECTION)
    assert module.given.args == () and torch.equal(module.given.kwargs["class_labels"], DIRECTION)


def test_images_are_padded_with_zeros_and_the_output_cut_back():
    module = Recording()
    assert torch.equal(Adapter(module, multiple=4)(X, torch.rand(3), DIRECTION), X)
    padded = module.given.x
    assert padded.shape == (3, 2, 8, 8) and not padded[..., 5:, :].any() and not padded[..., 7:].any()


def test_vectors_pass_as_they_are():
    x = torch.randn(3, 4)
    assert torch.equal(Adapter(Recording())(x, torch.rand(1), DIRECTION), x)


def test_the_sample_of_an_output_object_is_taken():
    module = Recording()
    module.forward = lambda x, t, direction: SimpleNamespace(sample=2 * x)
    assert torch.equal(Adapter(module)(X, torch.rand(1), DIRECTION), 2 * X)


def test_another_shape_than_the_input_is_refused():
    module = Recording()
    module.forward = lambda x, t, direction: x[:, :1]
    with pytest.raises(ValueError, match=r"Recording must return the shape of its input, \[3, 2, 5, 7\], got \[3, 1"):
        Adapter(module)(X, torch.rand(1), DIRECTION)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_directions": -1}, "num_directions must be at least 0, got -1"),
        ({"time_scale": 0.0}, "time_scale must be positive, got 0.0"),
        ({"multiple": 0}, "multiple must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Adapter(Recording(), **options)


def diffusers_unet(**options) -> DiffusersUNet:
    pytest.importorskip("diffusers")
    return DiffusersUNet((2, 5, 7), widths=(8, 16), norm_groups=4, attention_levels=(1,), **options)


def test_a_diffusers_network_keeps_the_contract():
    network = diffusers_unet(num_directions=2)
    assert not network(X, torch.rand(3), DIRECTION).any()
    torch.nn.init.normal_(network.module.conv_out.weight)
    out = network(X, torch.rand(3), DIRECTION)
    assert out.shape == X.shape and out.flatten(1).any(dim=1).all()
    one, each = (network(X, t, DIRECTION) for t in (torch.tensor([0.3]), torch.full((3,), 0.3)))
    assert torch.allclose(one, each)


def test_time_and_direction_reach_a_diffusers_network():
    network = diffusers_unet(num_directions=2)
    torch.nn.init.normal_(network.module.conv_out.weight)
    t = torch.full((3,), 0.3)
    out = network(X, t, DIRECTION)
    for other in (network(X, t + 0.01, DIRECTION), network(X, t, 1 - DIRECTION)):
        assert ((out - other).flatten(1).abs().amax(1) > 1e-6).all()
    with pytest.raises(ValueError, match="network has 2 directions, got none"):
        network(X, t)


def test_a_diffusers_network_needs_no_direction():
    network = diffusers_unet()
    assert network(X, torch.rand(1)).shape == X.shape
    with pytest.raises(ValueError, match="network has 0 directions"):
        network(X, torch.rand(1), DIRECTION)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_shape": (5,)}, r"event_shape must be \(channels, height, width\), got \(5,\)"),
        ({"event_shape": (1, 8, 8), "widths": (12, 16)}, r"norm_groups must divide every one of widths=\[12, 16\]"),
        ({"event_shape": (1, 8, 8), "widths": ()}, "norm_groups must divide"),
        ({"event_shape": (1, 8, 8), "attention_levels": (3,)}, "attention_levels must lie in 0 to 2"),
    ],
)
def test_impossible_diffusers_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusersUNet(**options)


def test_a_missing_diffusers_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sbflow\[images\]'"):
        DiffusersUNet((1, 8, 8))
