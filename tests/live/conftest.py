"""Fixtures for tests with live connections: see `streams`."""

import pytest

from tests.live import streams


@pytest.fixture(scope="module")
def place():
    with streams.world() as world:
        yield world


@pytest.fixture
def world(place):
    yield place
    place.reset()
