"""Names of models that lead to other names, and the places where these ways end."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

#: Places that one name leads to at most, and names that it leads over, itself among them. Without a bound a few dozen
#: names that each lead to two of the next ones would be more ways than anybody can follow.
LED_MAX: Final = 256


def places_of(name: str, to: Mapping[str, Sequence[str]], deployments: Collection[str]) -> tuple[tuple[str, ...], bool]:
    """The places that a name leads to, each once and in order, and whether there are more of them than may be.

    ``to`` is where each name leads; a deployment goes before a name that it has too. Loops end where they close: the
    configuration and the API each check for them, but a file that changes can close one through what was made.
    """
    places: dict[str, None] = {}
    seen = {name}
    ways = [iter(to[name])]
    while ways:
        target = next(ways[-1], None)
        if target is None:
            ways.pop()
        elif target not in to or target in deployments:
            if len(places) == LED_MAX and target not in places:
                return tuple(places), True
            places[target] = None
        elif target not in seen:
            if len(seen) == LED_MAX:
                return tuple(places), True
            seen.add(target)
            ways.append(iter(to[target]))
    return tuple(places), False
