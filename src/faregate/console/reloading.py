"""``/api/v1/reload``: have the configuration read again, and be told what became of it."""

from typing import Any

from fastapi import APIRouter, Request

from faregate.config.findings import Finding
from faregate.console.describing import answers
from faregate.console.problems import ApiProblem
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.writing import console_of
from faregate.errors import Unavailable

router = APIRouter(tags=["reload"])


def _one(finding: Finding) -> dict[str, str]:
    """A problem of the file as one of several errors, with its place and its parts for programs."""
    told = {"field": finding.key, "code": finding.code, "detail": finding.line(), "place": str(finding.place)}
    return {**told, "problem": finding.problem, "expected": finding.expected, "hint": finding.hint}


@router.post("/reload")
@needs("installation.write")
@answers(shapes.Reloaded)
async def reload(request: Request) -> dict[str, Any]:
    """Work by the configuration file as it is now: all of it, or nothing and every problem told.

    ``restart`` names the keys that changed and wait for a restart. Where anything is different by it, whoever takes the
    new configuration over leaves a line of the kind `configuration` in the trail of changes.
    """
    console = console_of(request)
    if console.reread is None:
        raise Unavailable("no configuration is in force here that could be read again", hint="start `faregate serve`")
    found = await console.reread()
    if found.code:
        raise ApiProblem(found.code, found.message, errors=map(_one, found.problems))
    return {"reloaded": True, "restart": list(found.restart), "warnings": list(found.warnings)}
