"""``/api/v1/deployments``: places to send calls to, beside those that the configuration file declares.

One that has no price is refused, by the same rules as in the file: no call could be held for.
"""

from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console import declared
from faregate.console.declared import NAMES, all_of, found, listed, own, refuse_twin, source_of
from faregate.console.describing import answers, choice, lists, text
from faregate.console.leading import refuse_in_use
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread, made_places
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

router = APIRouter(prefix="/deployments", tags=["deployments"])


class DeploymentChange(Body):
    """What may be changed of a deployment."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY | {"name", "provider"}

    #: What the provider calls it; the model where it is not said.
    deployment: Name | None = None
    #: The model that it is, and is priced as.
    model: Name | None = or_left_out()
    #: Most output tokens of one answer; ``null`` takes what is known of the model.
    max_output_tokens: int | None = Field(default=None, ge=1, le=declared.TOKENS_MAX)
    #: Where it is processed, as far as that makes a difference in price.
    region: Literal["global", "data_zone", "regional"] | None = or_left_out()
    state: Literal["active", "disabled"] | None = or_left_out()


class NewDeployment(Body):
    """A deployment to be made."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY | {"state"}

    name: str = Field(pattern=NAMES)
    #: Name of a provider.
    provider: Name
    #: What the provider calls it; the model where it is not said.
    deployment: Name | None = None
    #: The model that it is, and is priced as.
    model: Name
    #: Most output tokens of one answer; ``null`` takes what is known of the model.
    max_output_tokens: int | None = Field(default=None, ge=1, le=declared.TOKENS_MAX)
    #: Where it is processed, as far as that makes a difference in price.
    region: Literal["global", "data_zone", "regional"] = "global"


def shape(row: Row) -> dict[str, Any]:
    """A deployment as the API shows it."""
    return {
        "id": row["id"],
        "name": row["name"],
        "provider": row["provider"],
        "deployment": row["deployment"] or row["model"],
        "model": row["model"],
        "max_output_tokens": or_none(row["max_output_tokens"] or ""),
        "region": row["region"],
        "state": row["state"],
        "source": source_of(row),
        "created_at": time_text(row.get("created_at")),
        "updated_at": time_text(row.get("updated_at")),
    }


def provider_names(console: Console) -> list[str]:
    """Names of all providers, those of the file first."""
    return [row["name"] for row in all_of(console, "provider")]


def _check_place(console: Console, row: Row) -> None:
    """Refuse a deployment that cannot take a call: its provider or its price is not known.

    Raises:
        ApiProblem: field_enum or price_unknown.
    """
    names = provider_names(console)
    if row["provider"] not in names:
        expected = f"expected one of {', '.join(sorted(names)[:20])}" if names else "there is none yet; make one first"
        raise ApiProblem("field_enum", f"unknown provider; {expected}", field="provider")
    books = console.all_books
    made = made_places(books)
    others = [each for each in made.deployments if each["id"] != row["id"]]
    # Disabled or not, it is judged as if it took calls, and so is its provider.
    providers = [{**each, "state": "active"} for each in made.providers]
    trial = made._replace(providers=providers, deployments=[*others, {**row, "state": "active"}])
    projects = [str(each["name"]) for each in every(books, "project")]
    catalogue = console.compile_catalogue(every(books, "price"), projects, trial)
    placed = next((each for each in catalogue.deployments if each.name == row["name"]), None)
    if placed is None or not placed.cards:
        rule = (
            f"no price is known for {row['model'][:64]!r} at {row['provider'][:64]!r}; set one first, for input and "
            "output, with `faregate price set` or /api/v1/prices"
        )
        raise ApiProblem("price_unknown", rule, field="model")


def create(console: Console, wanted: NewDeployment) -> Row:
    """Make a deployment.

    Raises:
        ApiProblem: its name is taken, or its provider or price is not known.
        Conflict: there are too many.
    """
    refuse_twin(console, "deployment", wanted.name)
    now = console.clock.wall_nanos()
    row: Row = {
        "id": console.new_id("dep_"),
        "name": wanted.name,
        "provider": wanted.provider,
        "deployment": wanted.deployment or "",
        "model": wanted.model,
        "max_output_tokens": wanted.max_output_tokens or 0,
        "region": wanted.region,
        "state": "active",
        "details": {},
        "created_at": now,
        "updated_at": now,
    }
    _check_place(console, row)
    put_row(console, "deployment", row)
    return row


def change(console: Console, deployment: str, wanted: DeploymentChange) -> Row:
    """Change what was sent.

    Raises:
        NotFound: no such deployment.
        Conflict: the configuration file declares it.
        ApiProblem: a value that cannot be, or a model without a price.
    """
    row = dict(own(console, "deployment", deployment))
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    for name in ("model", "region", "state"):
        if name in sent and sent[name] is None:
            raise ApiProblem("field_range", "must not be null; leave it out instead", field=name)
    row |= sent
    row["deployment"], row["max_output_tokens"] = row["deployment"] or "", row["max_output_tokens"] or 0
    row["updated_at"] = console.clock.wall_nanos()
    _check_place(console, row)
    put_row(console, "deployment", row)
    return row


def delete(console: Console, deployment: str) -> Row:
    """Remove a deployment that no pool and no name of a model leads to.

    Raises:
        NotFound: no such deployment.
        Conflict: the configuration file declares it, or something leads to it.
    """
    row = own(console, "deployment", deployment)
    refuse_in_use(console, "deployment", row)
    remove_row(console, "deployment", row["id"])
    return row


@router.get("")
@needs("providers.read")
@lists(
    text("name", "Its name."),
    text("provider", "Name of its provider."),
    text("model", "The model that it is."),
    choice("state", ("active", "disabled"), "Whether it takes calls."),
)
@answers(shapes.Deployments)
async def list_deployments(request: Request) -> dict[str, Any]:
    """Deployments, those of the configuration file first; filters: ``name``, ``provider``, ``model``, ``state``."""
    return await listed(request, "deployment", shape)


@router.post("", status_code=201)
@needs("providers.write")
@answers(shapes.Deployment)
async def create_deployment(request: Request, wanted: NewDeployment) -> dict[str, Any]:
    """Make a deployment; it takes calls within a second."""
    console = console_of(request)
    return await acted(console, shape(await locked(console, lambda: create(console, wanted))))


@router.get("/{deployment}")
@needs("providers.read")
@answers(shapes.Deployment, versioned=True)
async def read_deployment(request: Request, deployment: str) -> dict[str, Any]:
    """One deployment by its id or name."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: found(console, "deployment", deployment))))


@router.patch("/{deployment}")
@needs("providers.write")
@answers(shapes.Deployment, versioned=True)
async def change_deployment(request: Request, deployment: str, wanted: DeploymentChange) -> dict[str, Any]:
    """Change a deployment, or let it rest."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "deployment", deployment))
    row = await locked(console, lambda: change(console, deployment, wanted), unchanged)
    return await acted(console, shape(versioned(request, row)))


@router.delete("/{deployment}")
@needs("providers.write")
@answers(Removed, versioned=True)
async def delete_deployment(request: Request, deployment: str) -> dict[str, Any]:
    """Remove a deployment; calls that run end as they would."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "deployment", deployment))
    row = await locked(console, lambda: delete(console, deployment), unchanged)
    return await acted(console, {"id": row["id"], "name": row["name"], "deleted": True})
