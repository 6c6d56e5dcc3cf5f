"""A fresh market for each test."""

import pytest
from slice_market import Market


@pytest.fixture
def market() -> Market:
    return Market()
