"""The rules of pools: names that point to nothing or mean two things, ranges that cross, members that say it twice."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from faregate.config.findings import Path, Ruled, quoted
from faregate.config.pools import Retry, SelectedCallers, params_of, who_of
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

#: What is wrong with a place that is none of the known names; ``None`` for nothing.
PlaceProblem = Callable[[Config, Path, str, str, Sequence[str]], Ruled | None]


def check_pools(config: Config, problem_of: PlaceProblem) -> Iterator[Ruled]:
    """What is wrong with pools, and with who is sent to them."""
    deployments = [deployment.name for deployment in config.deployments]
    taken = dict.fromkeys(deployments, "a deployment") | {model.name: "a model" for model in config.models}
    for index, pool in enumerate(config.pools):
        path: Path = ("pools", index)
        if pool.name in taken:
            problem = f"{pool.name} is the name of {taken[pool.name]} already"
            yield Ruled("CFG-CONFLICT", (*path, "name"), problem, "names that differ")
        seen: set[str] = set()
        for place, member in enumerate(pool.use):
            if member.deployment in seen:
                yield Ruled("CFG-CONFLICT", (*path, "use", place), f"{member.deployment} is in it already", "it once")
            seen.add(member.deployment)
            for name, _ in params_of(member.params):
                if name in FIXED_MEMBERS or not PARAM.fullmatch(name):
                    problem = f"{quoted(name)} is not for a pool to say"
                    yield Ruled("CFG-RANGE", (*path, "use", place, "params"), problem, "such as temperature")
            yield from _place(config, (*path, "use", place), member.deployment, deployments, problem_of)
        for number, each in enumerate(pool.priority):
            for one, callers in enumerate(each.only):
                yield from _nobody(callers, (*path, "priority", number, "only", one))
            for place, name in enumerate(each.use):
                yield from _place(config, (*path, "priority", number, "use", place), name, deployments, problem_of)
        yield from _ranges(config, index)
        yield from _growing(pool.retry, (*path, "retry"))
    yield from _growing(config.retry, ("retry",))
    known = [*deployments, *(pool.name for pool in config.pools)]
    for index, model in enumerate(config.models):
        if model.mirror is not None:
            yield from _place(config, ("models", index, "mirror", "to"), model.mirror.to, deployments, problem_of)
        for number, selected in enumerate(model.instead):
            path = ("models", index, "instead", number)
            yield from _nobody(selected.select, (*path, "select"))
            for place, name in enumerate(selected.to):
                if name not in known:
                    found = problem_of(config, (*path, "to", place), name, "deployment or pool", known)
                    if found is not None:
                        yield found


def _growing(retry: Retry | None, path: Path) -> Iterator[Ruled]:
    if retry is not None and retry.max is not None and retry.delta is None:
        problem = "there is nothing that grows up to it: without delta each wait is the interval"
        yield Ruled("CFG-CONFLICT", (*path, "max"), problem, "delta beside it, or it left out")


def _nobody(callers: SelectedCallers, path: Path) -> Iterator[Ruled]:
    if not who_of(callers):
        yield Ruled("CFG-MISSING", path, "names nobody", "such as product: premium")


def _place(
    config: Config, path: Path, name: str, deployments: Sequence[str], problem_of: PlaceProblem
) -> Iterator[Ruled]:
    found = problem_of(config, path, name, "deployment", deployments) if name not in deployments else None
    if found is not None:
        yield found


def _ranges(config: Config, index: int) -> Iterator[Ruled]:
    ranges: list[tuple[int, int, int]] = []
    for number, each in enumerate(config.pools[index].priority):
        path: Path = ("pools", index, "priority", number)
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
            yield Ruled("CFG-CONFLICT", ("pools", index, "priority", number), f"{start} is in two ranges", "one range")
