"""What holds for all tests."""

import gc
from collections.abc import Generator

import pytest
from hypothesis import settings

from soaking import examples

# A test asserts no speed: on a busy machine an example may take any time, and pytest's own limit ends what hangs.
# Properties that say no number of examples of their own are looked at half as long as usual, and longer in `make soak`.
settings.register_profile("faregate", deadline=None, max_examples=examples(50, 1_000))
settings.load_profile("faregate")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the collector out of collection, and what that makes out of every look of the collector.

    It stays until the end; to look through it again and again takes half of the time. What tests make is looked at more
    seldom than by default, which would take an eighth of what is left.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        gc.enable()
