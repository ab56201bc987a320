"""What payers do to their keys before the gate hears of these: over real books, and over the link."""

from pathlib import Path
from typing import Any

import pytest

from console.test_link import Linked, with_link
from console_parts import Parts, catalogue_of, parts
from faregate.console.compile import all_keys
from faregate.console.keys import KeyChange, NewKey, change, create, revoke
from faregate.console.link import GateLink
from faregate.console.payer_rules import PayerRules, in_force, stopped_among
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
from faregate.console.subscriptions import NewSubscriptionTo, SubscriptionChange
from faregate.console.subscriptions import change as change_subscription
from faregate.console.subscriptions import create as subscribe
from faregate.console.subscriptions import remove as unsubscribe
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
            name="gold",
            models=["a", "b"],
            paths=["/v1"],
            networks=["10.0.0.0/8"],
            expires_at="2026-12-01",
            priorities=["101-1000"],
        )
        created(made.console, "product", gold)
        create(
            made.console,
            NewKey(name="own", product="gold", user="ada", models=["b", "c"], paths=["/v1/chat"], priorities=["0-200"]),
        )
        create(made.console, NewKey(name="other", product="silver", user="ada", models=["b", "c"]))
        changed(made.console, "user", payer(made, "user", "ada")["id"], UserChange(operations=["embeddings"]))
        sent = keys_as_sent(made)
        own, other = sent["own"], sent["other"]
        assert (own.models, own.operations, own.paths) == (("b",), ("embeddings",), ("/v1/chat",))
        assert (own.networks, own.expires_at) == (("10.0.0.0/8",), payer(made, "product", "gold")["expires_at"])
        assert own.priorities == ("101-200",)
        assert in_force(made.books, made.books.listing("key", name="own")[0]) == own
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


def test_the_gate_is_told_what_products_and_users_restrict(tmp_path: Path) -> None:
    """For callers whose keys nobody stored: all of it with the keys, then each change, and that one ends."""

    def before(made: Parts) -> None:
        created(made.console, "product", NewProduct(name="gold", models=["a"], content="off"))
        created(made.console, "product", NewProduct(name="silver"))

    async def work(both: Linked) -> None:
        made = both.parts

        def told() -> list[tuple[str, str, Any, str]]:
            rules = [rule for load in both.gate.loads() for rule in load.restricting]
            return [(rule.kind, rule.name, rule.restrictions.models, rule.content) for rule in rules]

        assert told() == [("product", "gold", ("a",), "off")]
        create(made.console, NewKey(name="one", user="ada"))
        changed(made.console, "user", payer(made, "user", "ada")["id"], UserChange(models=["b"]))
        assert await both.link.applied(3)
        assert told()[1:] == [("user", "ada", ("b",), "")]
        changed(made.console, "product", payer(made, "product", "gold")["id"], ProductChange(models=None, content=None))
        assert await both.link.applied(3)
        assert told()[2:] == [("product", "gold", None, "")]

    with_link(tmp_path, work, before)


def test_what_else_changes_waits_for_no_product_with_many_keys(tmp_path: Path) -> None:
    """Its keys are sent in parts, and whatever was changed meanwhile goes before the rest of them."""
    with parts(tmp_path) as made:
        link = GateLink("", made.books, made.journal, made.projector, catalogue_of, made.clock, part=2)
        created(made.console, "product", NewProduct(name="gold"))
        for number in range(5):
            create(made.console, NewKey(name=f"k{number}", product="gold"))
        link._sequence = made.books.newest_change()
        changed(made.console, "product", payer(made, "product", "gold")["id"], ProductChange(models=["a"]))
        sent = []
        while load := link._next_load():
            link._sequence = load.sequence
            sent.append([(key.name, key.models, key.state) for key in load.keys])
            if len(sent) == 2:
                revoke(made.console, key_named(made, "k4")["id"], "left")

        both = [(f"k{number}", ("a",), "active") for number in range(4)]
        gone = [("k4", ("a",), "revoked")]
        assert sent == [[], both[:2], gone, both[2:], gone]


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


# -- subscriptions that are over ---------------------------------------------------------------------------------------


def subscription(made: Parts, name: str, *states: str) -> Row:
    """A subscription to gold with one key, which goes through these states."""
    row = subscribe(made.console, payer(made, "product", "gold"), NewSubscriptionTo(name=name, team="red"))
    create(made.console, NewKey(name=f"{name}-key", subscription=name))
    for state in states:
        row = change_subscription(made.console, row["id"], SubscriptionChange(state=state))  # type: ignore[arg-type]
    return row


def test_a_cancelled_subscription_whose_keys_are_revoked_is_forgotten_at_the_next_full_load(tmp_path: Path) -> None:
    """Cancelled ones are for ever; those that a key could still be used by are told, one that is disabled, too."""
    with parts(tmp_path) as made:
        created(made.console, "product", NewProduct(name="gold"))
        subscription(made, "going")
        rows = [subscription(made, name, "cancelled") for name in ("over", "used", "resting")]
        paused = subscription(made, "paused", "suspended")
        revoke(made.console, key_named(made, "over-key")["id"], "left")
        change(made.console, key_named(made, "resting-key")["id"], KeyChange(state="disabled"))
        told = {("subscription", "default", row["id"]) for row in (*rows[1:], paused)}
        assert set(PayerRules(made.books).read()) == told


def test_a_cancelled_subscription_stays_told_while_the_gate_may_know_a_key_of_it(tmp_path: Path) -> None:
    """From its end on, also after its key was revoked, until it is removed; one without keys never is."""
    with parts(tmp_path) as made:
        created(made.console, "product", NewProduct(name="gold"))
        rules = PayerRules(made.books)
        assert rules.read() == ()
        position = made.books.newest_change()

        def told() -> Any:
            nonlocal position
            changes, position = made.books.changes(position), made.books.newest_change()
            return rules.halted_by(changes)

        row = subscription(made, "one", "cancelled")
        named = ("subscription", "default", row["id"])
        assert told() == (named,)
        revoke(made.console, key_named(made, "one-key")["id"], "left")
        change_subscription(made.console, row["id"], SubscriptionChange(title="One"))
        assert told() is None
        unsubscribe(made.console, row["id"])
        assert told() == ()
        bare = subscribe(made.console, payer(made, "product", "gold"), NewSubscriptionTo(name="bare", team="red"))
        change_subscription(made.console, bare["id"], SubscriptionChange(state="suspended"))
        assert told() == (("subscription", "default", bare["id"]),)
        other = subscribe(made.console, payer(made, "product", "gold"), NewSubscriptionTo(name="other", team="red"))
        change_subscription(made.console, other["id"], SubscriptionChange(state="cancelled"))
        assert told() is None


def test_of_the_payers_that_are_stopped_a_key_is_told_its_own(tmp_path: Path) -> None:
    """They are asked for by their names: one of the same name in another organization stops nothing here."""
    with parts(tmp_path) as made:
        created(made.console, "product", NewProduct(name="gold"))
        over = subscription(made, "over", "cancelled")
        for name, organization in (("red", "default"), ("blue", "default"), ("green", "else")):
            create(made.console, NewKey(name=name, team=name, user="ada", organization=organization))
        for name in ("red", "blue"):
            changed(made.console, "team", payer(made, "team", name)["id"], PayerChange(state="disabled"))
        other = find(made.console, "user", "ada", "else")
        assert other is not None
        changed(made.console, "user", other["id"], PayerChange(state="disabled"))
        red = ("team", "default", "red")
        assert stopped_among(made.books, [key_named(made, "red")]) == {red}
        keys = [key_named(made, name) for name in ("over-key", "green")]
        assert stopped_among(made.books, keys) == {
            red, ("subscription", "default", over["id"]), ("user", "else", "ada"),
        }  # fmt: skip
        assert stopped_among(made.books, []) == set()
