"""The console that the tests of this folder speak to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from console_parts import Api, Parts, parts


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    """A console over fresh books, without a gate."""
    with parts(tmp_path) as each:
        yield each


@pytest.fixture
def api(made: Parts) -> Api:
    """Its API, spoken to by an admin."""
    return Api(made.app, made.admin_key())
