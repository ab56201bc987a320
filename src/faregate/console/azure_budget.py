"""``POST /webhooks/azure-budget``: alerts of Azure's budgets act on the product that is called like the budget.

Both forms that Azure sends are taken: the common alert schema, and the flat "AIP Budget Notification". Whether an alert
does anything is decided by ``alerts.azure_budget.rules``; what it does is a limit like any other, of no requests (a
stop) or of few a minute (a throttle), so that it acts on every key of the product before its next call. An alert acts
once: its id is the reference of an entry, which stays when somebody lifts the stop.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request

from faregate.config.schema import AzureBudget, AzureBudgetRule
from faregate.console import limit_entries
from faregate.console.alerts import raise_alert
from faregate.console.describing import answers
from faregate.console.hook_secrets import AZURE_BUDGET
from faregate.console.kept_terms import stored_terms, terms_of
from faregate.console.problems import ApiProblem
from faregate.console.rights import needs, open_to_all
from faregate.console.shapes import care as shapes
from faregate.console.shapes import payers as payer_shapes
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, Body, Sentence, moment, time_text
from faregate.console.writing import acted, console_of, locked
from faregate.core.limits.terms import Terms
from faregate.errors import NotFound
from faregate.ports import Row

log = logging.getLogger(__name__)

#: No part of the admin API: another credential opens it.
hook = APIRouter(tags=["hooks"])
router = APIRouter(tags=["payers"])

SOURCE: Final = "stop"

#: Azure's names of budgets have at most 63 characters; longer ones are no product's either.
_TEXT_CHARACTERS_MAX: Final = 256

#: Begins the id of an alert that has none of its own.
_FLAT: Final = "flat:"

#: Up to here a number without a currency sign is a share of the budget: Azure's thresholds end at 1,000 percent.
_SHARE_MAX: Final = 10

#: An amount as Azure writes it: a currency before or after it, thousands divided by commas.
_AMOUNT: Final = re.compile(r"([^\d.,+-]{0,8})(\d[\d,]{0,20}(?:\.\d{1,12})?)([^\d.,+-]{0,8})")
_ISO_DATE: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[T ].*)?", re.DOTALL)
_US_DATE: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})(?: .*)?", re.DOTALL)

_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
#: What may be done, mildest first.
_DEEDS: Final = ("notify", "throttle", "stop")
_DONE: Final = {"notify": "notified", "throttle": "throttled", "stop": "stopped"}
_SEVERITIES: Final = {"notify": "info", "throttle": "warning", "stop": "critical"}


class BudgetAlert(NamedTuple):
    """What an alert says, in either form."""

    #: The same for the same alert, however often it is sent.
    id: str
    budget: str
    #: ``actual`` or ``forecast``; empty for a kind that is not known.
    basis: str
    #: The threshold that the alert was sent for, in percent of the budget; where it tells none, what is spent.
    percent: Fraction
    #: The first day of some period of the budget's, where it is told.
    start: date | None
    #: False where Azure tells that an earlier alert is over.
    fired: bool = True
    #: When Azure sent it first, in nanoseconds since 1970, where it says so.
    fired_at: int | None = None


class Outcome(NamedTuple):
    """What an alert did: ``stopped``, ``throttled``, ``notified``, ``ignored`` or ``repeated``."""

    done: str
    product: Row
    limit: Row | None = None


# -- what Azure says ---------------------------------------------------------------------------------------------------


def read(value: object) -> BudgetAlert:
    """The alert of a body.

    Raises:
        ApiProblem: ``wh_body``: it is no alert of a budget.
    """
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, dict):
        raise _wrong("an alert is an object with data")
    context = data.get("alertContext")
    if context is None:
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        return _alert(data, f"{_FLAT}{digest[:40]}", data.get("SpendingAmount"), data.get("Budget"), fired=True)
    facts = context.get("AlertData") if isinstance(context, dict) else None
    essentials = data.get("essentials")
    if not isinstance(facts, dict) or not isinstance(essentials, dict):
        raise _wrong("data.essentials and data.alertContext.AlertData are objects")
    alert_id = _text(essentials, "alertId", "data.essentials.alertId")
    if not alert_id:
        raise _wrong("data.essentials.alertId is missing")
    fired = _text(essentials, "monitorCondition", "data.essentials.monitorCondition").lower() != "resolved"
    # Azure's ids are long paths; a reference has its bounds.
    short = alert_id if len(alert_id) <= 128 else hashlib.sha256(alert_id.encode()).hexdigest()
    alert = _alert(facts, short, facts.get("SpentAmount"), facts.get("BudgetThreshold"), fired=fired)
    return alert._replace(fired_at=_fired_at(essentials.get("firedDateTime")))


def _alert(facts: Mapping[str, Any], alert_id: str, spent: object, budget: object, *, fired: bool) -> BudgetAlert:
    name = _text(facts, "BudgetName", "BudgetName")
    if not name:
        raise _wrong("BudgetName is missing")
    kind = _text(facts, "ThresholdType", "ThresholdType").lower()
    basis = {"": "actual", "actual": "actual", "forecasted": "forecast", "forecast": "forecast"}.get(kind, "")
    share = _share(facts, spent, budget)
    return BudgetAlert(alert_id, name, basis, 100 * share, _day(facts.get("BudgetStartDate")), fired)


def _share(facts: Mapping[str, Any], spent: object, budget: object) -> Fraction:
    """The part of the budget that the alert was sent for: Azure writes it as a share or as an amount."""
    whole, _ = _amount(budget, "the amount of the budget")
    used, _ = _amount(spent, "the amount that is spent")
    told, is_amount = _amount(facts.get("NotificationThresholdAmount"), "NotificationThresholdAmount")
    if told is not None:
        # A small budget's threshold of, say, 4 dollars must not be taken for 400 percent.
        if not is_amount and told <= _SHARE_MAX and (told <= 1 or whole is None or whole > _SHARE_MAX):
            return told
        if whole:
            return told / whole
    if used is None or not whole:
        raise _wrong("it tells neither its threshold nor which share of the budget is spent")
    return used / whole


def _wrong(rule: str) -> ApiProblem:
    return ApiProblem("wh_body", rule)


def _text(facts: Mapping[str, Any], name: str, path: str) -> str:
    value = facts.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 4 * _TEXT_CHARACTERS_MAX or not value.isprintable():
        raise _wrong(f"{path} is a text of at most {4 * _TEXT_CHARACTERS_MAX} printable characters")
    return value.strip()


def _amount(value: object, what: str) -> tuple[Fraction | None, bool]:
    """An amount or share, ``None`` where none is told, and whether a currency stands beside it."""
    if value is None or value == "":
        return None, False
    match = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise _wrong(f'{what} is a text such as "0.8" or "$400.00"')
    return Fraction(match[2].replace(",", "")), bool((match[1] + match[3]).strip())


def _day(value: object) -> date | None:
    """A date as either form writes it; ``None`` where it cannot be read, for it only says when a stop ends."""
    text = value.strip() if isinstance(value, str) else ""
    parts: tuple[str, str, str] | None = None
    if (iso := _ISO_DATE.fullmatch(text)) is not None:
        parts = iso[1], iso[2], iso[3]
    elif (us := _US_DATE.fullmatch(text)) is not None:
        parts = us[3], us[1], us[2]
    try:
        return date(int(parts[0]), int(parts[1]), int(parts[2])) if parts is not None else None
    except ValueError:
        return None


def _fired_at(value: object) -> int | None:
    """A moment; ``None`` where it cannot be read, for it only says whether an alert comes too late."""
    try:
        at = moment(value) if isinstance(value, str) and len(value) <= 64 else 0
    except ValueError:
        return None
    return at if at > 0 else None


def period_end(start: date | None, period: str, now_nanos: int) -> int:
    """When the period of a budget ends that ``now_nanos`` lies in: midnight UTC, in nanoseconds since 1970.

    Periods follow each other from ``start`` on, or from the first of January; a day that a month lacks is its last.
    """
    today = datetime.fromtimestamp(now_nanos // NANOS_PER_SECOND, UTC).date()
    start = start or date(today.year, 1, 1)
    months = _MONTHS[period]
    count = (12 * (today.year - start.year) + today.month - start.month) // months
    end = _months_after(start, count * months)
    while end <= today:
        count += 1
        end = _months_after(start, count * months)
    return int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) * NANOS_PER_SECOND


def _months_after(start: date, months: int) -> date:
    index = 12 * start.year + start.month - 1 + months
    year, month = divmod(index, 12)
    following = date(year + (month == 11), (month + 1) % 12 + 1, 1)
    last = (following - date(year, month + 1, 1)).days
    return date(year, month + 1, min(start.day, last))


# -- what it does ------------------------------------------------------------------------------------------------------


def rule_for(hook: AzureBudget, alert: BudgetAlert) -> AzureBudgetRule | None:
    """The gravest rule that an alert reaches; ``None`` where it reaches none."""
    reached = [rule for rule in hook.rules if rule.basis == alert.basis and alert.percent >= rule.at_percent]
    return max(reached, key=lambda rule: _DEEDS.index(rule.do), default=None) if alert.fired else None


def _is_late(hook: AzureBudget, alert: BudgetAlert, now: int) -> bool:
    """Whether an alert tells of a period that has ended: what it would stop has begun anew since."""
    if hook.lift != "period" or alert.fired_at is None or alert.fired_at >= now:
        return False
    return period_end(alert.start, hook.period, alert.fired_at) <= now


def stop_id(product: Row) -> str:
    """The id of the limit that stops a product, the same each time: what stopped it before is found by it."""
    return "lim_" + str(product["id"]).partition("_")[2]


def stop_of(console: Console, product: Row) -> Row | None:
    """The limit that stops or throttles a product at this moment, by an alert."""
    row = console.books.get("limit", stop_id(product))
    if row is None or row["source"] != SOURCE:
        return None
    until = terms_of(row).until
    return None if until and until <= console.clock.wall_nanos() else row


def act(console: Console, alert: BudgetAlert) -> Outcome:
    """Do what the rules say of an alert, once. For threads that hold ``Console.changing``.

    Raises:
        NotFound: no product is called like the budget.
        ApiProblem: products of several organizations are.
    """
    hook = console.azure_budget
    assert hook is not None
    product = _product(console, alert.budget)
    rule = rule_for(hook, alert)
    if alert.id.startswith(_FLAT):
        # It may say the very same in the next period, and means that one then.
        end = period_end(alert.start, hook.period, console.clock.wall_nanos())
        alert = alert._replace(id=f"{alert.id};{end // NANOS_PER_SECOND}")
    if rule is None:
        log.info("budget_alert_ignored", extra={"product": product["id"], "percent": _percent(alert)})
        return Outcome("ignored", product)
    if rule.do == "notify":
        return Outcome("notified" if _tell(console, alert, rule, product, None) else "repeated", product)
    limit_id = stop_id(product)
    if limit_entries.found(console, limit_id, alert.id) is not None:
        limit = stop_of(console, product)
        if limit is not None:
            # The process may have ended before anybody was told.
            _tell(console, alert, rule, product, limit)
        return Outcome("repeated", product, limit)
    if _is_late(hook, alert, console.clock.wall_nanos()):
        log.warning("budget_alert_late", extra={"product": product["id"], "percent": _percent(alert)})
        return Outcome("ignored", product)
    before = console.books.get("limit", limit_id)
    standing = stop_of(console, product)
    if standing is not None and rule.do == "throttle" and standing["amount"] == 0:
        # What is stopped already is not let go by a milder alert.
        return Outcome("ignored", product, standing)
    row = _limit(console, hook, alert, rule, product, before)
    told = limit_entries.entry(
        console, before, row, "stop", terms_of(row).reason, amount=row["amount"], reference=alert.id
    )
    limit_entries.write(console, before, row, entries=[told])
    _tell(console, alert, rule, product, row)
    log.warning("budget_alert_acted", extra={"product": product["id"], "done": _DONE[rule.do], "limit": row["id"]})
    return Outcome(_DONE[rule.do], product, row)


def _product(console: Console, budget: str) -> Row:
    rows = console.books.listing("product", name=budget[:_TEXT_CHARACTERS_MAX], limit=2)
    if not rows:
        log.warning("budget_alert_unknown", extra={"budget": budget[:64]})
        raise NotFound("no product is called like this budget")
    if len(rows) > 1:
        log.warning("budget_alert_ambiguous", extra={"budget": budget[:64]})
        raise ApiProblem("conflict", "products of several organizations are called like this budget; rename one")
    return rows[0]


def _percent(alert: BudgetAlert) -> str:
    """The share with at most one decimal, cut off."""
    tenths = alert.percent.numerator * 10 // alert.percent.denominator
    return f"{tenths // 10}.{tenths % 10}".removesuffix(".0")


def _reason(alert: BudgetAlert, product: Row) -> str:
    told = "is expected to reach" if alert.basis == "forecast" else "has reached"
    return f"Azure budget {product['name']} {told} its threshold of {_percent(alert)} percent"


def _limit(
    console: Console, hook: AzureBudget, alert: BudgetAlert, rule: AzureBudgetRule, product: Row, before: Row | None
) -> Row:
    now = console.clock.wall_nanos()
    until = period_end(alert.start, hook.period, now) if hook.lift == "period" else 0
    stops = rule.do == "stop"
    return {
        "id": stop_id(product),
        "name": f"{SOURCE};{product['id']}",
        "selector": {"organization": product["organization"], "product": product["name"]},
        "each": [],
        "unit": "requests",
        "amount": 0 if stops else rule.requests_per_minute,
        "window": "lifetime" if stops else "minute",
        "timezone": "UTC",
        "mode": "hard",
        "contact": "",
        "clamp": 0,
        "source": SOURCE,
        "terms": stored_terms(Terms(until=until, reason=_reason(alert, product))),
        "details": {"alert": alert.id},
        "created_at": before["created_at"] if before is not None else now,
        "updated_at": now,
    }


def _tell(console: Console, alert: BudgetAlert, rule: AzureBudgetRule, product: Row, limit: Row | None) -> bool:
    """Tell people, once for each alert; false where they were told already."""
    done = {"notify": "nothing was stopped", "throttle": "its calls are throttled", "stop": "its calls are stopped"}
    until = terms_of(limit).until if limit is not None else 0
    ends = f" until {time_text(until)}" if until else ""
    details = {"product": product["id"], "percent": _percent(alert), "done": _DONE[rule.do], "period_end": until}
    return raise_alert(
        console,
        kind="budget_stop",
        name=f"budget_stop;{product['id']};{alert.id}",
        severity=_SEVERITIES[rule.do],
        message=f"{_reason(alert, product)}: {done[rule.do]}{ends}",
        limit_id=limit["id"] if limit is not None else "",
        details=details,
    )


# -- routes ------------------------------------------------------------------------------------------------------------


async def take(request: Request) -> Outcome:
    """Act on the alert that a request brings.

    Raises:
        NotFound, ApiProblem: as ``read`` and ``act`` do, or the door is shut.
    """
    console = console_of(request)
    if console.azure_budget is None:
        raise ApiProblem("wh_off", "this webhook is not set up; set alerts.azure_budget in the configuration")
    body = await request.body()
    if not body:
        raise _wrong("the body is empty")
    alert = read(json.loads(body))
    return await locked(console, lambda: act(console, alert))


@hook.post(AZURE_BUDGET)
@open_to_all("its door has a secret of its own")
@answers(shapes.BudgetAlert)
async def take_alert(request: Request) -> dict[str, Any]:
    """An alert of an Azure budget, in either of Azure's forms."""
    outcome = await take(request)
    answer = {
        "done": outcome.done,
        "product": outcome.product["name"],
        "limit": outcome.limit["id"] if outcome.limit is not None else None,
        "until": time_text(terms_of(outcome.limit).until) if outcome.limit is not None else None,
    }
    return await acted(console_of(request), answer)


class Lift(Body):
    """Why a product may go on."""

    reason: Sentence | None = None


@router.post("/products/{product_id}/lift")
@needs("budgets.write")
@answers(payer_shapes.Lifted)
async def lift_product(request: Request, product_id: str, wanted: Lift | None = None) -> dict[str, Any]:
    """Let a product go on that an alert from outside stopped or throttled; the same alert does not stop it again."""
    console = console_of(request)

    def alone() -> Row:
        product = console.books.get("product", product_id) if len(product_id) <= 64 else None
        if product is None:
            raise NotFound("there is no such product")
        row = stop_of(console, product)
        if row is None:
            raise NotFound("no alert stops or throttles this product")
        limit_entries.remove(console, row, (wanted.reason or "") if wanted is not None else "")
        return row

    row = await locked(console, alone)
    return await acted(console, {"product": product_id, "limit": row["id"], "lifted": True})
