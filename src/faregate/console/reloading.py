"""``/api/v1/reload``: have the configuration read again, and be told what became of it."""

from typing import Any

from fastapi import APIRouter, Request

from faregate.console.describing import answers
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.writing import console_of, tell
from faregate.errors import Unavailable

router = APIRouter(tags=["reload"])


@router.post("/reload")
@needs("installation.write")
@answers(shapes.Reloaded)
async def reload(request: Request) -> dict[str, Any]:
    """Work by the configuration file as it is now: all of it, or nothing and every problem told.

    ``restart`` names the keys that changed and wait for a restart.
    """
    console = console_of(request)
    if console.reread is None:
        raise Unavailable("no configuration is in force here that could be read again", hint="start `faregate serve`")
    found = await console.reread()
    if found.code:
        told = [{"field": key, "code": code, "detail": line} for key, code, line in found.problems]
        raise ApiProblem(found.code, found.message, errors=told)
    # What the file says decides over prices and providers, as changes by the API do.
    await in_thread(lambda: tell(console, "configuration", "", None, {"restart": list(found.restart)}))
    return {"reloaded": True, "restart": list(found.restart), "warnings": list(found.warnings)}
