"""The rules of pools: names that point to nothing or mean two things, ranges that cross, members that say it twice.

They are of one pool each, so that they hold alike for those of the file and for those that the API makes.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from faregate.config.findings import Path, Ruled, quoted
from faregate.config.places import Known, place_problem
from faregate.config.pools import Pool, Retry, Selected, SelectedCallers, params_of, who_of
from faregate.config.schema import Config
from faregate.core.routing.choose import USUAL_RANGES

#: What decides what is asked, of whom and how it is answered is the caller's to say, or the gate's.
FIXED_MEMBERS: Final = frozenset(
    """
    model messages input prompt contents system instructions stream stream_options n background previous_response_id
    conversation file image mask api_base base_url api_key
    """.split()
)
PARAM: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def check_pools(config: Config, known: Known) -> Iterator[Ruled]:
    """What is wrong with pools, and with who is sent to them."""
    for index, pool in enumerate(config.pools):
        yield from check_pool(pool, ("pools", index), known)
    yield from _growing(config.retry, ("retry",))
    for index, model in enumerate(config.models):
        if model.mirror is not None:
            yield from _place(("models", index, "mirror", "to"), model.mirror.to, known)
        yield from check_instead(model.instead, ("models", index, "instead"), known)


def check_pool(pool: Pool, path: Path, known: Known) -> Iterator[Ruled]:
    """What is wrong with one pool, beside another pool that has its name."""
    for kind, names in (("a deployment", known.deployments), ("a model", known.models)):
        if pool.name in names:
            problem = f"{pool.name} is the name of {kind} already"
            yield Ruled("CFG-CONFLICT", (*path, "name"), problem, "names that differ")
            break
    seen: set[str] = set()
    for place, member in enumerate(pool.use):
        if member.deployment in seen:
            yield Ruled("CFG-CONFLICT", (*path, "use", place), f"{member.deployment} is in it already", "it once")
        seen.add(member.deployment)
        for name, _ in params_of(member.params):
            if name in FIXED_MEMBERS or not PARAM.fullmatch(name):
                problem = f"{quoted(name)} is not for a pool to say"
                yield Ruled("CFG-RANGE", (*path, "use", place, "params"), problem, "such as temperature")
        yield from _place((*path, "use", place), member.deployment, known)
    for number, each in enumerate(pool.priority):
        for one, callers in enumerate(each.only):
            yield from _nobody(callers, (*path, "priority", number, "only", one))
        for place, name in enumerate(each.use):
            yield from _place((*path, "priority", number, "use", place), name, known)
    yield from _ranges(pool, path)
    yield from _growing(pool.retry, (*path, "retry"))


def check_instead(instead: Sequence[Selected], path: Path, known: Known) -> Iterator[Ruled]:
    """What is wrong with where a name leads for some callers."""
    names = [*known.deployments, *known.pools]
    for number, selected in enumerate(instead):
        yield from _nobody(selected.select, (*path, number, "select"))
        for place, name in enumerate(selected.to):
            if name not in known.deployments and name not in known.pools:
                found = place_problem(known, (*path, number, "to", place), name, "deployment or pool", names)
                if found is not None:
                    yield found


def _growing(retry: Retry | None, path: Path) -> Iterator[Ruled]:
    if retry is not None and retry.max is not None and retry.delta is None:
        problem = "there is nothing that grows up to it: without delta each wait is the interval"
        yield Ruled("CFG-CONFLICT", (*path, "max"), problem, "delta beside it, or it left out")


def _nobody(callers: SelectedCallers, path: Path) -> Iterator[Ruled]:
    if not who_of(callers):
        yield Ruled("CFG-MISSING", path, "names nobody", "such as product: premium")


def _place(path: Path, name: str, known: Known) -> Iterator[Ruled]:
    if name not in known.deployments:
        found = place_problem(known, path, name, "deployment", [*known.deployments])
        if found is not None:
            yield found


def _ranges(pool: Pool, within: Path) -> Iterator[Ruled]:
    ranges: list[tuple[int, int, int]] = []
    for number, each in enumerate(pool.priority):
        path: Path = (*within, "priority", number)
        usual = USUAL_RANGES[number] if number < len(USUAL_RANGES) else None
        if usual is None and (each.low is None or each.high is None):
            yield Ruled("CFG-MISSING", path, "has no from or no to", "numbers of 0 to 1000; only three have usual ones")
            continue
        low = usual[0] if each.low is None and usual else each.low or 0
        high = usual[1] if each.high is None and usual else each.high or 0
        if low > high:
            yield Ruled("CFG-CONFLICT", (*path, "from"), f"{low} is more than {high}", "from at most to")
        ranges.append((low, high, number))
    for (_, end, _), (start, _, number) in pairwise(sorted(ranges)):
        if start <= end:
            yield Ruled("CFG-CONFLICT", (*within, "priority", number), f"{start} is in two ranges", "one range")
