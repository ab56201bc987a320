"""``/api/tokenize`` and ``/api/encodings`` on the console's port: the tokenizer service, for admins.

The gate answers the same paths for callers; what is asked and answered is decided in one place behind the port.
"""

from typing import Any

from fastapi import APIRouter, Request

from faregate.console.paging import single_values
from faregate.console.prices import compiled
from faregate.console.problems import as_problem
from faregate.console.reading import in_thread
from faregate.console.state import Console
from faregate.console.writing import console_of
from faregate.errors import Problem, Unavailable
from faregate.ports import Tokenizer

router = APIRouter(prefix="/api", tags=["tokenizer"])

#: A longer text goes into a body.
QUERY_CHARACTERS_MAX = 4_096


def _tokenizer(console: Console) -> Tokenizer:
    if console.tokenizer is None:
        raise Unavailable("there is no tokenizer here")
    return console.tokenizer


async def _answer(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    console = console_of(request)
    tokenizer = _tokenizer(console)

    def look() -> dict[str, Any] | Problem:
        catalogue = compiled(console)
        places = {place.name: place.model for place in catalogue.deployments}
        models = {route.model: places.get(route.to[0], route.model) for route in catalogue.routes if route.to}
        return tokenizer.answer(asked, lambda model: models.get(model, model))

    found = await in_thread(look)
    if isinstance(found, Problem):
        raise as_problem(found)
    return found


@router.get("/tokenize")
async def tokenize_query(request: Request) -> dict[str, Any]:
    """The tokens of ``input``, as ``model`` has them."""
    asked = single_values(request, ("input", "model", "encoding"), texts={"input": QUERY_CHARACTERS_MAX})
    return await _answer(request, dict(asked))


@router.post("/tokenize")
async def tokenize_body(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    """The tokens of a text, of each text of a list, or of a chat's messages and tools."""
    return await _answer(request, asked)


@router.get("/encodings")
async def list_encodings(request: Request) -> dict[str, Any]:
    """Every encoding, and the models that have it."""
    single_values(request, ())
    console = console_of(request)
    return await in_thread(_tokenizer(console).encodings)
