"""Which path asks for what, on OpenAI's and on Azure's side. Pure."""

import re
from functools import lru_cache
from typing import NamedTuple

_KINDS = {
    "chat/completions": "chat",
    "completions": "completion",
    "embeddings": "embedding",
    "models": "models",
}
_DEPLOYMENT = re.compile(r"(?:/openai)?/deployments/([^/]+)/(chat/completions|completions|embeddings)")
_PLAIN = re.compile(r"(/openai)?/v1/(chat/completions|completions|embeddings|models)(?:/([^/]+))?")


class Route(NamedTuple):
    """What a path asks for; ``name`` is the deployment, or the model of ``/v1/models/{name}``."""

    kind: str
    azure: bool
    name: str = ""
    #: Azure's older paths insist on ``?api-version=``.
    versioned: bool = False


@lru_cache(maxsize=1024)
def route_of(path: str) -> Route | None:
    """The route of a path, or ``None`` where there is nothing."""
    if found := _DEPLOYMENT.fullmatch(path):
        return Route(_KINDS[found[2]], azure=True, name=found[1], versioned=True)
    if path == "/openai/models":
        return Route("models", azure=True, versioned=True)
    found = _PLAIN.fullmatch(path)
    if found is None or (found[3] and found[2] != "models"):
        return None
    return Route(_KINDS[found[2]], azure=bool(found[1]), name=found[3] or "")
