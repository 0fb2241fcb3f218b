"""Files named fuzz_*.py are collected when they are named: pytest tests/fuzz/fuzz_*.py (make fuzz)."""

import os

import pytest
from hypothesis import HealthCheck, settings

# FUZZ_EXAMPLES per test; another run draws others, and a failure prints what reproduces it
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "1000")),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")


@pytest.fixture(autouse=True)
def as_for_a_user(unchecked_types):
    """Without the checks of shapes that tests have and users have not."""
