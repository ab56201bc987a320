"""``/api/Quota``: the interface of a quota service that Faregate takes the place of, with its mistakes repaired.

Paths, names and shapes are that service's, so that scripts and gateway policies go on as they are: answers are indented
JSON, amounts are texts, a change answers ``true``. What it did wrong is not copied: a deposit adds, an unknown key is a
404, a cost is never negative, events are not tokens, no model has a default price, and no answer holds a key's secret.
"""

import hmac
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field, model_validator

from faregate.console import azure_budget, outside_usage, quotas
from faregate.console.allowances import limit_views
from faregate.console.catching_up import caught_up
from faregate.console.describing import PAGE_MAX, Parameter, answers, asks, text, time
from faregate.console.paging import read_moment, single_values
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, Body, Name, Sentence
from faregate.console.writing import acted, console_of, locked
from faregate.control import Report
from faregate.core import keys
from faregate.core.ulid import UlidSource
from faregate.errors import Unavailable
from faregate.ports import Row

PREFIX: Final = "/api/Quota"

#: For so many days a repeated ``requestId`` is known to be one.
REPEATED_DAYS: Final = 7
_DAY_NANOS: Final = 86_400 * NANOS_PER_SECOND


class IndentedJson(JSONResponse):
    """JSON as the service wrote it."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, indent=2, ensure_ascii=False).encode()


class QuotaRoute(APIRoute):
    """A route of this interface: what is wrong with a field is a 400 here."""

    fields_status: Final = 400


router = APIRouter(prefix=PREFIX, tags=["quota"], route_class=QuotaRoute, default_response_class=IndentedJson)


class _AnyCase(Body):
    """A body whose names may be written in any case, as the service read them."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        names = {str(field.alias or name).lower(): str(field.alias or name) for name, field in cls.model_fields.items()}
        found = {names.get(str(name).lower(), name): each for name, each in value.items()}
        # Two spellings of one name are left as they are, and refused.
        return found if len(found) == len(value) else value


class NewQuota(_AnyCase):
    """A quota to be made, or a deposit."""

    subscription_key: str = Field(alias="subscriptionKey", min_length=1, max_length=256)
    product_name: Name = Field(alias="productName")
    #: Dollars as a decimal text, or whole tokens.
    amount: str = Field(min_length=1, max_length=32)
    #: Dollars, or tokens; ``null`` leaves it as it is.
    rate_limit_on_cost: bool | None = Field(default=None, alias="rateLimitOnCost")
    #: How often it starts anew; ``null`` leaves it as it is, and a new one never does.
    renewal: Literal["lifetime", "day", "week", "month", "quarter", "year"] | None = None
    #: The same request is carried out once.
    request_id: Sentence | None = Field(default=None, alias="requestId")


def _no_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


class Update(_AnyCase):
    """A call that went past the gate."""

    subscription_key: str = Field(alias="subscriptionKey", min_length=1, max_length=256)
    #: The request's body, its messages, or the text of one; needed where the answer reports no usage.
    prompt: str | list[Any] | dict[str, Any] | None = None
    #: The answer as it came: JSON, or the text of a stream.
    response_body: Annotated[str, AfterValidator(_no_empty)] = Field(alias="responseBody")
    #: The same call is booked once.
    request_id: Sentence | None = Field(default=None, alias="requestId")
    #: Which deployment answered, where its model alone does not tell what it costs.
    deployment: str | None = Field(default=None, max_length=256)


#: The credential, where it does not come in a header: the door has looked at it.
CODE_ASKED: Final = text("code", "The secret of a key, as the service took it; better in a header.")
_LIMIT_ASKED: Final = Parameter(
    "limit",
    f"How many rows at most; {PAGE_MAX} where it is not given.",
    schema={"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_MAX},
)


# -- what is asked -----------------------------------------------------------------------------------------------------


@router.post("/")
@needs("quotas.write")
@answers(bool, refusals=(404,))
async def create_quota(request: Request, wanted: NewQuota) -> bool:
    """Make a quota for a key, or deposit to the one that it has; another `rateLimitOnCost` or `renewal` replaces it."""
    console = console_of(request)
    asked = quotas.Wanted(
        wanted.subscription_key,
        wanted.product_name,
        wanted.amount,
        wanted.rate_limit_on_cost,
        wanted.renewal,
        wanted.request_id or "",
    )
    await _all_booked(console)
    await locked(console, lambda: quotas.fund(console, asked))
    await acted(console, {})
    return True


router.add_api_route("", create_quota, methods=["POST"], include_in_schema=False)


async def _all_booked(console: Console) -> None:
    """Wait until every call that has ended is in the books: they tell what a key used before its quota.

    Raises:
        Unavailable: they do not follow the gate, and the quota would be charged for what came before it.
    """
    gate = console.gate
    if gate is None or not gate.connected:
        return
    position = (await gate.figures()).position
    if await caught_up(console, position) < position:
        raise Unavailable("the books are behind the gateway, so what this key used is not known yet; send it again")


@router.post("/Update")
@needs("quotas.write")
@answers(bool, refusals=(404,))
async def report_call(request: Request, wanted: Update) -> bool:
    """Book a call that went past the gateway, by the usage that its answer reports, or by our own count."""
    console = console_of(request)
    gate = console.gate
    if gate is None:
        raise Unavailable("no gateway runs here that could book a call")
    report = await in_thread(lambda: _report(console, wanted))
    if report is None:
        return True
    told = await gate.report(report)
    if told.refused:
        raise Unavailable(told.refused)
    if not told.same:
        raise ApiProblem("conflict", "this requestId booked another call; use a new one", field="requestId")
    return True


def _report(console: Console, wanted: Update) -> Report | None:
    """The call as the gate books it; ``None`` for an error of the provider's, which used nothing."""
    key = quotas.caller_key(console, wanted.subscription_key)
    heard = outside_usage.hear(wanted.response_body)
    if heard.failed:
        return None
    catalogue = compiled(console)
    said = heard.metered.report
    place = outside_usage.place_of(catalogue, heard.model, wanted.deployment or "")
    prompt = wanted.prompt
    if prompt is not None and not isinstance(prompt, str):
        prompt = json.dumps(prompt, ensure_ascii=False)
    usage, source = outside_usage.used(heard, prompt, place, console.tokenizer)
    who = outside_usage.attributed(key, place)
    now = console.clock.wall_nanos()
    charged = outside_usage.charged(catalogue, place, who, heard, usage, source, now)
    id, also = _ids(console, key["id"], wanted.request_id or "", now)
    return Report(
        id=id,
        who=who,
        usage=usage,
        usage_source=source,
        cost=charged.cost,
        charge=charged.charge,
        price_version=charged.price_version,
        charge_rule=charged.charge_rule,
        answered_model=heard.model,
        provider_request_id=said.id,
        stream=heard.stream,
        reference=wanted.request_id or "",
        unpriced=charged.unpriced,
        also=also,
    )


def _ids(console: Console, key_id: str, request_id: str, now: int) -> tuple[str, tuple[str, ...]]:
    """The id of a call, and those that it has where it was reported on a day before.

    It follows from what the reporter calls the call and from the day, so that ids still sort by their time.
    """
    if not request_id:
        return console.new_id("req_"), ()
    mark = hmac.digest(console.secrets.session, f"reported\0{key_id}\0{request_id}".encode(), "sha256")
    days = [now - now % _DAY_NANOS - back * _DAY_NANOS for back in range(REPEATED_DAYS + 1)]
    ids = [_id_of(day, mark) for day in days]
    return ids[0], tuple(ids[1:])


def _id_of(day: int, mark: bytes) -> str:
    return UlidSource("req_", lambda: day, lambda count: mark[:count])()


@router.post("/Budget")
@needs("budgets.write")
@answers(bool, refusals=(404,))
async def take_budget_alert(request: Request) -> bool:
    """The same as `POST /webhooks/azure-budget`; the webhook's secret opens it, too."""
    await azure_budget.take(request)
    await acted(console_of(request), {})
    return True


@router.get("/")
@needs("quotas.read")
@asks(_LIMIT_ASKED, text("after", "Id of the key behind which the list goes on."), CODE_ASKED)
@answers(list[shapes.QuotaOverview])
async def list_quotas(request: Request) -> list[dict[str, Any]]:
    """All quotas, each with what was used and what is left; the first thousand, and those after the key id `after`."""
    console = console_of(request)
    values = single_values(request)
    limit = _limit(values)

    def look() -> tuple[list[Row], dict[str, Row], dict[str, Row], dict[str, Row]]:
        rows = sorted(every(console.books, "limit", source=quotas.SOURCE), key=lambda row: str(row["selector"]["key"]))
        rows = [row for row in rows if row["selector"]["key"] > values.get("after", "")][:limit]
        found = console.books.get_all("key", [row["selector"]["key"] for row in rows])
        rows = [row for row in rows if row["selector"]["key"] in found]
        usage = console.books.usage(("key",), 0, 0, key=list(found)) if found else []
        return rows, found, {row["key"]: row for row in usage}, quotas.stops(console, found.values())

    rows, found, usage, stops = await in_thread(look)
    standing = await limit_views(console, rows)
    shown = []
    for row in rows:
        key = found[row["selector"]["key"]]
        shown.append(quotas.overview(row, key, standing[row["id"]], stops.get(key["id"]), usage.get(key["id"])))
    return shown


router.add_api_route("", list_quotas, methods=["GET"], include_in_schema=False)


@router.get("/{key_id}")
@needs("quotas.read")
@asks(CODE_ASKED)
@answers(shapes.Quota)
async def read_quota(request: Request, key_id: str) -> dict[str, Any]:
    """What is left of a key's quota."""
    console = console_of(request)
    single_values(request)
    _no_secret(key_id)

    def look() -> tuple[Row, Row, Row | None]:
        key, row = quotas.named(console, key_id)
        return key, row, quotas.stopped(console, key)

    key, row, stop = await in_thread(look)
    standing = await limit_views(console, [row])
    return quotas.shape(row, key, standing[row["id"]], stop)


@router.get("/{key_id}/history")
@needs("quotas.read")
@asks(_LIMIT_ASKED, time("until", "Before this time."), CODE_ASKED)
@answers(list[shapes.QuotaTransaction])
async def read_history(request: Request, key_id: str) -> list[dict[str, Any]]:
    """What changed a key's quota and what its calls took off it, newest first, at most `limit`, before `until`."""
    console = console_of(request)
    values = single_values(request)
    _no_secret(key_id)
    limit = _limit(values)
    until = read_moment("until", values["until"]) or 1 if "until" in values else 0

    def look() -> tuple[Row, Row, list[quotas.Transaction]]:
        key, row = quotas.named(console, key_id)
        return key, row, quotas.transactions(console, key, row, limit, until)

    key, row, found = await in_thread(look)
    standing = (await limit_views(console, [row]))[row["id"]]
    # Only from the newest row on is it known what was left.
    balance = None if until else quotas.balance_of(row, standing)
    return quotas.history(found, key, row, balance)


def _limit(values: Mapping[str, str]) -> int:
    text = values.get("limit", str(PAGE_MAX))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= PAGE_MAX):
        raise ApiProblem("page_invalid", f"expected a whole number from 1 to {PAGE_MAX}", field="limit")
    return int(text)


def _no_secret(key_id: str) -> None:
    """Refuse a secret in a path: paths are written into the logs of whatever passes them on."""
    if key_id.startswith(keys.PREFIX):
        rule = "a key's secret does not belong in a path, which is logged on its way; send the key's id, and rotate it"
        raise ApiProblem("field_forbidden", rule, field="keyId")
