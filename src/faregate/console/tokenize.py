"""``/api/tokenize`` and ``/api/encodings`` on the console's port: the tokenizer service, for admins.

The gate answers the same paths for callers; what is asked and answered is decided in one place behind the port.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request

from faregate.console.describing import answers, asks, needed, text
from faregate.console.paging import single_values
from faregate.console.prices import compiled
from faregate.console.problems import as_problem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.state import Console
from faregate.console.writing import console_of
from faregate.errors import Problem, Unavailable
from faregate.ports import Tokenizer

router = APIRouter(prefix="/api", tags=["tokenizer"])

#: A longer text goes into a body.
QUERY_CHARACTERS_MAX = 4_096

#: What a question may hold; the tokenizer says what is wrong with one.
_ASKED: Final[dict[str, Any]] = {
    "properties": {
        "input": {
            "description": "a text, a list of texts, or a list of messages",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "object"]}, "minItems": 1}],
        },
        "model": {"type": "string", "maxLength": 256},
        "encoding": {"type": "string"},
        "tools": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["input"],
    "additionalProperties": False,
}


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
@needs("tokens.count")
@asks(
    needed("input", "The text.", most=QUERY_CHARACTERS_MAX),
    text("model", "Name of a model."),
    text("encoding", "Name of an encoding."),
)
@answers(shapes.Tokens, refusals=(422,))
async def tokenize_query(request: Request) -> dict[str, Any]:
    """The tokens of ``input``, as ``model`` has them."""
    asked = single_values(request)
    return await _answer(request, dict(asked))


@router.post("/tokenize")
@needs("tokens.count")
@answers(shapes.Tokens)
async def tokenize_body(
    request: Request, asked: Annotated[dict[str, Any], Body(json_schema_extra=_ASKED)]
) -> dict[str, Any]:
    """The tokens of a text, of each text of a list, or of a chat's messages and tools."""
    return await _answer(request, asked)


@router.get("/encodings")
@needs("tokens.count")
@asks()
@answers(shapes.Encodings)
async def list_encodings(request: Request) -> dict[str, Any]:
    """Every encoding, and the models that have it."""
    single_values(request)
    console = console_of(request)
    return await in_thread(_tokenizer(console).encodings)
