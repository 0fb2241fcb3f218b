"""Every transform of parameters lands in its support, with the Jacobian of automatic differentiation."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import between, seeds, thrifty

from sbflow.target.constraint import read_constraints

ends = st.tuples(between(-50, 50), between(0.1, 50)).map(lambda pair: (pair[0], sum(pair)))
supports = st.one_of(
    st.just(("real", -torch.inf, torch.inf)),
    st.just(("positive", 0.0, torch.inf)),
    st.just(("unit_interval", 0.0, 1.0)),
    ends.map(lambda pair: (f"interval({pair[0]!r}, {pair[1]!r})", *pair)),
    between(-50, 50).map(lambda low: (f"greater_than({low!r})", low, torch.inf)),
    between(-50, 50).map(lambda high: (f"less_than({high!r})", -torch.inf, high)),
)


def free(seed, size, scale):
    return scale * torch.randn(4, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@thrifty
@given(supports, seeds, between(0.1, 4))
def test_parameters_lie_in_their_support_and_go_back_to_where_they_came_from(support, seed, scale):
    name, low, high = support
    (block,) = read_constraints(name, 3).values()
    z = free(seed, 3, scale)
    x, _ = block.constrain(z)
    assert ((x >= low) & (x <= high)).all()
    assert torch.allclose(block.transform.inv(x), z, atol=1e-6)


@thrifty
@given(supports, seeds)
def test_the_volume_is_that_of_the_jacobian(support, seed):
    (block,) = read_constraints(support[0], 2).values()
    z = free(seed, 2, 2.0)
    _, log_volume = block.constrain(z)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: block.constrain(z[None])[0][0]))(z)
    assert torch.allclose(log_volume, torch.linalg.slogdet(jacobian)[1], rtol=1e-8, atol=1e-8)


@thrifty
@given(st.integers(2, 12), seeds)
def test_a_simplex_is_positive_and_sums_to_one(size, seed):
    (block,) = read_constraints(f"simplex({size})", None).values()
    x, log_volume = block.constrain(free(seed, size - 1, 2.0))
    assert (x >= 0).all() and torch.allclose(x.sum(1), torch.ones(4, dtype=torch.float64))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: block.constrain(z[None])[0][0, :-1]))(
        free(seed, size - 1, 2.0)
    )
    assert torch.allclose(log_volume, torch.linalg.slogdet(jacobian)[1], rtol=1e-6, atol=1e-6)


def outcome(text):
    """Blocks of parameters, or what the user is told."""
    try:
        return read_constraints(text, 2)
    except ValueError as error:
        return str(error)


names = r"(real|positive|unit_interval|interval|greater_than|less_than|simplex|x)?"


@thrifty
@given(st.from_regex(names + r"[()\[\], 0-3.-]{0,6}", fullmatch=True))
def test_any_text_describes_parameters_or_is_refused_in_one_line(text):
    found = outcome(text)
    if isinstance(found, str):
        assert found.startswith(("constraints.x", "dim must be")) and "\n" not in found
    else:
        assert found["x"].shape.numel() == 2
