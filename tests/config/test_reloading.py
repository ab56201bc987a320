"""What of a configuration that is read again acts at once, and what waits for a restart."""

from pathlib import Path

import pytest

from bad_input.config_rows import ENVIRONMENT, GOOD
from faregate.config.load import load_text
from faregate.config.reloading import NEED_RESTART, effective, still_referred
from faregate.config.schema import Config


def config(text: str) -> Config:
    return load_text(text.encode(), "faregate.yaml", ENVIRONMENT, Path()).config


def test_what_needs_no_restart_is_taken_over_whole() -> None:
    """Nothing waits."""
    wanted = config(GOOD.replace("name: gpt-4o, to", "name: gpt-5, to") + "limits: {require: true}\n")

    assert effective(config(GOOD), wanted) == (wanted, ())


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (GOOD.replace("port: 4000", "port: 5000"), "gateway.port"),
        (GOOD.replace("port: 4001", "port: 5001"), "console.port"),
        (GOOD + "durability: power\n", "durability"),
        (GOOD + "journal: {segment: 64MiB}\n", "journal.segment"),
        (GOOD + "limits: {each_max: 5}\n", "limits.each_max"),
        (GOOD + "logging: {level: debug}\n", "logging.level"),
    ],
)
def test_what_needs_one_is_named_and_stays_as_it_is(text: str, key: str) -> None:
    """The rest of the same section is taken over."""
    text = text.replace("segment: 64MiB", "segment: 64MiB, keep: 2d").replace(
        "each_max: 5", "each_max: 5, require: true"
    )

    found, waiting = effective(config(GOOD), config(text))

    assert waiting == (key,)
    assert effective(config(GOOD), found)[1] == ()
    assert (found.limits.require, found.journal.keep) == (config(text).limits.require, config(text).journal.keep)


def test_every_key_that_waits_exists() -> None:
    """A key that is renamed is renamed here, too."""
    for path in NEED_RESTART:
        section = getattr(config(GOOD), path[0])
        assert len(path) == 1 or hasattr(section, path[1])


def test_of_what_waits_for_a_restart_it_is_known_as_of_the_start_whether_it_was_a_reference() -> None:
    """The value that acts is the one of the start, and so is what may be told of it."""
    running, wanted = {"gateway.port", "providers[0].api_key"}, {"durability", "cache.url", "pricing.unknown"}

    assert still_referred(running, wanted) == {"gateway.port", "pricing.unknown"}
