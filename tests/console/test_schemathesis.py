"""The admin API under requests that are made up from its document, in all phases of schemathesis.

They come from two callers, one of the whole installation and one of a team, to a console with one of everything in it.
An answer must not be an internal error, must have a status, a media type, headers and a body that the document tells of
(closed: nothing that it does not name), what was removed must be gone, and what was made must be there.

``make soak`` makes all phases of both, over all operations: more than ten thousand requests.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from admin_world import admin_world, one_of_each
from commands import served
from console_parts import Parts
from described import closed
from faregate.console.keys import NewKey, create
from faregate.console.openapi import document_of

SOAK = bool(os.environ.get("FAREGATE_SOAK"))

Asgi = Callable[[Any, Any, Any], Awaitable[None]]

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,use_after_free,ensure_resource_availability"
)

#: Not to be asked at random: it writes a file wherever it is told to.
LEFT_OUT = ("backup",)


#: Of which the quick run makes all phases; the long one makes all of all operations.
COVERED = ("--include-tag", "keys")


def kept(app: Asgi, key_id: str) -> Asgi:
    """``app`` for a caller who must not end itself: its own key is nowhere to be found by its id."""

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and key_id in scope["path"]:
            path = scope["path"].replace(key_id, "key_none")
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    return asked


def strict(document: dict[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    """The document closed, without the answer that takes in every status, and with ids that there are."""
    document = closed(document)
    for path, methods in document["paths"].items():
        id = next((each for begin, each in ids.items() if path.startswith(f"{begin}{{")), None)
        for operation in methods.values():
            operation["responses"].pop("default")
            for parameter in operation.get("parameters", ()):
                if parameter.get("in") == "path" and id is not None:
                    parameter["example"] = id
    return document


def cases(made: Parts, folder: Path, ids: Mapping[str, str], key: NewKey, *options: str) -> int:
    """Let schemathesis ask as the holder of a key; how many requests it made.

    Raises:
        AssertionError: something was not as the document says.
    """
    row, secret = create(made.console, key)
    document = folder / f"{key.name}.json"
    document.write_text(json.dumps(strict(document_of(made.app), ids)))
    # Each method of each path is asked in one way; what is no method of it is the doors', which come first.
    (folder / "schemathesis.toml").write_text("[phases.coverage]\nunexpected-methods = []\n")
    left_out = [option for each in LEFT_OUT for option in ("--exclude-operation-id", each)]
    with served(kept(made.app, row["id"])) as url:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")), "run", str(document), "--url", url,
                "-H", f"Authorization: Bearer {secret}", "--checks", CHECKS, "--generation-deterministic",
                "--request-timeout", "30", "--max-failures", "20", "--no-color",
                *left_out, *options,
            ],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None, done.stdout[-2_000:]
    return int(found[1])


@pytest.mark.timeout(1_800)
def test_made_up_requests_are_answered_as_the_document_says(tmp_path: Path) -> None:
    """By an admin of the installation, then by a manager of one team, who is refused most of it."""
    admin = NewKey(name="whole", role="admin")
    manager = NewKey(name="scoped", role="manager", organization="default", team="research")
    with admin_world(tmp_path) as (made, api):
        ids = one_of_each(api)
        if SOAK:
            count = cases(made, tmp_path, ids, admin, "--max-examples", "10")
            count += cases(made, tmp_path, ids, manager, "--max-examples", "10")
        else:
            count = cases(made, tmp_path, ids, manager, "--phases", "fuzzing", "--max-examples", "1")
            all_phases = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "1")
            count += cases(made, tmp_path, ids, admin, *all_phases, *COVERED)

    assert count > (10_000 if SOAK else 200)
