"""``/api/v1/route``: where a call of a caller would go now, in which order, and why."""

from typing import Any

from fastapi import APIRouter, Request

from faregate.console.describing import answers, asks, needed, text
from faregate.console.paging import single_values
from faregate.console.payer_rules import in_force
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.state import Console
from faregate.console.writing import console_of
from faregate.control import Catalogue, Deployment, RestingDeployment, Route
from faregate.core.pricing.book import PriceTimeline
from faregate.core.routing.choose import USUAL_TOKENS, Fact, Forbidden, PoolRule, Range, choose, priority_of, ranges_for
from faregate.core.routing.ways import Caller, chosen, fits, rules_along
from faregate.errors import NotFound, Unavailable
from faregate.ports import Row

router = APIRouter(tags=["places"])

_USUAL_OPERATION = "chat.completions"


@router.get("/route")
@needs("providers.read")
@asks(
    needed("model", "Name that the call would ask for."),
    text("key", "Id of the key that would make it."),
    text("stage", "Stage, where it is not the key's."),
    text("project", "Project, where it is not the key's."),
    text("priority", "What its `Priority` header would say."),
    text("operation", f"Name of an operation; default: {_USUAL_OPERATION}."),
)
@answers(shapes.Way, refusals=(403, 404, 422))
async def show_route(request: Request) -> dict[str, Any]:
    """Where a call would go: the deployments in the order of a first turn, with why, and which are left out.

    Which of several comes first now depends on the turn, or on how busy and fast they are: that is the gate's to know.
    """
    asked = single_values(request)
    if not asked.get("model"):
        raise ApiProblem("field_missing", "names the model that the call would ask for", field="model")
    console = console_of(request)
    resting: tuple[RestingDeployment, ...] = ()
    if console.gate is not None:
        try:
            resting = (await console.gate.figures()).resting
        except Unavailable:
            # What is configured can be told without a gate.
            resting = ()
    return await in_thread(lambda: _way(console, asked, resting))


def caller_of(row: Row, stage: str = "", project: str = "") -> Caller:
    """Whose call the one of a key would be, by the row of that key; nobody's without one."""
    return Caller(
        row.get("organization", ""),
        row.get("team", ""),
        project or row.get("project", ""),
        row.get("product", ""),
        stage or row.get("stage", ""),
        row.get("user", ""),
        row.get("id", ""),
        row.get("name", ""),
    )


def _led(catalogue: Catalogue, route: Route, caller: Caller) -> tuple[int, tuple[PoolRule, ...]]:
    """Which selection of a name fits a caller, -1 for none, and the pools that it leads along."""
    at = chosen([each.who for each in route.selected], caller)
    pools = {pool.rule.name: pool.rule for pool in catalogue.pools}
    return at, rules_along(route.selected[at].steps if at >= 0 else route.steps, route.to, pools)


def along(catalogue: Catalogue, route: Route, caller: Caller) -> tuple[str, ...]:
    """The deployments that a name leads a caller to who asks for no priority, in the order of a first turn."""
    _, rules = _led(catalogue, route, caller)
    facts = {member.deployment: Fact() for rule in rules for member in rule.members}
    return choose(rules, facts, 0).order


def _way(console: Console, asked: dict[str, str], resting: tuple[RestingDeployment, ...]) -> dict[str, Any]:
    catalogue = compiled(console)
    route = next((each for each in catalogue.routes if each.model == asked["model"]), None)
    if route is None:
        raise NotFound("there is no such model")
    row = _key_row(console, asked)
    caller = caller_of(row, asked.get("stage", ""), asked.get("project", ""))
    at, rules = _led(catalogue, route, caller)
    number = priority_of(asked.get("priority", "").encode("latin-1", "replace"))
    ranges = _ranges(rules, number, caller, in_force(console.all_books, row).priorities if row else None)
    usable, left_out = _usable(catalogue, route, rules, caller, asked.get("operation") or _USUAL_OPERATION)
    closed = {each.name: each for each in resting}
    now = console.clock.wall_nanos()
    facts = {each.name: Fact(each.name not in closed, 0, 0, _cost(each, now)) for each in usable}
    found = choose(rules, facts, 0, ranges)
    providers = {each.name: each.provider for each in usable}
    return {
        "model": route.model,
        "selected": dict(route.selected[at].who) if at >= 0 else None,
        "priority": next((_counted(number, rules[n].ranges[at]) for n, at in enumerate(ranges) if at >= 0), None),
        "pools": [_pool(rule) for rule in rules if rule.name],
        "order": [
            {"deployment": name, "provider": providers[name], "why": why}
            for name, why in zip(found.order, found.why, strict=True)
        ],
        "resting": [{"deployment": name, "wait_ms": closed[name].wait_ms} for name in found.resting],
        "left_out": left_out,
    }


def _key_row(console: Console, asked: dict[str, str]) -> Row:
    """The row of the key that would make the call; empty for nobody's."""
    if not asked.get("key"):
        return {}
    found = console.books.get("key", asked["key"])
    if found is None:
        raise NotFound("there is no such key")
    return found


def _ranges(
    rules: tuple[PoolRule, ...], number: int | None, caller: Caller, allowed: tuple[str, ...] | None
) -> tuple[int, ...]:
    if number is None:
        return ()
    found = ranges_for(rules, number, lambda who: fits(who, caller), allowed)
    if isinstance(found, Forbidden):
        rule = f"this key may not use {found}"
        raise ApiProblem("priority_forbidden", rule, field="priority")
    return found


def _counted(number: int | None, range: Range) -> int:
    """What a priority counts as that led to a range: itself, or the most urgent of a range below its own."""
    return number if number is not None and range.low <= number <= range.high else range.low


def _usable(
    catalogue: Catalogue, route: Route, rules: tuple[PoolRule, ...], caller: Caller, operation: str
) -> tuple[list[Deployment], list[dict[str, str]]]:
    """The deployments along a way that do an operation for a caller, and the others with the reason."""
    named = {name for rule in rules for name in rule.deployments}
    allowed = catalogue.stages.get(caller.stage)
    usable: list[Deployment] = []
    left_out: list[dict[str, str]] = []
    for each in catalogue.deployments:
        if each.name not in named or each.name not in route.to:
            continue
        if operation not in each.operations:
            left_out.append({"deployment": each.name, "why": f"does not do {operation}"})
        elif allowed is not None and each.provider not in allowed:
            left_out.append({"deployment": each.name, "why": f"is not for stage {caller.stage}"})
        else:
            usable.append(each)
    return usable, left_out


def _cost(deployment: Deployment, now: int) -> int:
    tariff = PriceTimeline(card for card in deployment.cards if not card.service_tier).at(now)
    return tariff.bound(*USUAL_TOKENS) if tariff is not None else 1 << 62


def _pool(rule: PoolRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "strategy": rule.strategy,
        "sticky": rule.sticky or None,
        "members": [
            {"deployment": each.deployment, "weight": each.weight, "group": each.group} for each in rule.members
        ],
    }
