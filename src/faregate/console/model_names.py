"""``/api/v1/models``: names that callers may use and where they go, beside those of the configuration file."""

from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.config.leading import LED_MAX, places_of
from faregate.config.pool_rules import check_instead
from faregate.config.pools import Selected, instead_as_sent
from faregate.console import declared
from faregate.console.declared import all_of, found, known_places, listed, own, refuse_twin, source_of
from faregate.console.describing import answers, lists, text
from faregate.console.leading import refuse_faults, refuse_in_use, secrets_in
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import Body, Name, or_left_out, or_none, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.ports import Row

router = APIRouter(prefix="/models", tags=["models"])

#: Pools, deployments, ``{provider}/{model}`` or other models, in order.
Targets = Annotated[list[Name], Field(min_length=1, max_length=64)]
Tokens = Annotated[int, Field(ge=1, le=declared.TOKENS_MAX)]
#: As the configuration has it.
Elsewhere = Annotated[list[Selected], Field(max_length=64)]


class NewModel(Body):
    """A name that callers may use."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY

    name: Name
    to: Targets
    max_output_tokens: Tokens | None = None
    max_context_tokens: Tokens | None = None
    #: Where it leads for some callers; the first that fits one counts.
    instead: Elsewhere = Field(default_factory=list)


class ModelChange(Body):
    """What may be changed of a name."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY | {"name"}

    to: Targets | None = or_left_out()
    max_output_tokens: Tokens | None = None
    max_context_tokens: Tokens | None = None
    #: Where it leads for some callers; the first that fits one counts, and an empty list leads nobody elsewhere.
    instead: Elsewhere | None = or_left_out()


def shape(row: Row) -> dict[str, Any]:
    """A name as the API shows it."""
    return {
        "id": row["id"],
        "name": row["name"],
        "to": list(row["to"] or ()),
        "max_output_tokens": or_none(row["max_output_tokens"] or ""),
        "max_context_tokens": or_none(row["max_context_tokens"] or ""),
        "instead": list(row["instead"] or ()),
        "source": source_of(row),
        "created_at": time_text(row.get("created_at")),
        "updated_at": time_text(row.get("updated_at")),
    }


def _check_targets(console: Console, name: str, targets: list[str]) -> None:
    """Refuse a name that leads nowhere, round in a loop, or to more places than can be followed.

    Raises:
        ApiProblem: field_enum, field_conflict or field_range.
    """
    known = known_places(console)
    deployments, kinds = {*known.deployments, *known.pools}, known.providers
    models = {row["name"]: list(row["to"] or ()) for row in all_of(console, "model")} | {name: targets}
    for at, target in enumerate(targets):
        provider, slash, model = target.partition("/")
        if target in deployments or (target in models and target != name):
            continue
        if slash and model and provider in kinds and kinds[provider] != "azure_openai":
            continue
        rule = "leads nowhere; name a deployment, pool or model, or provider/model of a provider that is no Azure's"
        if target == name:
            raise ApiProblem("field_conflict", "a model cannot lead to itself", field=f"to.{at}")
        raise ApiProblem("field_enum", rule, field=f"to.{at}")
    if _loops(name, models, deployments):
        raise ApiProblem("field_conflict", "it leads round in a loop, back to itself", field="to")
    for each in _above(name, models):
        if places_of(each, models, deployments)[1]:
            whose = "it" if each == name else f"the model {each}, which leads to it,"
            rule = f"{whose} would lead to more than {LED_MAX} places, or over as many names"
            raise ApiProblem("field_range", rule, field="to")


def _check_instead(console: Console, instead: list[Selected]) -> list[dict[str, Any]]:
    """Where some callers are led, as it is kept.

    Raises:
        ApiProblem: nobody is named, or what is named leads nowhere.
    """
    sent = instead_as_sent(instead)
    refuse_faults(secrets_in(sent, ("instead",)))
    refuse_faults(check_instead(instead, ("instead",), known_places(console)))
    return sent


def _above(name: str, models: dict[str, list[str]]) -> list[str]:
    """A name, and all that lead to it in however many steps."""
    above: dict[str, list[str]] = {}
    for model, targets in models.items():
        for target in targets:
            above.setdefault(target, []).append(model)
    found = {name: None}
    waiting = [name]
    while waiting:
        new = [each for each in above.get(waiting.pop(), ()) if each not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def _loops(name: str, models: dict[str, list[str]], deployments: set[str]) -> bool:
    seen: set[str] = set()
    waiting = list(models[name])
    while waiting:
        target = waiting.pop()
        if target == name and target not in deployments:
            return True
        if target in models and target not in deployments and target not in seen:
            seen.add(target)
            waiting += models[target]
    return False


def create(console: Console, wanted: NewModel) -> Row:
    """Make a name.

    Raises:
        ApiProblem: it is taken, or leads nowhere.
        Conflict: there are too many.
    """
    refuse_twin(console, "model", wanted.name)
    _check_targets(console, wanted.name, wanted.to)
    now = console.clock.wall_nanos()
    row: Row = {
        "id": console.new_id("mod_"),
        "name": wanted.name,
        "to": list(dict.fromkeys(wanted.to)),
        "max_output_tokens": wanted.max_output_tokens or 0,
        "max_context_tokens": wanted.max_context_tokens or 0,
        "instead": _check_instead(console, wanted.instead),
        "details": {},
        "created_at": now,
        "updated_at": now,
    }
    put_row(console, "model", row)
    return row


def change(console: Console, model: str, wanted: ModelChange) -> Row:
    """Change what was sent.

    Raises:
        NotFound: no such name.
        Conflict: the configuration file declares it.
        ApiProblem: it leads nowhere.
    """
    row = dict(own(console, "model", model))
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    for name in ("instead", "to"):
        if name in sent and sent[name] is None:
            raise ApiProblem("field_range", "must not be null; leave it out instead", field=name)
    if "instead" in sent:
        sent["instead"] = _check_instead(console, sent["instead"])
    if "to" in sent:
        _check_targets(console, row["name"], sent["to"])
        sent["to"] = list(dict.fromkeys(sent["to"]))
    row |= sent
    for name in ("max_output_tokens", "max_context_tokens"):
        row[name] = row[name] or 0
    row["updated_at"] = console.clock.wall_nanos()
    put_row(console, "model", row)
    return row


def delete(console: Console, model: str) -> Row:
    """Remove a name that no other leads to.

    Raises:
        NotFound: no such name.
        Conflict: the configuration file declares it, or another name leads to it.
    """
    row = own(console, "model", model)
    refuse_in_use(console, "model", row)
    remove_row(console, "model", row["id"])
    return row


@router.get("")
@needs("providers.read")
@lists(text("name", "The name."))
@answers(shapes.ModelNames)
async def list_models(request: Request) -> dict[str, Any]:
    """Names of models, those of the configuration file first; filter: ``name``."""
    return await listed(request, "model", shape)


@router.post("", status_code=201)
@needs("providers.write")
@answers(shapes.ModelName)
async def create_model(request: Request, wanted: NewModel) -> dict[str, Any]:
    """Make a name; callers may use it within a second."""
    console = console_of(request)
    return await acted(console, shape(await locked(console, lambda: create(console, wanted))))


@router.get("/{model:path}")
@needs("providers.read")
@answers(shapes.ModelName, versioned=True)
async def read_model(request: Request, model: str) -> dict[str, Any]:
    """One name, or the one of an id."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: found(console, "model", model))))


@router.patch("/{model:path}")
@needs("providers.write")
@answers(shapes.ModelName, versioned=True)
async def change_model(request: Request, model: str, wanted: ModelChange) -> dict[str, Any]:
    """Lead a name elsewhere, or bound it otherwise."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "model", model))
    row = await locked(console, lambda: change(console, model, wanted), unchanged)
    return await acted(console, shape(versioned(request, row)))


@router.delete("/{model:path}")
@needs("providers.write")
@answers(Removed, versioned=True)
async def delete_model(request: Request, model: str) -> dict[str, Any]:
    """Remove a name."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "model", model))
    row = await locked(console, lambda: delete(console, model), unchanged)
    return await acted(console, {"id": row["id"], "name": row["name"], "deleted": True})
