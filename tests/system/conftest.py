"""One whole installation for every test that does not stop or kill it."""

from collections.abc import Iterator

import pytest

from installation import Installation
from system import natives


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A simulator and a ``faregate serve``; each test makes keys of its own."""
    with Installation(tmp_path_factory.mktemp("system")) as installation:
        yield installation


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with a provider of each native kind: Anthropic's and Google's."""
    with Installation(tmp_path_factory.mktemp("native"), config=natives.CONFIG) as installation:
        yield installation
