"""Pools in the catalogue: which deployments a name may go to, in which steps, and what of a pool cannot be used."""

import pytest

from faregate.catalogue.compile import Compiled, compile_catalogue
from faregate.catalogue.declared import Declared, DeclaredDeployment, DeclaredModel
from faregate.control import Provider, Route, RoutedPool, Selection
from faregate.core.routing.choose import Member, PoolRule, Range
from faregate.core.routing.health import SECOND, BreakerRule
from faregate.core.routing.retry import RetryRule

OPENAI = Provider("openai", "openai", "https://api.openai.com/v1", {})
AZURE = Provider("azure", "azure_openai", "https://example.openai.azure.com", {})
PREMIUM = (("product", "premium"),)


def placed(*names: str) -> tuple[DeclaredDeployment, ...]:
    """Deployments of Azure's, all of one model."""
    return tuple(DeclaredDeployment(name, "azure", f"my-{name}", "gpt-4o") for name in names)


def pool(name: str, *members: str, ranges: tuple[Range, ...] = (), strategy: str = "ordered") -> RoutedPool:
    return RoutedPool(PoolRule(name, tuple(map(Member, members)), strategy, ranges))


def compiled(*pools: RoutedPool, models: tuple[DeclaredModel, ...] = ()) -> Compiled:
    return compile_catalogue(Declared((OPENAI, AZURE), placed("ptu", "west", "north"), models, pools=pools))


def route(found: Compiled, model: str) -> Route | None:
    return next((each for each in found.catalogue.routes if each.model == model), None)


@pytest.mark.parametrize(
    ("to", "selected", "expected"),
    [
        (("main",), (), Route("gpt", ("west", "north"), ("main",))),
        (("ptu", "main"), (), Route("gpt", ("ptu", "west", "north"), ("ptu", "main"))),
        (("main", "west", "main"), (), Route("gpt", ("west", "north"), ("main", "west"))),
        (("main", "spare"), (), Route("gpt", ("west", "north", "ptu"), ("main", "spare"))),
        (("west", "north"), (), Route("gpt", ("west", "north"))),
        (("west", "west"), (), Route("gpt", ("west",))),
        (
            ("main",),
            (Selection(PREMIUM, ("ptu", "main")),),
            Route("gpt", ("west", "north", "ptu"), ("main",), (Selection(PREMIUM, ("ptu", "main")),)),
        ),
        (
            ("west",),
            (Selection(PREMIUM, ("spare", "openai/gpt-4o")),),
            Route(
                "gpt",
                ("west", "north", "ptu", "openai/gpt-4o"),
                ("west",),
                (Selection(PREMIUM, ("spare", "openai/gpt-4o")),),
            ),
        ),
        (
            ("west",),
            (Selection(PREMIUM, ("west",)),),
            Route("gpt", ("west",), (), (Selection(PREMIUM, ("west",)),)),
        ),
    ],
)
def test_a_model_goes_to_all_that_its_pools_hold(
    to: tuple[str, ...], selected: tuple[Selection, ...], expected: Route
) -> None:
    """Each deployment once, those of selections behind; the steps as declared, where they are not just that."""
    main, spare = pool("main", "west", "north"), pool("spare", "north", "ptu")
    found = compiled(main, spare, models=(DeclaredModel("gpt", to, selected=selected),))

    assert found.problems == ()
    assert route(found, "gpt") == expected
    assert found.catalogue.pools == (main, spare)


def test_places_of_priorities_are_places_of_the_model() -> None:
    """Who may be sent there is a matter of the call: the name may go there."""
    ranges = (Range(0, 100, ("ptu", "west")), Range(101, 500, ("openai/gpt-4o",)))
    found = compiled(pool("main", "west", ranges=ranges), models=(DeclaredModel("gpt", ("main",)),))

    assert found.problems == ()
    assert route(found, "gpt") == Route("gpt", ("west", "ptu", "openai/gpt-4o"), ("main",))
    assert found.catalogue.pools[0].rule.ranges == ranges


def test_what_a_pool_names_by_provider_and_model_is_made() -> None:
    """With its price and all, though no model leads to the pool, and once where a model names it, too."""
    main = pool("main", "openai/gpt-4o-mini", ranges=(Range(0, 100, ("openai/gpt-4o",)),))
    found = compiled(main, models=(DeclaredModel("gpt", ("main", "openai/gpt-4o")),))
    made = [each for each in found.catalogue.deployments if each.name in ("openai/gpt-4o-mini", "openai/gpt-4o")]

    assert found.problems == ()
    assert [each.name for each in made] == ["openai/gpt-4o-mini", "openai/gpt-4o"]
    assert all(each.cards and "chat.completions" in each.operations for each in made)
    assert route(found, "gpt") == Route("gpt", ("openai/gpt-4o-mini", "openai/gpt-4o"), ("main", "openai/gpt-4o"))


def test_maxima_of_a_model_hold_at_all_places_of_its_pools() -> None:
    """Of ranges and of selections, too."""
    model = DeclaredModel("gpt", ("main",), 77, 999, (Selection(PREMIUM, ("ptu",)),))
    found = compiled(pool("main", "west", ranges=(Range(0, 9, ("north",)),)), models=(model,))
    maxima = {each.name: (each.output_tokens_max, each.context_tokens_max) for each in found.catalogue.deployments}

    assert {maxima[name] for name in ("ptu", "west", "north")} == {(77, 999)}


@pytest.mark.parametrize(
    ("pools", "left", "problems"),
    [
        ((pool("main"),), [], [("pools.main", "leads nowhere")]),
        (
            (pool("main", "east"),),
            [],
            [("pools.main", "there is no deployment 'east'"), ("pools.main", "leads nowhere")],
        ),
        (
            (pool("main", "azure/gpt-4o", "none/gpt-4o", "west"),),
            [pool("main", "west")],
            [("pools.main", "azure_openai has no models by name"), ("pools.main", "provider 'none'")],
        ),
        (
            (pool("main", "west", ranges=(Range(0, 9, ("east", "ptu")),)),),
            [pool("main", "west", ranges=(Range(0, 9, ("ptu",)),))],
            [("pools.main", "there is no deployment 'east'")],
        ),
        ((pool("west", "north"),), [], [("pools.west", "has a name that is taken")]),
        (
            (pool("main", "west"), pool("main", "north")),
            [pool("main", "west")],
            [("pools.main", "has a name that is taken")],
        ),
    ],
)
def test_what_of_a_pool_cannot_be_used_is_told_and_left_out(
    pools: tuple[RoutedPool, ...], left: list[RoutedPool], problems: list[tuple[str, str]]
) -> None:
    """Its other members stand in for each other all the same; a pool without any is none."""
    found = compiled(*pools)

    assert list(found.catalogue.pools) == left
    assert [each.where for each in found.problems] == [where for where, _ in problems]
    assert all(each.serious and says in each.message for each, (_, says) in zip(found.problems, problems, strict=True))


def test_a_model_that_leads_to_a_pool_of_nobody_goes_on_to_its_other_places() -> None:
    """Both are told: the pool, and the model that names it."""
    found = compiled(pool("main", "east"), models=(DeclaredModel("gpt", ("main", "west")),))

    assert [each.where for each in found.problems] == ["pools.main", "pools.main", "models.gpt"]
    assert route(found, "gpt") == Route("gpt", ("west",))


def test_a_selection_that_leads_nowhere_is_left_out() -> None:
    """Whom it would have fitted goes where all go."""
    selected = (Selection(PREMIUM, ("east",)), Selection((("user", "u"),), ("ptu", "east")))
    found = compiled(models=(DeclaredModel("gpt", ("west",), selected=selected),))

    assert [each.where for each in found.problems] == ["models.gpt", "models.gpt"]
    assert route(found, "gpt") == Route("gpt", ("west", "ptu"), ("west",), (Selection((("user", "u"),), ("ptu",)),))


def test_rules_of_breakers_and_retries_reach_the_gate() -> None:
    """Those of a pool with the pool, those of all beside it."""
    breaker, retry = BreakerRule(failures=9, trip=SECOND), RetryRule(1, True)
    own = RoutedPool(PoolRule("main", (Member("west", 3, 2),), "weighted", (), "key"), breaker, retry)
    found = compile_catalogue(
        Declared((AZURE,), placed("west"), pools=(own,), breaker=BreakerRule(enabled=False), retry=RetryRule(4))
    )

    assert found.problems == ()
    assert found.catalogue.pools == (own,)
    assert found.catalogue.breaker == BreakerRule(enabled=False)
    assert found.catalogue.retry == RetryRule(4)
