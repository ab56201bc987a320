"""``/api/v1/services``: HTTP services behind the gate, beside those that the configuration file declares.

A service is written as in the file and judged by the same rules (``config/service_rules``); certificates and proxies
are the file's to name. Where it may be, and what becomes of its secret, is as with a provider (``console/providers``).
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field, SecretStr, ValidationError

from faregate.config.secret_box import service_place
from faregate.config.section import Section
from faregate.config.service_rules import Surroundings, check_service
from faregate.config.services import (
    Connections,
    Headers,
    LargestBody,
    Methods,
    Paths,
    PlainService,
    ServicePrice,
    rule_as_sent,
    rule_in_full,
    service_of,
)
from faregate.config.values import Duration, Flag, Header, Text
from faregate.console import declared
from faregate.console.declared import found, listed, own, refuse_twin, source_of
from faregate.console.describing import answers, choice, lists, text
from faregate.console.leading import refuse_faults, secrets_in
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.provider_rules import SECRET_CHARACTERS_MAX, URL_CHARACTERS_MAX, Wanted, check_secret, reach_of
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.sealing import secret_columns
from faregate.console.shapes import services as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import or_left_out, or_none, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.dialects.operations import BY_NAME
from faregate.errors import Conflict
from faregate.ports import Row

router = APIRouter(prefix="/services", tags=["services"])

#: What ``null`` takes back to as it is without a word: no credential, and no bound of its own.
_MAY_BE_NULL: Final = frozenset({"api_key", "max_request_bytes", "max_answer_bytes"})

#: What decides how far connections may lead.
_WHERE: Final = frozenset({"base_url", "allow_http", "allow_private"})

#: As they were sent: ``provider_rules`` tell what is wrong with them.
Address = Annotated[Text, Field(max_length=URL_CHARACTERS_MAX)]
SentSecret = Annotated[SecretStr, Field(max_length=SECRET_CHARACTERS_MAX)]


class NewService(PlainService):
    """A service to be made, in the form of the configuration."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY | {"state", "reach"}

    base_url: Address
    #: Its secret, of which answers show a mask.
    api_key: SentSecret | None = None


class ServiceChange(Section):
    """What may be changed of a service; what is sent takes the place of all that was there under its name."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY | {"name", "reach"}

    #: Another one wants the secret again.
    base_url: Address | None = or_left_out()
    #: Its secret, of which answers show a mask; ``null`` for none.
    api_key: SentSecret | None = None
    api_key_header: Header | None = or_left_out()
    methods: Methods | None = or_left_out()
    #: Beginnings of the paths that callers may use; an empty list is all.
    paths: Paths | None = or_left_out()
    headers: Headers | None = or_left_out()
    #: All of its price.
    price: ServicePrice | None = or_left_out()
    max_duration: Duration | None = or_left_out()
    #: ``null`` for the gateway's own.
    max_request_bytes: LargestBody | None = None
    #: ``null`` for none.
    max_answer_bytes: LargestBody | None = None
    bill_errors: Flag | None = or_left_out()
    connect_timeout: Duration | None = or_left_out()
    #: Plain http: to this machine, or with ``allow_private`` to a private address.
    allow_http: Flag | None = or_left_out()
    allow_private: Flag | None = or_left_out()
    connections_max: Connections | None = or_left_out()
    state: Literal["active", "disabled"] | None = or_left_out()


def shape(row: Row) -> dict[str, Any]:
    """A service as the API shows it; of its secret only where it begins and ends."""
    return {
        "id": row["id"],
        "name": row["name"],
        "base_url": row["base_url"],
        "api_key": or_none(row["masked"]),
        **rule_in_full(service_of(row["name"], row["base_url"], row["rule"])),
        "state": row["state"],
        "source": source_of(row),
        "created_at": time_text(row.get("created_at")),
        "updated_at": time_text(row.get("updated_at")),
    }


async def _reach_of(base_url: str, rule: dict[str, Any]) -> str:
    """How far connections to it may lead.

    Raises:
        ApiProblem: url_forbidden: it leads where nothing of ours may be.
    """
    return await reach_of(Wanted(base_url, rule.get("allow_http", False), rule.get("allow_private", False)))


def _check(console: Console, row: Row, secret: str) -> None:
    """Refuse what no configuration file could say; ``secret`` may be sealed. Names are ``refuse_twin``'s to judge.

    Raises:
        ApiProblem: with each field that is at fault.
    """
    try:
        service = service_of(row["name"], row["base_url"], row["rule"], secret)
    except ValidationError:  # Each field was read before; only the address has a form of its own in the file.
        rule = "expected an address such as https://ocr.example.com/v1"
        raise ApiProblem("url_forbidden", rule, field="base_url") from None
    facts = console.facts
    around = Surroundings({}, facts.listeners, facts.body_bytes_max, at_home=row["reach"] == "loopback")
    refuse_faults(check_service(service, (), around))


def _refuse_taken(console: Console, name: str) -> None:
    """Refuse the name of an operation, which keys and limits that name it would mean as well, or of a model on offer.

    Raises:
        ApiProblem: conflict.
    """
    if name in BY_NAME:
        rule = "this is the name of an operation: keys and limits that name it would mean both; choose another name"
        raise ApiProblem("conflict", rule, field="name")
    if any(route.model == name for route in compiled(console).routes):
        raise ApiProblem("conflict", "a model of this name is offered; choose another name", field="name")


def _secret_of(wanted: NewService | ServiceChange) -> str:
    """The secret that was sent, empty for none.

    Raises:
        ApiProblem: field_range, or url_forbidden for a reference.
    """
    if wanted.api_key is None:
        return ""
    secret = wanted.api_key.get_secret_value()
    check_secret(secret)
    return secret


def _refuse_secrets(base_url: str, rule: dict[str, Any]) -> None:
    """Refuse a key's secret where it would be shown and kept, before anybody is asked for a name that holds it."""
    refuse_faults(secrets_in({"base_url": base_url, **rule}))


async def create(console: Console, wanted: NewService) -> Row:
    """Make a service.

    Raises:
        ApiProblem: its name is taken, or it cannot be as it was sent.
        Conflict: there are too many.
    """
    base_url, rule, secret = wanted.base_url.rstrip("/"), rule_as_sent(wanted), _secret_of(wanted)
    _refuse_secrets(base_url, rule)
    row: Row = {
        "id": console.new_id("svc_"),
        "name": wanted.name,
        "base_url": base_url,
        "state": "active",
        "reach": await _reach_of(base_url, rule),
        "rule": rule,
        "details": {},
    }
    _check(console, row, secret)

    def make() -> Row:
        refuse_twin(console, "service", wanted.name)
        _refuse_taken(console, wanted.name)
        now = console.clock.wall_nanos()
        columns = secret_columns(console.box, secret, service_place(row["id"], base_url), None, now)
        made = row | columns | {"created_at": now, "updated_at": now}
        put_row(console, "service", made)
        return made

    return await locked(console, make)


async def change(
    console: Console, service: str, wanted: ServiceChange, unchanged: Callable[[], None] | None = None
) -> Row:
    """Change what was sent; ``unchanged`` looks first whether it may be.

    Raises:
        NotFound: no such service.
        Conflict: the configuration file declares it, or somebody else changed it meanwhile.
        ApiProblem: it cannot be as it would be then, or has another address without its secret.
    """
    sent = wanted.model_dump(mode="json", exclude_unset=True, exclude={"api_key"})
    for name in sorted(sent.keys() - _MAY_BE_NULL):
        if sent[name] is None:
            raise ApiProblem("field_range", "must not be null; leave it out instead", field=name)
    before = await in_thread(lambda: own(console, "service", service))
    is_judged_anew = not _WHERE.isdisjoint(sent)
    base_url = sent.pop("base_url", before["base_url"]).rstrip("/")
    is_new = "api_key" in wanted.model_fields_set
    secret = _secret_of(wanted) if is_new else before["secret"]
    if secret and not is_new and base_url != before["base_url"]:
        rule = "the stored secret belongs to the address that it was stored for; send api_key again with the new one"
        raise ApiProblem("invariant", rule, field="base_url")
    row = {**before, "base_url": base_url, "state": sent.pop("state", before["state"])}
    row["rule"] = {name: value for name, value in (before["rule"] | sent).items() if value is not None}
    _refuse_secrets(base_url, row["rule"])
    if is_judged_anew:
        row["reach"] = await _reach_of(base_url, row["rule"])
    _check(console, row, secret)

    def make() -> Row:
        if own(console, "service", before["id"]) != before:
            # Its address and secret were judged together with what is gone.
            raise Conflict("the service was changed at the same time; look at it and try again")
        now = console.clock.wall_nanos()
        made = row | {"updated_at": now}
        if is_new:
            place = service_place(row["id"], base_url)
            made |= secret_columns(console.box, secret, place, row["details"], now)
        put_row(console, "service", made)
        return made

    return await locked(console, make, unchanged)


def delete(console: Console, service: str) -> Row:
    """Remove a service. Nothing keeps it: no name and no pool leads to a service.

    Limits, prices and keys that are restricted to it name it, as they name what is yet to be made; a service that is
    made under that name again is theirs.

    Raises:
        NotFound: no such service.
        Conflict: the configuration file declares it.
    """
    row = own(console, "service", service)
    remove_row(console, "service", row["id"])
    return row


@router.get("")
@needs("providers.read")
@lists(text("name", "Its name."), choice("state", ("active", "disabled"), "Whether it takes calls."))
@answers(shapes.Services)
async def list_services(request: Request) -> dict[str, Any]:
    """Services, those of the configuration file first; filters: ``name``, ``state``."""
    return await listed(request, "service", shape)


@router.post("", status_code=201)
@needs("providers.write")
@answers(shapes.Service)
async def create_service(request: Request, wanted: NewService) -> dict[str, Any]:
    """Make a service; it takes calls within a second."""
    console = console_of(request)
    return await acted(console, shape(await create(console, wanted)))


@router.get("/{service}")
@needs("providers.read")
@answers(shapes.Service, versioned=True)
async def read_service(request: Request, service: str) -> dict[str, Any]:
    """One service by its id or name, its secret masked."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: found(console, "service", service))))


@router.patch("/{service}")
@needs("providers.write")
@answers(shapes.Service, versioned=True)
async def change_service(request: Request, service: str, wanted: ServiceChange) -> dict[str, Any]:
    """Change a service, or let it rest; another ``base_url`` wants ``api_key`` with it."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "service", service))
    return await acted(console, shape(versioned(request, await change(console, service, wanted, unchanged))))


@router.delete("/{service}")
@needs("providers.write")
@answers(Removed, versioned=True)
async def delete_service(request: Request, service: str) -> dict[str, Any]:
    """Remove a service; calls that run end as they would."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "service", service))
    row = await locked(console, lambda: delete(console, service), unchanged)
    return await acted(console, {"id": row["id"], "name": row["name"], "deleted": True})
