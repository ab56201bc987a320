"""What payers do to their keys before the gate hears of these: over real books, and over the link."""

from pathlib import Path
from typing import Any

import pytest

from console.test_link import Linked, with_link
from console_parts import Parts, parts
from faregate.console.compile import all_keys
from faregate.console.keys import KeyChange, NewKey, change, create
from faregate.console.payer_rules import PayerRules
from faregate.console.payers import (
    NewPayer,
    NewProduct,
    NewProject,
    PayerChange,
    ProductChange,
    UserChange,
    changed,
    created,
    find,
)
from faregate.control import Key
from faregate.ports import Row


def keys_as_sent(made: Parts) -> dict[str, Key]:
    """Name → every key as the gate is sent it."""
    rules = PayerRules(made.books)
    rules.read()
    return {key.name: key for key in rules.applied(all_keys(made.books))}


def payer(made: Parts, kind: str, name: str) -> Row:
    """The row of a payer."""
    row = find(made.console, kind, name, "default")
    assert row is not None
    return row


def test_a_key_is_restricted_by_its_product_and_its_user_too(tmp_path: Path) -> None:
    """What is allowed is what all of them allow; keys of others stay as they are."""
    with parts(tmp_path) as made:
        gold = NewProduct(
            name="gold", models=["a", "b"], paths=["/v1"], networks=["10.0.0.0/8"], expires_at="2026-12-01"
        )
        created(made.console, "product", gold)
        create(made.console, NewKey(name="own", product="gold", user="ada", models=["b", "c"], paths=["/v1/chat"]))
        create(made.console, NewKey(name="other", product="silver", user="ada", models=["b", "c"]))
        changed(made.console, "user", payer(made, "user", "ada")["id"], UserChange(operations=["embeddings"]))
        sent = keys_as_sent(made)
        own, other = sent["own"], sent["other"]
        assert (own.models, own.operations, own.paths) == (("b",), ("embeddings",), ("/v1/chat",))
        assert (own.networks, own.expires_at) == (("10.0.0.0/8",), payer(made, "product", "gold")["expires_at"])
        assert (other.models, other.operations, other.paths, other.expires_at) == (("b", "c"), ("embeddings",), None, 0)


def test_nothing_that_both_allow_is_nothing(tmp_path: Path) -> None:
    """A key of models that its product has not may call none, rather than all."""
    with parts(tmp_path) as made:
        created(made.console, "product", NewProduct(name="gold", models=["a"]))
        create(made.console, NewKey(name="own", product="gold", models=["b"]))
        assert keys_as_sent(made)["own"].models == ()


def test_a_change_of_a_product_is_sent_with_the_keys_that_it_concerns(tmp_path: Path) -> None:
    """The gate is sent these keys and no others; a title concerns none, and a payer that is made neither."""

    def before(made: Parts) -> None:
        for name, product in (("one", "gold"), ("two", "gold"), ("three", "silver")):
            create(made.console, NewKey(name=name, product=product))

    async def work(both: Linked) -> None:
        made = both.parts
        gold = payer(made, "product", "gold")["id"]

        async def sent_after(wanted: PayerChange) -> list[Any]:
            count = len(both.gate.loads())
            changed(made.console, "product", gold, wanted)
            assert await both.link.applied(3)
            return [(key.name, key.models) for load in both.gate.loads()[count:] for key in load.keys]

        assert sorted(await sent_after(ProductChange(models=["a"]))) == [("one", ("a",)), ("two", ("a",))]
        assert await sent_after(ProductChange(title="Gold")) == []
        change(made.console, key_named(made, "one")["id"], KeyChange(models=["a", "b"]))
        assert await both.link.applied(3)
        assert [key.models for key in both.gate.loads()[-1].keys] == [("a",)]
        assert sorted(await sent_after(ProductChange(models=None))) == [("one", ("a", "b")), ("two", None)]
        count = len(both.gate.loads())
        created(made.console, "team", NewPayer(name="new"))
        assert await both.link.applied(3)
        assert len(both.gate.loads()) == count

    with_link(tmp_path, work, before)


def test_the_gate_is_told_whose_the_projects_are(tmp_path: Path) -> None:
    """With the team of those that were put into one, and no team of those that merely came with a key."""

    def before(made: Parts) -> None:
        create(made.console, NewKey(name="one", team="a", project="shared"))
        created(made.console, "project", NewProject(name="own", team="a"))

    async def work(both: Linked) -> None:
        told = [load.catalogue.project_teams for load in both.gate.loads() if load.catalogue is not None]
        assert sorted(told[-1]) == [("default", "own", "a"), ("default", "shared", "")]

    with_link(tmp_path, work, before)


def key_named(made: Parts, name: str) -> Row:
    """The row of a key."""
    return made.books.listing("key", name=name)[0]


@pytest.mark.parametrize("kind", ["organization", "team", "project", "user", "product", "stage"])
def test_a_payer_that_is_disabled_is_told_without_its_keys(tmp_path: Path, kind: str) -> None:
    """One small message for however many keys; enabling it tells that nobody is."""

    def before(made: Parts) -> None:
        create(made.console, NewKey(name="one", team="x", project="x", user="x", product="x", stage="x"))

    async def work(both: Linked) -> None:
        made = both.parts
        name = "default" if kind == "organization" else "x"
        row = payer(made, kind, name)
        changed(made.console, kind, row["id"], PayerChange(state="disabled"))
        assert await both.link.applied(3)
        told = both.gate.loads()[-1]
        assert (told.keys, told.halted) == ((), ((kind, "" if kind == "organization" else "default", name),))
        changed(made.console, kind, row["id"], PayerChange(state="active"))
        assert await both.link.applied(3)
        assert both.gate.loads()[-1].halted == ()

    with_link(tmp_path, work, before)


def test_a_gate_that_starts_is_told_who_is_disabled(tmp_path: Path) -> None:
    """With the keys, before it takes calls."""

    def before(made: Parts) -> None:
        create(made.console, NewKey(name="one", team="x"))
        changed(made.console, "team", payer(made, "team", "x")["id"], PayerChange(state="disabled"))

    async def work(both: Linked) -> None:
        told = [load.halted for load in both.gate.loads() if load.halted is not None]
        assert told == [(("team", "default", "x"),)]

    with_link(tmp_path, work, before)
