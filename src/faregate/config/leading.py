"""Names of models that lead to other names, and the places where these ways end."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

#: What must hold of a caller, and where it is led then.
Led = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]

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


def led_elsewhere(
    to: Mapping[str, Sequence[str]], instead: Mapping[str, Sequence[Led]], deployments: Collection[str]
) -> dict[str, tuple[Led, ...]]:
    """Name → who is led elsewhere along it, and where to: by its own word, and by that of the names it leads to.

    Nobody gets by another name where he does not get by the name itself. A caller that several names lead elsewhere is
    led so by each of them; what holds for more of a caller comes first.
    """
    found: dict[str, tuple[Led, ...]] = {}
    if not any(instead.values()):
        return found

    def led(name: str, depth: int) -> tuple[Led, ...]:
        if name in found or depth > LED_MAX:
            return found.get(name, ())
        # A loop ends where it closes.
        found[name] = ()
        ways: list[Led] = [((), ())]
        for target in to[name]:
            if target not in to or target in deployments:
                ways = [(who, (*steps, target)) for who, steps in ways]
                continue
            usual = places_of(target, to, deployments)[0]
            also_led = (*led(target, depth + 1), ((), usual))
            # Cut while they are made: of each of 256 ways with each of 256 others nearly all would be thrown away.
            ways = list(islice(_joined(ways, also_led), LED_MAX))
        found[name] = (*instead.get(name, ()), *((who, steps) for who, steps in ways if who))
        return found[name]

    for name in to:
        led(name, 0)
    return found


def _joined(ways: Sequence[Led], others: Sequence[Led]) -> Iterator[Led]:
    """Each way that one caller can go by both, with the steps of both."""
    for who, steps in ways:
        for also, more in others:
            both = _both(who, also)
            if both is not None:
                yield both, tuple(dict.fromkeys((*steps, *more)))[:LED_MAX]


def _both(one: tuple[tuple[str, str], ...], other: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...] | None:
    """What holds where both do; ``None`` where nobody can be both."""
    merged = dict(one)
    for field, value in other:
        if merged.setdefault(field, value) != value:
            return None
    return tuple(merged.items())
