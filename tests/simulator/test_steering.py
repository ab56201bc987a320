"""Steering comes from profile, script and message, the later over the earlier."""

import json
from pathlib import Path
from typing import Any

import pytest

from faregate.simulator import ScriptInvalid, load_script
from faregate.simulator.steering import line_of, named_in_upload, parse_script, steer


def test_line_over_rule_over_profile() -> None:
    """Each field is taken from the strongest place that says it."""
    rule = {"output_tokens": 7, "delay_ms": 9}
    steering = steer("sim-slow", 'x\n sim: {"delay_ms": 1} \ny', rule)

    assert (steering.first_delay_ms, steering.output_tokens, steering.delay_ms) == (300, 7, 1)


def test_unknown_models_answer_like_sim_1() -> None:
    """Any model name is answered, at once."""
    assert steer("gpt-4o", "", None) == steer("sim-1", "", None)


def test_last_line_counts() -> None:
    """Of several lines the last one is meant; words that only look like one are text."""
    assert line_of('sim: {"count": 1}\nsim: {"count": 2}') == {"count": 2}
    assert line_of("I said sim: {not a line}") is None
    assert line_of("sim: nothing") is None


@pytest.mark.parametrize(
    "line",
    [
        "sim: {oops}",
        'sim: {"body": ' + "[" * 100_000 + "]" * 100_000 + "}",
        'sim: {"output_token": 1}',
        'sim: {"output_tokens": -1}',
        'sim: {"output_tokens": 1000000000}',
        'sim: {"fault": "F99"}',
        'sim: {"status": 100}',
        'sim: {"headers": {"a b": "c"}}',
        'sim: {"headers": {"a": "b\\r\\nc: d"}}',
    ],
)
def test_wrong_lines_are_refused(line: str) -> None:
    """A typing error in a test does not pass for a plain answer."""
    with pytest.raises(ScriptInvalid):
        steer("sim-1", line, None)


def test_first_rule_that_matches_wins_and_counts_its_own_calls() -> None:
    """``nth`` counts the calls that match path and model of its rule."""
    rules: list[dict[str, Any]] = [
        {"model": "gpt-*", "nth": 2, "steer": {"count": 1}},
        {"path": "*/chat/*", "nth": [2, 3], "steer": {"count": 2}},
    ]
    script = parse_script(json.dumps(rules).encode())
    calls = [("/v1/chat/x", "gpt-1"), ("/v1/chat/x", "gpt-1"), ("/v1/chat/x", "m"), ("/v1/y", "m"), ("/v1/chat/x", "m")]

    hits = [script.at_body(path, model) for path, model in calls]

    assert hits == [None, {"count": 1}, {"count": 2}, None, {"count": 2}]
    script.restart()
    assert script.at_body("/v1/chat/x", "m") is None


def test_rule_for_the_head_never_meets_a_body() -> None:
    """A rule that acts on the head of a request is not used a second time for its body."""
    script = parse_script(b'[{"steer": {"fault": "F03"}}]')

    assert script.at_head("/v1/x") == {"fault": "F03"}
    assert script.at_body("/v1/x", "m") is None


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'[{"steer": 1}]', b'[{"steer": {}, "x": 1}]', b'[{"steer": {"fault": "x"}}]']
)
def test_wrong_scripts_are_refused(tmp_path: Path, text: bytes) -> None:
    """A script is checked whole before anything is served."""
    (tmp_path / "script.json").write_bytes(text)

    with pytest.raises(ScriptInvalid):
        load_script(tmp_path / "script.json")


def test_missing_script_is_refused(tmp_path: Path) -> None:
    """A script that is not there is an error like a wrong one."""
    with pytest.raises(ScriptInvalid, match="cannot be read"):
        load_script(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("fault", "found"), [("early_answer", "early_answer"), ("F04", "reset_mid_upload"), ("stall", ""), ("nonsense", "")]
)
def test_early_faults_are_seen_in_half_a_body(fault: str, found: str) -> None:
    """The line is found in JSON that is not whole yet, and only faults that can act early count."""
    body = json.dumps({"messages": [{"content": "sim: " + json.dumps({"count": 1, "fault": fault}) + "\nx"}]})

    assert named_in_upload(body.encode()[:-5]) == found
