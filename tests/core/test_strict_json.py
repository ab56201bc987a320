"""JSON in which a name stands twice."""

import json

import pytest

from faregate.core.strict_json import Twice, once


def test_a_name_that_stands_twice_is_told_at_any_depth() -> None:
    """Also where the two values are the same; of a long name only its beginning is told."""
    assert json.loads('{"a": {"b": 1}, "b": [{"a": 1}, {"a": 1}]}', object_pairs_hook=once) == {
        "a": {"b": 1},
        "b": [{"a": 1}, {"a": 1}],
    }
    for text, name in (('{"c": 1, "a": [{"b": 1, "b": 1}]}', "'b' stands"), ('{"%s": 1, "%s": 2}', "'x{64}' stands")):
        with pytest.raises(Twice, match=name):
            json.loads(text.replace("%s", "x" * 100), object_pairs_hook=once)
