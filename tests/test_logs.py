"""What the processes say: one line an event, as JSON or for a terminal."""

import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest

SAYING = """
import logging
from faregate import logs
logs.configure("gate", "info", {style!r})
logger = logging.getLogger("faregate.tested")
{lines}
"""


def said(style: str, lines: str) -> str:
    """What a process of its own, whose logs nothing else has set up, writes for some lines."""
    script = SAYING.format(style=style, lines=lines)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return done.stderr


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON of each line."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What one process says of several kinds, as JSON."""
    return objects(
        said(
            "json",
            "logger.info('of_%s', 'prices', extra={'model': 'größe', 'count': 3, 'nested': {'a': [1]}})\n"
            "logger.debug('too_quiet')\n"
            "logger.warning('odd', extra={'value': {1}.__class__, 'text': 'two\\nlines\\x1b[31m'})\n"
            "logger.info('stranger', extra={'sides': {(1, 2): 3}, 'ratio': float('nan')}, stack_info=True)\n"
            "loop = []; loop.append(loop)\n"
            "logger.info('round', extra={'loop': loop}, exc_info=True)\n"
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logger.exception('broken')\n",
        )
    )


def test_a_line_is_an_object_with_what_was_told(lines: list[dict[str, Any]]) -> None:
    """Event and level come first, then what was told with it, then when and by whom."""
    first = lines[0]
    when = first.pop("timestamp")

    assert list(first.items()) == [
        ("event", "of_prices"),
        ("level", "info"),
        ("model", "größe"),
        ("count", 3),
        ("nested", {"a": [1]}),
        ("process", "gate"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", when)


def test_what_is_below_the_level_is_not_said(lines: list[dict[str, Any]]) -> None:
    """``info`` leaves ``debug`` out."""
    assert [line["event"] for line in lines] == ["of_prices", "odd", "stranger", "round", "broken"]


def test_values_that_json_does_not_know_are_shown_as_python_does(lines: list[dict[str, Any]]) -> None:
    """No value makes logging fail, or a second line."""
    assert lines[1]["value"] == "<class 'set'>"
    assert lines[1]["text"] == "two\nlines\x1b[31m"
    assert (lines[2]["sides"], lines[2]["ratio"]) == ("{(1, 2): 3}", "nan")
    assert lines[3]["loop"] == "[[...]]"


def test_where_a_line_was_said_is_a_member_of_it(lines: list[dict[str, Any]]) -> None:
    """For who asks for it; and where nothing was raised there is no exception to tell of."""
    assert lines[2]["stack"].startswith("Stack (most recent call last):")
    assert "exception" not in lines[3]


def test_an_exception_is_a_member_of_its_line(lines: list[dict[str, Any]]) -> None:
    """One event stays one line, with the whole way to the fault."""
    assert lines[4]["level"] == "error"
    assert re.fullmatch("Traceback.*ZeroDivisionError.*", lines[4]["exception"], re.DOTALL)


def test_a_terminal_is_shown_one_line_without_control_characters() -> None:
    """The words are there, and nothing that was logged moves a cursor."""
    text = said("console", "logger.warning('odd', extra={'text': 'two\\nlines\\x1b[31m', 'count': 3})")

    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    for word in ("odd", "warning", "count=3", "process=gate", r"two\nlines\x1b[31m"):
        assert word in text


def test_an_exception_moves_no_cursor_of_a_terminal() -> None:
    """It has lines of its own, and what its message holds is shown as escapes."""
    text = said(
        "console", "try:\n    raise ValueError('red\\x1b[31m')\nexcept ValueError:\n    logger.exception('odd')"
    )

    assert text.splitlines()[-1] == r"ValueError: red\x1b[31m"
    assert "\x1b" not in text


def test_libraries_that_tell_of_every_request_are_quiet() -> None:
    """Their warnings are told, the rest is not."""
    lines = "for level in (20, 30): logging.getLogger('uvicorn').log(level, 'of_%s', level)"

    assert [line["event"] for line in objects(said("json", lines))] == [f"of_{logging.WARNING}"]
