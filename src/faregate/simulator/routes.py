"""Which path asks for what: OpenAI's and Azure's own paths here, all others as ``SPEAKERS`` declares them. Pure."""

import re
from functools import lru_cache, partial
from typing import Final, NamedTuple

from faregate.simulator import asks, shapes
from faregate.simulator.asks import Ask
from faregate.simulator.events import events
from faregate.simulator.http1 import Request
from faregate.simulator.plan import usage
from faregate.simulator.speakers import SPEAKERS, Speaker

_DEPLOYMENT = re.compile(r"(?:/openai)?/deployments/([^/]+)/(chat/completions|completions|embeddings)")
_PLAIN = re.compile(r"(/openai)?/v1/(chat/completions|completions|embeddings)")
_MODELS = re.compile(r"(/openai)?/v1/models(?:/([^/]+))?")


def _read(kind: str, request: Request, name: str) -> Ask:
    return asks.read(kind, request.body, name)


#: Chats, completions and embeddings: what the simulator spoke first, with paths of two providers each.
_OWN: Final = {
    end: Speaker(kind, "POST", re.compile(end), partial(_read, kind), shapes.answer, usage, events)
    for end, kind in (("chat/completions", "chat"), ("completions", "completion"), ("embeddings", "embedding"))
}


class Route(NamedTuple):
    """What a path asks for; ``name`` is the deployment, the object, or the model of ``/v1/models/{name}``."""

    #: Who answers, one for each method; empty for the list of models.
    speakers: tuple[Speaker, ...]
    azure: bool
    name: str = ""
    #: Azure's older paths insist on ``?api-version=``.
    versioned: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it has."""
        return tuple(speaker.method for speaker in self.speakers) or ("GET",)


@lru_cache(maxsize=1024)
def route_of(path: str) -> Route | None:
    """The route of a path, or ``None`` where there is nothing."""
    if found := _DEPLOYMENT.fullmatch(path):
        return Route((_OWN[found[2]],), azure=True, name=found[1], versioned=True)
    if found := _PLAIN.fullmatch(path):
        return Route((_OWN[found[2]],), azure=bool(found[1]))
    if path == "/openai/models":
        return Route((), azure=True, versioned=True)
    spoken = [(speaker, found) for speaker in SPEAKERS if (found := speaker.path.fullmatch(path))]
    if spoken:
        first, found = spoken[0]
        names = found.groupdict()
        name = names.get("model") or names.get("id") or ""
        speakers = tuple(speaker for speaker, _ in spoken)
        return Route(speakers, first.azure, name, first.azure and "/deployments/" in path)
    found = _MODELS.fullmatch(path)
    return Route((), azure=bool(found[1]), name=found[2] or "") if found else None
