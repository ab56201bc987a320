"""What each route asks of whoever calls it, declared next to the route and checked for every one of them in one place.

``@needs("keys.write")`` stands directly under the router's decorator. A route without one is refused to everybody, so
that a new one is closed until somebody has thought of who may use it.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from fastapi import Request

from faregate.console.problems import ApiProblem
from faregate.core.access import PERMISSIONS, Principal

#: Where the door puts who asks; ``None`` where nobody had to say.
PRINCIPAL: Final = "faregate.principal"

#: What routes declare that everybody may call; each says why.
OPEN: Final = ""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_DECLARED: Final[dict[Callable[..., Any], str]] = {}


def needs(permission: str) -> Callable[[Endpoint], Endpoint]:
    """Declare the permission that a route asks for.

    Raises:
        ValueError: there is no such permission.
    """
    if permission not in PERMISSIONS:
        raise ValueError(f"no permission is called {permission!r}; the table is in core/access.py")
    return _declaring(permission)


def open_to_all(why: str) -> Callable[[Endpoint], Endpoint]:
    """Declare that a route asks for nothing, and ``why`` that harms nobody."""
    assert why
    return _declaring(OPEN)


def _declaring(permission: str) -> Callable[[Endpoint], Endpoint]:
    def declared(endpoint: Endpoint) -> Endpoint:
        _DECLARED[endpoint] = permission
        return endpoint

    return declared


def declared_by(endpoint: Callable[..., Any]) -> str | None:
    """The permission that an endpoint declares, ``OPEN`` where it declares to ask for none, ``None`` where nothing."""
    return _DECLARED.get(endpoint)


async def permitted(request: Request) -> None:
    """Let a request pass to its route, or not; every route of the console depends on this first.

    Raises:
        ApiProblem: ``role_forbidden``; it names the permission and the role, and no more.
    """
    permission = declared_by(request.scope["endpoint"])
    if permission == OPEN:
        return
    principal: Principal | None = request.scope.get(PRINCIPAL)
    if permission is None or principal is None:
        raise ApiProblem("role_forbidden", "this path is for nobody: no permission is declared for it")
    if not principal.may(permission):
        whose = "" if principal.scope.whole else " of a part of the installation"
        raise ApiProblem(
            "role_forbidden",
            f"this takes the permission {permission}; a key{whose} with the role {principal.role} does not have it",
        )
