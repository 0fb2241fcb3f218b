"""What hypothesis draws: the same examples in every run, as many as take a second."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

from sbflow.process import Constant, Cosine, Dds, Linear

# examples are derived from the test itself: no database, and no failure that comes and goes
thrifty = settings(max_examples=60, deadline=None, derandomize=True, database=None)

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 40)


def between(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def log_weights(draw, rows: int = 3):
    """Rows of log-weights on any scale, some of them −inf, never all."""
    n = draw(sizes)
    values = draw(st.lists(st.one_of(between(-800, 800), st.just(float("-inf"))), min_size=n * rows, max_size=n * rows))
    drawn = torch.tensor(values, dtype=torch.float64).reshape(rows, n)
    drawn[:, draw(st.integers(0, n - 1))] = draw(between(-800, 800))
    return drawn


schedules = st.one_of(
    st.builds(Cosine, between(0, 1), between(1e-8, 0.5)),
    st.tuples(between(0, 5), between(0.01, 10)).map(lambda pair: Linear(pair[0], sum(pair))),
    st.builds(Constant, between(0.05, 10)),
    st.builds(Dds, between(0.05, 0.95), st.integers(1, 100), between(0.001, 1)),
)

increasing_times = st.lists(between(0.001, 0.999), min_size=1, max_size=12, unique=True).map(
    lambda inner: torch.tensor([0.0, *sorted(inner), 1.0], dtype=torch.float64)
)
