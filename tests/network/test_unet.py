"""What the options of the U-Net change, and what they must not change."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sbflow.network import SelfAttention, UNet, UNet28, UNet64, UNet256, UNetSmall


def perturbed(**options) -> UNet:
    torch.manual_seed(1)
    network = UNet((2, 12, 10), width=8, embed_dim=4, num_directions=2, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(n: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, 2, 12, 10, generator=generator), torch.rand(n, generator=generator), torch.arange(n) % 2


def gradients(network: UNet) -> torch.Tensor:
    network(*inputs()).square().sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize(
    ("build", "channels", "millions"),
    [(UNetSmall, 1, 0.3), (UNet28, 1, 8.8), (UNet64, 3, 194.0), (UNet256, 3, 227.0)],
)
def test_a_preset_has_the_size_of_the_paper_within_five_percent(build, channels, millions):
    with torch.device("meta"):
        network = build((channels, 64, 64), num_directions=2)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert abs(count / 1e6 / millions - 1) < 0.05


def test_attention_mixes_distant_pixels_and_convolutions_alone_do_not():
    x = torch.randn(1, 2, 12, 64)
    changed = x.clone()
    changed[..., -1] += 1
    t, direction = torch.rand(1), torch.zeros(1, dtype=torch.long)
    # one level without norms over the picture would see 4 pixels far; the group norms see all, hence double precision
    far = {}
    for levels in ((), (0,)):
        network = perturbed(multipliers=(1,), attention_levels=levels, head_width=8)
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda h: h
        far[levels] = (network(changed, t, direction) - network(x, t, direction))[..., :32].abs().max()
    assert far[()] == 0 and far[(0,)] > 0


def test_attention_is_the_identity_at_initialisation_and_permutes_with_the_pixels():
    attention = SelfAttention(16, head_width=8).double()
    h = torch.randn(3, 16, 2, 5, dtype=torch.float64)
    assert torch.equal(attention(h), h)
    torch.nn.init.normal_(attention.out.weight)
    order = torch.randperm(10)
    shuffled = h.flatten(2)[..., order].reshape(h.shape)
    expected = attention(h).flatten(2)[..., order].reshape(h.shape)
    assert torch.allclose(attention(shuffled), expected, atol=1e-12)


def test_attention_is_softmax_attention_in_each_head():
    attention = SelfAttention(16, head_width=8).double()
    torch.nn.init.normal_(attention.out.weight)
    h = torch.randn(1, 16, 2, 3, dtype=torch.float64)
    query, key, value = attention.qkv(attention.norm(h)).flatten(2)[0].chunk(3)
    heads = [slice(0, 8), slice(8, 16)]
    weights = [(query[head].T @ key[head] / 8**0.5).softmax(1) for head in heads]
    gathered = torch.cat([value[head] @ w.T for head, w in zip(heads, weights, strict=True)])
    expected = h + attention.out(gathered.reshape(1, 16, 2, 3))
    assert torch.allclose(attention(h), expected, atol=1e-12)


def test_checkpointing_changes_the_memory_and_not_the_gradients():
    options = {"attention_levels": (2,), "head_width": 8, "num_blocks": 2}
    expected, recomputed = (gradients(perturbed(checkpointing=value, **options)) for value in (False, True))
    assert torch.equal(recomputed, expected)


def test_checkpointing_computes_the_forward_pass_a_second_time():
    flops = {}
    for value in (False, True):
        with FlopCounterMode(display=False) as counter:
            gradients(perturbed(checkpointing=value))
        flops[value] = counter.get_total_flops()
    # all but the first and last layers and the last convolution of each block, which needs no output of its own
    assert 1.1 < flops[True] / flops[False] < 4 / 3


@pytest.mark.parametrize(("height", "width"), [(12, 10), (7, 13), (1, 1)])
def test_a_network_of_patches_keeps_the_shape_of_any_image(height, width):
    network = perturbed(patch_size=3, multipliers=(1, 2))
    x = torch.randn(2, 2, height, width)
    assert network(x, torch.rand(2), torch.tensor([0, 1])).shape == x.shape


def test_a_patch_meets_the_field_as_the_channels_of_one_pixel():
    network = perturbed(patch_size=2, multipliers=(1, 1))
    bare = UNet((8, 6, 5), width=8, embed_dim=4, num_directions=2, multipliers=(1, 1))
    bare.load_state_dict(network.state_dict())
    x, t, direction = inputs()
    pixels = torch.nn.functional.pixel_unshuffle(torch.nn.functional.pad(x, (0, 2)), 2)
    expected = torch.nn.functional.pixel_shuffle(bare(pixels, t, direction), 2)[..., :10]
    torch.testing.assert_close(network(x, t, direction), expected)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_layout_does_not_change_the_field(channels_last):
    default, chosen = (perturbed(channels_last=value).double() for value in (None, channels_last))
    x, t, direction = inputs()
    arguments = (x.double(), t.double(), direction)
    assert torch.allclose(chosen(*arguments), default(*arguments), rtol=1e-9, atol=1e-12)


def test_dropout_acts_in_training_alone():
    network, plain = perturbed(dropout=0.5), perturbed()
    plain.load_state_dict(network.state_dict())
    assert not torch.equal(network(*inputs()), network(*inputs()))
    assert torch.equal(network.eval()(*inputs()), plain.eval()(*inputs()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_follow_the_float32_field(dtype):
    x, t, direction = inputs()
    expected = perturbed()(x, t, direction)
    out = perturbed().to(dtype)(x.to(dtype), t, direction)
    assert out.dtype == dtype
    # rounding of some fifteen layers, each relative to its input
    assert (out.float() - expected).norm() < 15 * torch.finfo(dtype).eps * expected.norm()


def test_bfloat16_autocast_follows_the_float32_field():
    x, t, direction = inputs()
    network = perturbed()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x, t, direction)
    expected = network(x, t, direction)
    assert (out.float() - expected).norm() < 15 * torch.finfo(torch.bfloat16).eps * expected.norm()
