"""A default dtype in which closed forms agree to all digits."""

import pytest
import torch


@pytest.fixture
def double_default():
    """Constants written as Python numbers are kept in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
