"""``/api/v1/pools``: deployments that stand in for each other, beside the pools that the configuration file declares.

A pool is written as in the file, and judged by the same rules (``config/pool_rules``).
"""

from typing import Any, ClassVar

from fastapi import APIRouter, Request

from faregate.config.pool_rules import check_pool
from faregate.config.pools import (
    Beyond,
    Breaker,
    Members,
    Pool,
    Ranges,
    Retry,
    Sticky,
    Strategy,
    rule_as_sent,
    rule_in_full,
)
from faregate.config.section import Section
from faregate.console import declared
from faregate.console.declared import found, known_places, listed, own, refuse_twin, source_of
from faregate.console.describing import answers, lists, text
from faregate.console.leading import refuse_faults, refuse_in_use, secrets_in
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.shapes import care as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import or_left_out, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.ports import Row

router = APIRouter(prefix="/pools", tags=["pools"])

#: What ``null`` takes back to as it is without a word.
_MAY_BE_NULL = frozenset({"sticky", "breaker", "retry"})


class NewPool(Pool):
    """A pool to be made, in the form of the configuration."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY


class PoolChange(Section):
    """What may be changed of a pool; what is sent takes the place of all that was there under its name."""

    READ_ONLY: ClassVar[frozenset[str]] = declared.READ_ONLY | {"name"}

    #: How the order is found in which they are tried.
    strategy: Strategy | None = or_left_out()
    #: Deployments or provider/model, by name or with weight and group.
    use: Members | None = or_left_out()
    #: What calls with a ``Priority`` header are tried at before.
    priority: Ranges | None = or_left_out()
    #: What becomes of a ``Priority`` that is not for its caller.
    beyond: Beyond | None = or_left_out()
    #: ``null`` for nobody.
    sticky: Sticky | None = None
    #: ``null`` for the one for all.
    breaker: Breaker | None = None
    retry: Retry | None = None


def shape(row: Row) -> dict[str, Any]:
    """A pool as the API shows it."""
    return {
        "id": row["id"],
        "name": row["name"],
        **rule_in_full(_pool_of(row["name"], row["rule"])),
        "source": source_of(row),
        "created_at": time_text(row.get("created_at")),
        "updated_at": time_text(row.get("updated_at")),
    }


def _pool_of(name: str, rule: dict[str, Any]) -> Pool:
    return Pool.model_validate({"name": name, **rule})


def _check(console: Console, pool: Pool) -> None:
    """Refuse what no configuration file could say, and a key's secret, for it would be shown and kept.

    Raises:
        ApiProblem: with each field that is at fault.
    """
    refuse_faults(secrets_in({"name": pool.name, **rule_as_sent(pool)}))
    refuse_faults(check_pool(pool, (), known_places(console)))


def create(console: Console, wanted: Pool) -> Row:
    """Make a pool.

    Raises:
        ApiProblem: its name is taken, or it cannot be as it was sent.
        Conflict: there are too many.
    """
    refuse_twin(console, "pool", wanted.name)
    _check(console, wanted)
    now = console.clock.wall_nanos()
    row: Row = {
        "id": console.new_id("pol_"),
        "name": wanted.name,
        "rule": rule_as_sent(wanted),
        "details": {},
        "created_at": now,
        "updated_at": now,
    }
    put_row(console, "pool", row)
    return row


def change(console: Console, pool: str, wanted: PoolChange) -> Row:
    """Change what was sent.

    Raises:
        NotFound: no such pool.
        Conflict: the configuration file declares it.
        ApiProblem: it cannot be as it would be then.
    """
    row = dict(own(console, "pool", pool))
    sent = wanted.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for name in sorted(sent.keys() - _MAY_BE_NULL):
        if sent[name] is None:
            raise ApiProblem("field_range", "must not be null; leave it out instead", field=name)
    changed = _pool_of(row["name"], {name: value for name, value in (row["rule"] | sent).items() if value is not None})
    _check(console, changed)
    row["rule"] = rule_as_sent(changed)
    row["updated_at"] = console.clock.wall_nanos()
    put_row(console, "pool", row)
    return row


def delete(console: Console, pool: str) -> Row:
    """Remove a pool that no name of a model leads to.

    Raises:
        NotFound: no such pool.
        Conflict: the configuration file declares it, or a name leads to it.
    """
    row = own(console, "pool", pool)
    refuse_in_use(console, "pool", row)
    remove_row(console, "pool", row["id"])
    return row


@router.get("")
@needs("providers.read")
@lists(text("name", "Its name."))
@answers(shapes.Pools)
async def list_pools(request: Request) -> dict[str, Any]:
    """Pools, those of the configuration file first; filter: ``name``."""
    return await listed(request, "pool", shape)


@router.post("", status_code=201)
@needs("providers.write")
@answers(shapes.Pool)
async def create_pool(request: Request, wanted: NewPool) -> dict[str, Any]:
    """Make a pool; names may lead to it within a second."""
    console = console_of(request)
    return await acted(console, shape(await locked(console, lambda: create(console, wanted))))


@router.get("/{pool}")
@needs("providers.read")
@answers(shapes.Pool, versioned=True)
async def read_pool(request: Request, pool: str) -> dict[str, Any]:
    """One pool by its id or name."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: found(console, "pool", pool))))


@router.patch("/{pool}")
@needs("providers.write")
@answers(shapes.Pool, versioned=True)
async def change_pool(request: Request, pool: str, wanted: PoolChange) -> dict[str, Any]:
    """Change a pool; calls that begin afterwards go by it."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "pool", pool))
    row = await locked(console, lambda: change(console, pool, wanted), unchanged)
    return await acted(console, shape(versioned(request, row)))


@router.delete("/{pool}")
@needs("providers.write")
@answers(Removed, versioned=True)
async def delete_pool(request: Request, pool: str) -> dict[str, Any]:
    """Remove a pool; its deployments stay."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: found(console, "pool", pool))
    row = await locked(console, lambda: delete(console, pool), unchanged)
    return await acted(console, {"id": row["id"], "name": row["name"], "deleted": True})
