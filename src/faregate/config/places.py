"""Names of places to send calls to, and what is wrong with one that leads nowhere: in the file, and by the API."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from faregate.config.findings import Path, Ruled, did_you_mean


class Known(NamedTuple):
    """The names that there are of what leads to places, and is led to."""

    #: Name of a provider → its kind.
    providers: Mapping[str, str]
    deployments: Collection[str]
    pools: Collection[str] = ()
    models: Collection[str] = ()


def place_problem(known: Known, path: Path, target: str, kind: str, names: Sequence[str]) -> Ruled | None:
    """What is wrong with a place that is none of ``names`` and may be ``{provider}/{model}``; ``None`` for nothing."""
    provider, slash, _ = target.partition("/")
    if not slash:
        return points_nowhere(path, kind, target, names)
    if provider not in known.providers:
        return points_nowhere(path, "provider", provider, list(known.providers))
    if known.providers[provider] == "azure_openai":
        return Ruled(
            "CFG-REF", path, f"{provider} has no models by name", "a deployment of it", "add it to deployments"
        )
    return None


def points_nowhere(path: Path, kind: str, name: str, names: Sequence[str]) -> Ruled:
    """A name that nothing has."""
    listed = ", ".join(names[:20]) or "none"
    return Ruled("CFG-REF", path, f"no {kind} is called {name}", f"one of: {listed}", did_you_mean(name, names))
