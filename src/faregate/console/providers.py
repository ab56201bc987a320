"""``/api/v1/providers``: accounts at model services, beside those that the configuration file declares.

A secret goes in and never comes out: it is sealed before it is stored, bound to its provider and its host, and shown as
a mask. It is sent to that host alone, so another address wants the secret again.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.config.schema import BASE_URLS
from faregate.config.secret_box import provider_place
from faregate.console.declared import NAMES, found, listed, own, refuse_twin, source_of
from faregate.console.describing import answers, choice, lists, text
from faregate.console.leading import leading_to, refuse_users
from faregate.console.problems import ApiProblem
from faregate.console.provider_rules import SECRET_CHARACTERS_MAX, URL_CHARACTERS_MAX, Wanted, check_secret, reach_of
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.sealing import secret_columns
from faregate.console.shapes import care as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import Body, or_none, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.control import Provider
from faregate.errors import Conflict, Unavailable
from faregate.ports import Row

router = APIRouter(prefix="/providers", tags=["providers"])

_READ_ONLY: Final = frozenset({"id", "created_at", "updated_at", "source", "credential", "reach"})

_DAY_MS: Final = 86_400_000
#: What holds where nothing is set, as the gate has it.
_USUAL: Final = Provider("", "", "", {})
_TIMEOUTS: Final = {
    "connect": _USUAL.connect_timeout_ms,
    "first_byte": _USUAL.first_byte_timeout_ms,
    "idle": _USUAL.idle_timeout_ms,
    "total": _USUAL.total_timeout_ms,
}

#: What may be set of a provider beside its columns, and what holds where it is not.
_SETTINGS: Final[dict[str, Any]] = {
    "client_gone": _USUAL.client_gone,
    "stream_usage": _USUAL.stream_usage,
    "lookup": _USUAL.lookup,
    "connections_max": _USUAL.connections_max,
    "allow_http": False,
    "allow_private": False,
}


class ProviderTimeouts(Body):
    """How long to wait for a provider, in milliseconds."""

    connect: int = Field(default=_TIMEOUTS["connect"], ge=1, le=_DAY_MS)
    first_byte: int = Field(default=_TIMEOUTS["first_byte"], ge=1, le=_DAY_MS)
    idle: int = Field(default=_TIMEOUTS["idle"], ge=1, le=_DAY_MS)
    total: int = Field(default=_TIMEOUTS["total"], ge=1, le=_DAY_MS)


class _Settings(Body):
    """What is the same of a new provider and of a change."""

    base_url: str | None = Field(default=None, max_length=URL_CHARACTERS_MAX)
    #: Its secret; answers show a mask of it.
    api_key: str | None = Field(default=None, max_length=SECRET_CHARACTERS_MAX)
    #: Azure's api-version.
    api_version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.-]{0,40}$")
    #: A call whose client went away: by default an almost whole answer is read, else estimated.
    client_gone: Literal["", "drain", "estimate", "no_bill"] | None = None
    stream_usage: bool | None = None
    #: Path that answers what became of a request id, with ``{id}`` for it.
    lookup: str | None = Field(default=None, max_length=1_024, pattern=r"^$|^/[!-~]*\{id\}[!-~]*$")
    timeouts: ProviderTimeouts | None = None
    connections_max: int | None = Field(default=None, ge=1, le=100_000)
    #: Plain http: to this machine, or with ``allow_private`` to a private address.
    allow_http: bool | None = None
    allow_private: bool | None = None


class NewProvider(_Settings):
    """A provider to be made."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"state"}

    name: str = Field(pattern=NAMES)
    kind: Literal["openai", "azure_openai", "anthropic", "gemini"]


class ProviderChange(_Settings):
    """What may be changed of a provider; another ``base_url`` wants the secret again."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"name", "kind"}

    state: Literal["active", "disabled"] | None = None


class ProviderTrial(Body):
    """Nothing: a trial goes to the stored address with the stored secret."""

    base_url: str | None = Field(default=None, max_length=URL_CHARACTERS_MAX)
    api_key: str | None = Field(default=None, max_length=SECRET_CHARACTERS_MAX)


def shape(row: Row) -> dict[str, Any]:
    """A provider as the API shows it; of its secret only where it begins and ends."""
    settings: dict[str, Any] = row["settings"] or {}
    return {
        "id": row["id"],
        "name": row["name"],
        "kind": row["kind"],
        "base_url": row["base_url"],
        "api_key": or_none(row["masked"]),
        "credential": or_none(settings.get("credential", "")),
        "api_version": or_none(row["api_version"]),
        "state": row["state"],
        **{name: settings.get(name, usual) for name, usual in _SETTINGS.items()},
        "timeouts": {**_TIMEOUTS, **settings.get("timeouts", {})},
        "source": source_of(row),
        "created_at": time_text(row.get("created_at")),
        "updated_at": time_text(row.get("updated_at")),
    }


def _settings_of(sent: dict[str, Any], before: dict[str, Any], reach: str) -> dict[str, Any]:
    """The settings after a change, without what is as usual."""
    settings = {**before, **{name: sent[name] for name in _SETTINGS if name in sent}, "reach": reach}
    if "timeouts" in sent:
        settings["timeouts"] = sent["timeouts"].model_dump()
    return {name: value for name, value in settings.items() if value != _SETTINGS.get(name)}


def _given(wanted: _Settings) -> dict[str, Any]:
    """The fields that were sent.

    Raises:
        ApiProblem: one of them is null.
    """
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set - {"name", "kind"}}
    for name, value in sent.items():
        if value is None:
            raise ApiProblem("field_range", "must not be null; leave it out instead", field=name)
    if "base_url" in sent:
        sent["base_url"] = sent["base_url"].rstrip("/")
    return sent


def _check_version(kind: str, version: str) -> None:
    if kind == "azure_openai" and not version:
        rule = 'Azure OpenAI wants an api-version, such as "2024-10-21"'
        raise ApiProblem("field_missing", rule, field="api_version")


async def create(console: Console, wanted: NewProvider) -> Row:
    """Make a provider.

    Raises:
        ApiProblem: its name is taken, or its address or secret cannot be.
        Conflict: there are too many.
    """
    sent = _given(wanted)
    base_url: str = sent.get("base_url") or BASE_URLS.get(wanted.kind, "")
    if not base_url:
        raise ApiProblem("field_missing", "this field is required for this kind", field="base_url")
    _check_version(wanted.kind, sent.get("api_version", ""))
    if "api_key" in sent:
        check_secret(sent["api_key"])
    reach = await reach_of(Wanted(base_url, sent.get("allow_http", False), sent.get("allow_private", False)))

    def make() -> Row:
        refuse_twin(console, "provider", wanted.name)
        now = console.clock.wall_nanos()
        row: Row = {
            "id": console.new_id("prv_"),
            "name": wanted.name,
            "kind": wanted.kind,
            "base_url": base_url,
            "secret": "",
            "masked": "",
            "api_version": sent.get("api_version", ""),
            "state": "active",
            "settings": _settings_of(sent, {}, reach),
            "details": {},
            "created_at": now,
            "updated_at": now,
        }
        if "api_key" in sent:
            row |= secret_columns(console.box, sent["api_key"], provider_place(row["id"], base_url), None, now)
        put_row(console, "provider", row)
        return row

    return await locked(console, make)


async def change(
    console: Console, provider: str, wanted: ProviderChange, unchanged: Callable[[], None] | None = None
) -> Row:
    """Change what was sent; ``unchanged`` looks first whether it may be.

    Raises:
        NotFound: no such provider.
        Conflict: the configuration file declares it.
        ApiProblem: a value that cannot be, or another address without the secret.
    """
    sent = _given(wanted)
    before = await in_thread(lambda: own(console, "provider", provider))
    settings: dict[str, Any] = before["settings"] or {}
    if "api_key" in sent:
        check_secret(sent["api_key"])
    base_url: str = sent.get("base_url") or before["base_url"]
    reach = settings.get("reach", "public")
    if sent.keys() & {"base_url", "allow_http", "allow_private"}:
        now = {**settings, **sent}
        reach = await reach_of(Wanted(base_url, bool(now.get("allow_http")), bool(now.get("allow_private"))))
    if base_url != before["base_url"] and before["secret"] and "api_key" not in sent:
        rule = "the stored secret belongs to the address that it was stored for; send api_key again with the new one"
        raise ApiProblem("invariant", rule, field="base_url")

    def make() -> Row:
        row = dict(own(console, "provider", before["id"]))
        if row != before:
            # Somebody else changed it meanwhile; its address and secret were judged together with what is gone.
            raise Conflict("the provider was changed at the same time; look at it and try again")
        row |= {name: sent[name] for name in ("base_url", "api_version", "state") if name in sent}
        _check_version(row["kind"], row["api_version"])
        row["settings"] = _settings_of(sent, row["settings"] or {}, reach)
        now = console.clock.wall_nanos()
        if "api_key" in sent:
            place = provider_place(row["id"], row["base_url"])
            row |= secret_columns(console.box, sent["api_key"], place, row["details"], now)
        row["updated_at"] = now
        put_row(console, "provider", row)
        return row

    return await locked(console, make, unchanged)


def delete(console: Console, provider: str) -> Row:
    """Remove a provider that nothing leads to.

    Raises:
        NotFound: no such provider.
        Conflict: the configuration file declares it, or something leads to it.
    """
    row = own(console, "provider", provider)
    name = row["name"]
    users = [f"deployment {each['name']}" for each in console.books.listing("deployment", provider=name, limit=10)]
    users += leading_to(console, lambda place: place.startswith(f"{name}/"))
    refuse_users("provider", users)
    remove_row(console, "provider", row["id"])
    return row


@router.get("")
@needs("providers.read")
@lists(
    text("name", "Its name."),
    choice("kind", ("openai", "azure_openai", "anthropic", "gemini"), "Whose API it speaks."),
    choice("state", ("active", "disabled"), "Whether it takes calls."),
)
@answers(shapes.Providers)
async def list_providers(request: Request) -> dict[str, Any]:
    """Providers, those of the configuration file first; filters: ``name``, ``kind``, ``state``."""
    return await listed(request, "provider", shape)


@router.post("", status_code=201)
@needs("providers.write")
@answers(shapes.Provider)
async def create_provider(request: Request, wanted: NewProvider) -> dict[str, Any]:
    """Make a provider; it takes calls within a second."""
    console = console_of(request)
    return await acted(console, shape(await create(console, wanted)))


@router.get("/{provider}")
@needs("providers.read")
@answers(shapes.Provider, versioned=True)
async def read_provider(request: Request, provider: str) -> dict[str, Any]:
    """One provider by its id or name, its secret masked."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: found(console, "provider", provider))))


@router.patch("/{provider}")
@needs("providers.write")
@answers(shapes.Provider, versioned=True)
async def change_provider(request: Request, provider: str, wanted: ProviderChange) -> dict[str, Any]:
    """Change a provider; another ``base_url`` wants ``api_key`` with it."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "provider", provider))
    return await acted(console, shape(versioned(request, await change(console, provider, wanted, unchanged))))


@router.delete("/{provider}")
@needs("providers.write")
@answers(Removed, versioned=True)
async def delete_provider(request: Request, provider: str) -> dict[str, Any]:
    """Remove a provider; calls that run end as they would."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "provider", provider))
    row = await locked(console, lambda: delete(console, provider), unchanged)
    return await acted(console, {"id": row["id"], "name": row["name"], "deleted": True})


@router.post("/{provider}/test")
@needs("providers.write")
@answers(shapes.TriedProvider)
async def try_provider(request: Request, provider: str, wanted: ProviderTrial | None = None) -> dict[str, Any]:
    """Ask a provider for its models, with its stored secret at its stored address; nothing is charged for that."""
    if wanted is not None and wanted.model_fields_set:
        field = min(wanted.model_fields_set)
        rule = "a trial goes to the stored address with the stored secret; change the provider first"
        raise ApiProblem("url_forbidden", rule, field=field)
    console = console_of(request)
    row = await in_thread(lambda: found(console, "provider", provider))
    if console.try_provider is None:
        raise Unavailable("nobody can ask providers here", hint="start the installation with `faregate serve`")
    tried = await console.try_provider(row["name"])
    return {"id": row["id"], "name": row["name"], **tried._asdict()}
