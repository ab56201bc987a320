"""What stops a key beside its own state: a payer that was disabled, a network or a path that it is not for.

Most keys are restricted by none of this, and most installations have nobody disabled: callers look at one attribute
and come here only where there is something to decide.
"""

from typing import TYPE_CHECKING, Any, Final

from faregate.control import Key
from faregate.core.networks import client_address, holds
from faregate.core.restrictions import path_begins
from faregate.errors import Problem
from faregate.proxy.http1 import Request

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate

#: ``(kind, organization, name)`` of payers that are disabled; of a subscription its id.
Halted = frozenset[tuple[str, str, str]]

#: The dimensions of a key whose values can be disabled, from the widest to the narrowest.
_WITHIN: Final = ("team", "project", "user", "product", "stage")

#: Azure's paths are known by what they end with; what stands before is up to the client.
_DEPLOYMENTS: Final = b"/deployments/"

_OUTSIDE: Final = "This key may not be used from the network that the call came from."


def halted(key: Key, names: Halted) -> Problem | None:
    """Why none of a key's calls is taken: the first of its payers that is disabled, told by its kind and name."""
    organization = key.organization
    if ("organization", "", organization) in names:
        return _disabled("organization", organization)
    for kind in _WITHIN:
        name = getattr(key, kind)
        if name and (kind, organization, name) in names:
            return _disabled(kind, name)
    if key.subscription and ("subscription", organization, key.subscription) in names:
        return _disabled("subscription", key.subscription)
    return None


def halted_name(kind: str, organization: str, name: str, names: Halted) -> Problem | None:
    """Why a call that names a project or stage of its own is not taken."""
    return _disabled(kind, name) if (kind, organization, name) in names else None


def _disabled(kind: str, name: str) -> Problem:
    text = f"{kind.capitalize()} {name[:128]} is disabled, and its keys with it. Ask your administrator to enable it."
    return Problem("key_disabled", text)


def peer_of(transport: Any) -> str:
    """The address at the other end of a connection; empty where the system does not tell."""
    name = transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple) and name else ""


def outside(gate: "Gate", key: Key, request: Request, peer: str) -> Problem | None:
    """Why a key may not be used for this path, or from where the request came; ``peer`` is the connection's address."""
    if key.networks is not None:
        forwarded = request.headers.get(b"x-forwarded-for", b"").decode("latin-1")
        problem = not_from(gate, key, client_address(peer, forwarded, gate.settings.trusted_proxies))
        if problem is not None:
            return problem
    return not_at(key, request.target)


def not_from(gate: "Gate", key: Key, address: str) -> Problem | None:
    """Why a key may not be used from an address."""
    if key.networks is None or holds(key.networks, address):
        return None
    return Problem("ip_denied", _OUTSIDE)


def not_at(key: Key, target: bytes) -> Problem | None:
    """Why a key may not be used for a path."""
    if key.paths is None:
        return None
    path = target.partition(b"?")[0]
    if not path.startswith(b"/services/") and _DEPLOYMENTS in path:
        # Only what the path means is compared: anything may stand before it.
        path = b"/openai" + path[path.index(_DEPLOYMENTS) :]
    text = path.decode("latin-1")
    if any(_begins(text, prefix) for prefix in key.paths):
        return None
    return Problem("path_forbidden", f"This key may not call {text[:128]}.")


def _begins(path: str, prefix: str) -> bool:
    """Whether a path lies below ``prefix``, which for Azure's may be written without what stands before them."""
    return path_begins(path, "/openai" + prefix if prefix.startswith("/deployments") else prefix)
