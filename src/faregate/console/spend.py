"""``/``: one read-only page of this month's spend, and the door to it. Server-rendered; works without scripts.

A key is exchanged for an opaque session id in a cookie; the page shows what its holder may see. It changes nothing, so
its only forms are the ones that sign in and out.
"""

from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from faregate.console import health, usage
from faregate.console.accounts import Refusal
from faregate.console.allowances import limit_views
from faregate.console.doors import SESSION, TRUSTED, by_https, cookie_name
from faregate.console.limits import shape as limit_shape
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.requests import shape as request_shape
from faregate.console.rights import open_to_all
from faregate.console.sessions import Session, csrf_holds
from faregate.console.state import Console
from faregate.console.texts import second_text, time_text
from faregate.console.writing import console_of
from faregate.core import money
from faregate.ports import Row

router = APIRouter(include_in_schema=False)

LIMITS_SHOWN: Final = 50
REQUESTS_SHOWN: Final = 25
SPEND_ROWS_SHOWN: Final = 100
#: Ids begin with their time, and so end in what differs.
ID_CHARACTERS_SHOWN: Final = 10

_HERE: Final = Path(__file__).parent
_FORM_BYTES_MAX: Final = 4_096

_pages: Final = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def _page(name: str, status: int = 200, **facts: Any) -> Response:
    return HTMLResponse(_pages.get_template(name).render(**facts), status)


def _session(request: Request) -> tuple[str, Session] | None:
    found: tuple[str, Session] | None = request.scope[SESSION]
    return found


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form.

    Raises:
        ApiProblem: it is no form, or a large one.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if media != "application/x-www-form-urlencoded":
        raise ApiProblem("media_unsupported", "send the form as a browser does")
    if len(body) > _FORM_BYTES_MAX:
        raise ApiProblem("body_too_large", f"this form has at most {_FORM_BYTES_MAX} bytes")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=8, keep_blank_values=True)
    except ValueError as problem:
        raise ApiProblem("field_type", "the form could not be read") from problem
    return {name: values[0] for name, values in fields.items()}


def _same_origin(request: Request) -> bool:
    """Whether a form was sent by a page of ours; old browsers that send no Origin still need the token or the key."""
    origin = request.headers.get("origin")
    if origin is None:
        return True
    # ``null`` has no host: it must not equal the empty one of a request without any.
    host = origin.partition("://")[2]
    return host != "" and host == request.headers.get("host", "")


def _bar(shown: dict[str, Any]) -> int:
    """How much of a limit is used, in whole percent of 0 to 100."""
    if shown["unit"] == "usd":
        amount, used = (
            money.nanos(shown["amount_now"]),
            money.nanos(shown["posted"], signed=True) + money.nanos(shown["held"]),
        )
    else:
        amount, used = shown["amount_now"], shown["posted"] + shown["held"]
    return 100 if amount == 0 else max(0, min(100, used * 100 // amount))


def _line(row: Row) -> dict[str, Any]:
    """A record as the page shows it: its time to the second, and of its id what tells it from its neighbours."""
    request_id = str(row["id"])
    kept = request_id if len(request_id) <= ID_CHARACTERS_SHOWN else f"…{request_id[-ID_CHARACTERS_SHOWN:]}"
    return {**request_shape(row), "created_at": second_text(row["created_at"]), "short_id": kept}


async def _facts(console: Console) -> dict[str, Any]:
    """Everything the page shows."""
    now = console.clock.wall_nanos()
    since = usage.month_start(now)
    rows = await in_thread(lambda: usage.sums(console, ["team", "model"], since, 0, "", {}))
    rows.sort(key=lambda row: -money.nanos(row["charge"], signed=True))
    total = money.dollars(sum(money.nanos(row["charge"], signed=True) for row in rows))
    limit_rows = await in_thread(lambda: console.books.listing("limit", limit=LIMITS_SHOWN))
    standing = await limit_views(console, limit_rows)
    limits = [limit_shape(row, standing[row["id"]], 0) for row in limit_rows]
    for each in limits:
        # Subjects of an each-limit have a bar of their own, which one line cannot show.
        each["percent"] = None if each["amount_now"] is None or each["each"] else _bar(each)
    records = await in_thread(lambda: console.books.requests(limit=REQUESTS_SHOWN))
    return {
        "now": second_text(now),
        "version": console.facts.version,
        "since": time_text(since),
        "total": total,
        "rows": rows[:SPEND_ROWS_SHOWN],
        "rows_hidden": max(0, len(rows) - SPEND_ROWS_SHOWN),
        "limits": limits,
        "records": [_line(row) for row in records],
        "health": await health.detail(console) if console.principal.may("installation.read") else None,
    }


@router.get("/")
@router.head("/")
@open_to_all("without a session it is the form to sign in")
async def view(request: Request) -> Response:
    """The spend of this month, or the form that asks for the key."""
    console = console_of(request)
    session = _session(request)
    if session is None and request.scope.get(TRUSTED) is not True:
        return _page("login.html", fault="")
    if not console.principal.may("usage.read"):
        raise ApiProblem("role_forbidden", f"the role {console.principal.role} sees no usage")
    csrf = session[1].csrf if session is not None else ""
    return _page("spend.html", csrf=csrf, **await _facts(console))


@router.post("/login")
@open_to_all("the key in the form is what is asked for")
async def login(request: Request) -> Response:
    """Exchange a key that opens the console for a session; every sign-in gets a new id."""
    console = console_of(request)
    if not _same_origin(request):
        raise ApiProblem("csrf_failed", "this form was sent by another site")
    secret = (await _form(request)).get("key", "").strip()
    found = await in_thread(lambda: console.ring.signing_in(secret, console.clock.wall_nanos()), console.at_once.submit)
    if isinstance(found, Refusal):
        # One text for every reason: this page tells a stranger nothing about keys.
        return _page("login.html", 401, fault="This is not a key that works here.")
    before = _session(request)
    if before is not None:
        console.sessions.end(before[0])
    principal, digest = found
    session_id, _ = console.sessions.begin(principal.id, digest, console.clock.monotonic_nanos())
    answer = RedirectResponse("/", 303)
    https = by_https(request.scope, console)
    answer.set_cookie(cookie_name(https=https), session_id, httponly=True, samesite="lax", secure=https, path="/")
    return answer


@router.post("/logout")
@open_to_all("it ends the session that it comes with")
async def logout(request: Request) -> Response:
    """End the session."""
    console = console_of(request)
    session = _session(request)
    if session is None:
        return RedirectResponse("/", 303)
    if not _same_origin(request) or not csrf_holds(session[1], (await _form(request)).get("csrf", "")):
        raise ApiProblem("csrf_failed", "this form was not sent by this page")
    console.sessions.end(session[0])
    answer = RedirectResponse("/", 303)
    https = by_https(request.scope, console)
    answer.delete_cookie(cookie_name(https=https), path="/", secure=https, httponly=True, samesite="lax")
    return answer


@router.get("/static/spend.css")
@open_to_all("the style of the page")
async def style() -> Response:
    """The page's own style."""
    return Response((_HERE / "static" / "spend.css").read_bytes(), media_type="text/css")
