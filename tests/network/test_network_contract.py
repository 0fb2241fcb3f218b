"""The contract that every backbone keeps: forward(x, t, direction=None) has the shape of x."""

import pytest
import torch

from sbflow.network import MLP, Adapter, ConditionEmbedding, FourierFeatures, ResidualMLP, UNet, UNetSmall


class Foreign(torch.nn.Module):
    """Somebody's network: one time and one direction per sample, sizes that it can halve."""

    def __init__(self, num_directions: int) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(2, 4, 2, stride=2)
        self.condition = torch.nn.Linear(1 + (num_directions > 0), 4)
        self.up = torch.nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x, t, direction=None):
        given = [t] if direction is None else [t, direction.to(t.dtype)]
        return self.up((self.down(x) + self.condition(torch.stack(given, 1))[:, :, None, None]).relu())


def adapted(num_directions: int = 0) -> Adapter:
    return Adapter(Foreign(num_directions), num_directions=num_directions, multiple=2, zero_init=True)


BUILDERS = {
    "mlp": ((3,), lambda **kw: MLP((3,), hidden=(16, 8), embed_dim=4, **kw)),
    "mlp-image": ((1, 4, 4), lambda **kw: MLP((1, 4, 4), hidden=(16,), embed_dim=4, **kw)),
    "residual": ((5,), lambda **kw: ResidualMLP((5,), width=16, num_blocks=2, embed_dim=4, **kw)),
    "residual-image": ((2, 3, 5), lambda **kw: ResidualMLP((2, 3, 5), width=16, num_blocks=2, embed_dim=4, **kw)),
    "unet": ((1, 16, 16), lambda **kw: UNet((1, 16, 16), width=8, embed_dim=4, **kw)),
    "unet-rectangular": ((3, 8, 12), lambda **kw: UNet((3, 8, 12), width=8, embed_dim=4, **kw)),
    "unet-odd": ((1, 7, 13), lambda **kw: UNet((1, 7, 13), width=8, embed_dim=4, num_blocks=2, **kw)),
    "unet-patches": ((2, 7, 10), lambda **kw: UNet((2, 7, 10), width=8, embed_dim=4, patch_size=2, **kw)),
    "unet-attention": (
        (2, 6, 9),
        lambda **kw: UNet((2, 6, 9), width=8, embed_dim=4, attention_levels=(1, 2), head_width=8, **kw),
    ),
    "unet-small": ((1, 8, 8), lambda **kw: UNetSmall((1, 8, 8), embed_dim=4, **kw)),
    "adapter": ((2, 5, 7), adapted),
    "unet-flat": ((2, 5, 5), lambda **kw: UNet((2, 5, 5), width=8, multipliers=(1,), embed_dim=4, **kw)),
}
every_network = pytest.mark.parametrize(("event", "build"), BUILDERS.values(), ids=BUILDERS)


def perturb(network: torch.nn.Module) -> torch.nn.Module:
    """Leave the initialisation at which the output, and with it most gradients, are zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(event, n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(n, *event), torch.rand(n), torch.arange(n) % 2


@every_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_output_has_shape_and_dtype_of_the_input(event, build, dtype):
    x, t, direction = inputs(event)
    out = perturb(build(num_directions=2)).to(dtype)(x.to(dtype), t.to(dtype), direction)
    assert out.shape == x.shape and out.dtype == dtype


@every_network
def test_the_output_is_zero_at_initialisation_and_not_after(event, build):
    x, t, direction = inputs(event)
    network = build(num_directions=2)
    assert not network(x, t, direction).any()
    assert perturb(network)(x, t, direction).flatten(1).any(dim=1).all()


@every_network
def test_each_sample_is_treated_alone(event, build):
    x, t, direction = inputs(event)
    network = perturb(build(num_directions=2)).double()
    whole = network(x.double(), t.double(), direction)
    parts = [network(x[i : i + 1].double(), t[i : i + 1].double(), direction[i : i + 1]) for i in range(len(x))]
    assert torch.allclose(whole, torch.cat(parts), rtol=1e-9, atol=1e-12)


@every_network
@pytest.mark.parametrize("num_directions", [0, 2])
def test_one_time_for_all_is_the_same_time_for_each(event, build, num_directions):
    x, _, direction = inputs(event)
    given = direction if num_directions else None
    network = perturb(build(num_directions=num_directions)).double()
    each = network(x.double(), torch.full((len(x),), 0.3, dtype=torch.float64), given)
    assert torch.allclose(network(x.double(), torch.tensor([0.3], dtype=torch.float64), given), each, atol=1e-12)


@every_network
def test_time_and_direction_matter(event, build):
    x, t, direction = inputs(event)
    network = perturb(build(num_directions=2))
    out = network(x, t, direction)
    for other in (network(x, 1 - t, direction), network(x, t, 1 - direction)):
        assert ((out - other).flatten(1).abs().amax(1) > 1e-6).all()


@every_network
@pytest.mark.parametrize("num_directions", [0, 2])
def test_the_gradient_reaches_every_parameter(event, build, num_directions):
    x, t, direction = inputs(event)
    network = perturb(build(num_directions=num_directions))
    (network(x, t, direction if num_directions else None) * torch.randn_like(x)).sum().backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unreached


@every_network
def test_a_direction_is_required_where_there_are_two_and_refused_where_there_is_none(event, build):
    x, t, direction = inputs(event)
    with pytest.raises(ValueError, match="network has 2 directions, got none"):
        build(num_directions=2)(x, t)
    with pytest.raises(ValueError, match="network has 0 directions"):
        build()(x, t, direction)


def test_the_message_about_a_wrong_direction_is_one_short_line_for_any_batch():
    with pytest.raises(ValueError, match="network has 0 directions") as error:
        MLP((3,))(torch.zeros(500, 3), torch.zeros(500), torch.zeros(500, dtype=torch.long))
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 120


def test_a_unet_takes_any_height_and_width():
    network = perturb(UNet((1, 16, 16), width=8, embed_dim=4))
    for height, width in ((16, 16), (9, 30), (1, 1), (4, 3)):
        assert network(torch.randn(2, 1, height, width), torch.rand(2)).shape == (2, 1, height, width)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet((16, 16)), r"event_shape must be \(channels, height, width\), got \(16, 16\)"),
        (lambda: UNet((1, 16, 16), width=12), "width must be a multiple of 8, got 12"),
        (lambda: UNet((1, 16, 16), patch_size=0), "patch_size must be at least 1, got 0"),
        (lambda: UNet((1, 16, 16), width=0), "width"),
        (lambda: UNet((1, 16, 16), num_blocks=0), "num_blocks"),
        (lambda: UNet((1, 8, 8), multipliers=()), "multipliers must be at least one number"),
        (lambda: UNet((1, 8, 8), dropout=1.0), r"dropout must lie in \[0, 1\), got 1.0"),
        (lambda: UNet((1, 8, 8), attention_levels=(3,)), r"attention_levels must lie in 0 to 2, got \[3\]"),
        (lambda: UNet((1, 8, 8), attention_levels=(-1,)), r"attention_levels must lie in 0 to 2, got \[-1\]"),
        (lambda: UNet((1, 8, 8), attention_levels=(1,), head_width=24), "head_width must divide the 64 channels"),
        (lambda: UNet((1, 8, 8), attention_levels=(1,), head_width=64), "head_width must divide the 32 channels"),
        (lambda: UNet((1, 8, 8), attention_levels=(0,), head_width=0), "head_width must divide"),
        (lambda: FourierFeatures(7), "num_features must be even and at least 2, got 7"),
        (lambda: ConditionEmbedding(4, num_features=0), "num_features must be even and at least 2, got 0"),
    ],
)
def test_impossible_architectures_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_fourier_features_tell_close_times_apart():
    t = torch.linspace(0, 1, 1001)
    features = FourierFeatures(64)(t)
    assert features.shape == (1001, 64) and features.abs().max() <= 1
    assert (features.diff(dim=0).norm(dim=1) > 0.1).all()
