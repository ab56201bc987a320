"""From what is declared to the catalogue that the gate works from."""

import msgspec
import pytest

from faregate.catalogue.compile import Compiled, compile_catalogue, price_rows
from faregate.catalogue.declared import Declared, DeclaredDeployment, DeclaredModel, PriceRow
from faregate.control import Catalogue, Deployment, Provider
from faregate.core.money import picos
from faregate.core.pricing.book import PriceTimeline
from faregate.core.usage import Usage

OPENAI = Provider("openai", "openai", "https://api.openai.com/v1", {})
OPENAI_DEV = Provider("openai-dev", "openai", "https://api.openai.com/v1", {})
AZURE = Provider("azure-weu", "azure_openai", "https://example.openai.azure.com", {})
ANTHROPIC = Provider("claude", "anthropic", "https://api.anthropic.com", {})
SIMULATOR = Provider("simulator", "openai", "http://127.0.0.1:4010/v1", {})

WEU = DeclaredDeployment("weu-gpt-4o", "azure-weu", "my-gpt4o", "gpt-4o")


def priced(provider: str, model: str, unit: str, price: str, per: int = 1_000_000) -> PriceRow:
    return PriceRow(provider, model, unit, per, picos(price))


def house(provider: str = "openai", model: str = "house-model") -> tuple[PriceRow, ...]:
    return (priced(provider, model, "input_tokens", "2.50"), priced(provider, model, "output_tokens", "10"))


def routes(compiled: Compiled) -> dict[str, tuple[str, ...]]:
    return {route.model: route.to for route in compiled.catalogue.routes}


def deployment(compiled: Compiled, name: str) -> Deployment:
    return next(made for made in compiled.catalogue.deployments if made.name == name)


def cost(made: Deployment, usage: Usage, now: int = 1_795_219_200 * 10**9) -> int | None:
    tariff = PriceTimeline(made.cards).at(now)
    return tariff.cost(usage) if tariff else None


def test_the_example_of_the_contract_compiles() -> None:
    """One OpenAI account, one Azure deployment, an alias over both and a house model: no problem, all routed."""
    compiled = compile_catalogue(
        Declared(
            providers=(OPENAI, AZURE),
            deployments=(WEU,),
            models=(DeclaredModel("gpt-4o", ("weu-gpt-4o", "openai/gpt-4o")),),
            overrides=house(),
            stages=(("dev", ("openai",)),),
        )
    )
    assert compiled.problems == ()
    assert routes(compiled)["gpt-4o"] == ("weu-gpt-4o", "openai/gpt-4o")
    assert routes(compiled)["house-model"] == ("openai/house-model",)
    assert compiled.catalogue.stages == {"dev": ("openai",)}
    assert cost(deployment(compiled, "openai/house-model"), Usage(input_text=1, output_text=1)) == 12_500


def test_a_provider_offers_its_priced_models_without_declaring_them() -> None:
    """Every listed model is a deployment of its own and a name to call; what has no price is not offered."""
    compiled = compile_catalogue(Declared(providers=(OPENAI,)))
    assert routes(compiled)["gpt-4o-mini"] == ("openai/gpt-4o-mini",)
    assert not {"whisper-1", "tts-1", "dall-e-3"} & set(routes(compiled))
    assert all(made.cards for made in compiled.catalogue.deployments)
    made = deployment(compiled, "openai/gpt-4o")
    assert (made.cap_field, made.encoding, made.operations) == (
        "max_completion_tokens",
        "o200k_base",
        ("chat.completions",),
    )
    assert (made.output_tokens_max, made.context_tokens_max) == (16_384, 128_000)


def test_an_azure_deployment_answers_to_its_path_its_name_and_its_model() -> None:
    """A client of Azure names the deployment in the path; it is priced as the model that it holds."""
    compiled = compile_catalogue(Declared(providers=(AZURE,), deployments=(WEU,)))
    assert {name: routes(compiled).get(name) for name in ("my-gpt4o", "weu-gpt-4o", "gpt-4o")} == {
        "my-gpt4o": ("weu-gpt-4o",),
        "weu-gpt-4o": ("weu-gpt-4o",),
        "gpt-4o": ("weu-gpt-4o",),
    }
    assert len(compiled.catalogue.deployments) == 1
    assert cost(deployment(compiled, "weu-gpt-4o"), Usage(input_text=1)) == 2_500


def test_the_provider_declared_first_wins_a_name() -> None:
    """Two accounts offer the same model: the second one is not used for it by itself."""
    compiled = compile_catalogue(Declared(providers=(OPENAI_DEV, OPENAI)))
    assert routes(compiled)["gpt-4o"] == ("openai-dev/gpt-4o",)


def test_each_stage_has_its_first_provider() -> None:
    """A stage that may use only the second account finds its deployment behind the same name."""
    stages = (("dev", ("openai-dev",)), ("prod", ("openai",)))
    compiled = compile_catalogue(Declared(providers=(OPENAI_DEV, OPENAI), stages=stages))
    assert routes(compiled)["gpt-4o"] == ("openai-dev/gpt-4o", "openai/gpt-4o")


def test_a_declared_model_keeps_its_name() -> None:
    """What `models` say goes before what a provider offers under the same name."""
    compiled = compile_catalogue(
        Declared(providers=(OPENAI,), models=(DeclaredModel("gpt-4o", ("openai/gpt-4o-mini",)),))
    )
    assert routes(compiled)["gpt-4o"] == ("openai/gpt-4o-mini",)


@pytest.mark.parametrize(
    ("declared", "where"),
    [
        (Declared(providers=(OPENAI,), overrides=house()[:1]), ["prices.openai/house-model.input_tokens"]),
        (
            Declared(
                providers=(OPENAI,),
                models=(DeclaredModel("mine", ("openai/house-model",)),),
                overrides=house()[:1],
            ),
            ["models.mine"],
        ),
        (Declared(providers=(OPENAI,), overrides=house()), []),
        (Declared(providers=(OPENAI,), overrides=house(model="house-embed")[:1]), []),
    ],
)
def test_a_price_for_input_only_is_told_once_unless_the_name_says_that_it_is_meant(
    declared: Declared, where: list[str]
) -> None:
    """A forgotten output price makes a chat model one for embeddings, which nobody expects."""
    told = [problem for problem in compile_catalogue(declared).problems if "embeddings only" in problem.message]
    assert [problem.where for problem in told] == where
    assert not any(problem.serious for problem in told)


def test_other_wire_formats_are_compiled_without_operations() -> None:
    """A route to Claude exists and is priced, and nothing can be asked of it yet."""
    compiled = compile_catalogue(Declared(providers=(ANTHROPIC,)))
    made = deployment(compiled, routes(compiled)["claude-opus-5"][0])
    assert made.cards
    assert made.operations == ()


def test_the_simulator_has_the_prices_that_are_set_for_it() -> None:
    """Models that no list knows become callable by their prices, with every operation that these cover."""
    compiled = compile_catalogue(Declared(providers=(SIMULATOR,), overrides=house("simulator", "sim-1")))
    made = deployment(compiled, "simulator/sim-1")
    assert made.operations == ("chat.completions", "completions", "embeddings")
    assert made.cap_field == "max_tokens"
    assert routes(compiled)["sim-1"] == ("simulator/sim-1",)


def test_an_own_price_replaces_the_listed_rate_of_its_unit() -> None:
    """A contract price for input leaves the listed price of output."""
    compiled = compile_catalogue(
        Declared(providers=(OPENAI,), overrides=(priced("openai", "gpt-4o", "input_tokens", "1"),))
    )
    assert cost(deployment(compiled, "openai/gpt-4o"), Usage(input_text=1, output_text=1)) == 11_000


def test_an_explicit_price_of_nothing_is_a_price() -> None:
    """Somebody wrote down that it is free; that is no accident."""
    free = (priced("openai", "house-model", "input_tokens", "0"), priced("openai", "house-model", "output_tokens", "0"))
    compiled = compile_catalogue(Declared(providers=(OPENAI,), overrides=free))
    assert compiled.problems == ()
    assert cost(deployment(compiled, "openai/house-model"), Usage(input_text=10**6, output_text=10**6)) == 0


def test_input_alone_prices_embeddings_and_nothing_else() -> None:
    """A model with a price for input only can be asked for nothing that has output."""
    row = priced("openai", "house-embedding", "input_tokens", "0.02")
    compiled = compile_catalogue(Declared(providers=(OPENAI,), overrides=(row,)))
    assert deployment(compiled, "openai/house-embedding").operations == ("embeddings",)


def test_output_alone_is_no_price() -> None:
    """A card that would give input away is not used, and the problem says what is missing."""
    row = priced("openai", "house-model", "output_tokens", "10")
    compiled = compile_catalogue(Declared(providers=(OPENAI,), overrides=(row,)))
    assert deployment(compiled, "openai/house-model").cards == ()
    assert any("set input and output" in problem.message for problem in compiled.problems)


def test_a_model_without_a_price_is_routed_and_told() -> None:
    """The gate refuses it by name as unpriced; the operator learns of it, with the reason where the list has one."""
    compiled = compile_catalogue(
        Declared(
            providers=(OPENAI, AZURE),
            deployments=(DeclaredDeployment("audio", "azure-weu", "whisper", "whisper-1"),),
            models=(DeclaredModel("mystery", ("openai/gpt-99",)),),
        )
    )
    assert [problem.where for problem in compiled.problems] == ["deployments.audio", "models.mystery"]
    assert "audio_hours" in compiled.problems[0].message
    assert deployment(compiled, routes(compiled)["mystery"][0]).cards == ()


def test_a_fallback_price_is_the_operators_own_or_the_dearest_known() -> None:
    """With `unknown: fallback` nothing is refused for its price, nothing is free, and each such model is told."""
    wanted = Declared(
        providers=(OPENAI,), models=(DeclaredModel("mystery", ("openai/gpt-99",)),), unknown_price="fallback"
    )
    dearest = compile_catalogue(wanted)
    own = compile_catalogue(wanted._replace(overrides=house("openai", "*")))
    listed = compile_catalogue(Declared(providers=(OPENAI,)))
    one = Usage(input_text=1, output_text=1)
    speakable = [made for made in listed.catalogue.deployments if made.operations]
    assert cost(deployment(own, "openai/gpt-99"), one) == 12_500
    assert (cost(deployment(dearest, "openai/gpt-99"), one) or 0) >= max(cost(made, one) or 0 for made in speakable)
    assert [(problem.serious, problem.where) for problem in own.problems] == [(False, "models.mystery")]
    assert {card.source for card in deployment(dearest, "openai/gpt-99").cards} == {"fallback"}


def test_declared_maxima_go_before_what_is_known() -> None:
    """A deployment's own maximum first, then the largest of the models that share it."""
    compiled = compile_catalogue(
        Declared(
            providers=(OPENAI, AZURE),
            deployments=(WEU._replace(output_tokens_max=1_000),),
            models=(
                DeclaredModel("a", ("openai/gpt-4o", "weu-gpt-4o"), output_tokens_max=2_000),
                DeclaredModel("b", ("openai/gpt-4o",), output_tokens_max=3_000, context_tokens_max=50_000),
                DeclaredModel("c", ("openai/gpt-4o",), output_tokens_max=2_500),
            ),
        )
    )
    assert deployment(compiled, "weu-gpt-4o").output_tokens_max == 1_000
    shared = deployment(compiled, "openai/gpt-4o")
    assert (shared.output_tokens_max, shared.context_tokens_max) == (3_000, 50_000)


@pytest.mark.parametrize(
    ("declared", "where", "message"),
    [
        (Declared(providers=(OPENAI, OPENAI)), "providers.openai", "declared twice"),
        (Declared(deployments=(WEU,)), "deployments.weu-gpt-4o", "provider 'azure-weu' is not declared"),
        (Declared(providers=(AZURE,), deployments=(WEU, WEU)), "deployments.weu-gpt-4o", "declared twice"),
        (Declared(providers=(OPENAI,), models=(DeclaredModel("m", ()),)), "models.m", "leads nowhere"),
        (Declared(providers=(OPENAI,), models=(DeclaredModel("m", ("x",)),)), "models.m", "no deployment 'x'"),
        (Declared(providers=(OPENAI,), models=(DeclaredModel("m", ("x/y",)),)), "models.m", "provider 'x'"),
        (
            Declared(providers=(AZURE,), models=(DeclaredModel("m", ("azure-weu/y",)),)),
            "models.m",
            "declare a deployment",
        ),
        (
            Declared(providers=(OPENAI,), overrides=house("nobody")),
            "prices.nobody/house-model.input_tokens",
            "not declared",
        ),
        (
            Declared(providers=(OPENAI,), overrides=(priced("openai", "m", "hours", "1"),)),
            "prices.openai/m.hours",
            "not a unit",
        ),
        (
            Declared(providers=(OPENAI,), overrides=(PriceRow("openai", "m", "input_tokens", 0, 1),)),
            "prices.openai/m.input_tokens",
            "at least one unit",
        ),
        (
            Declared(providers=(OPENAI,), overrides=(PriceRow("openai", "m", "input_tokens", 1, 1, 9, 9),)),
            "prices.openai/m.input_tokens",
            "ends before",
        ),
        (Declared(providers=(OPENAI,), stages=(("dev", ("nobody",)),)), "stages.dev", "'nobody' is not declared"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(declared: Declared, where: str, message: str) -> None:
    """Each mistake is told with its place; the rest of the catalogue is compiled all the same."""
    compiled = compile_catalogue(declared)
    first = compiled.problems[0]
    assert first.where == where
    assert message in first.message
    known = {made.name for made in compiled.catalogue.deployments}
    assert all(set(route.to) <= known for route in compiled.catalogue.routes)


def test_the_catalogue_survives_the_wire_and_compiles_the_same_again() -> None:
    """It is sent to the gate as JSON, and nothing in it depends on the order of sets."""
    declared = Declared(providers=(OPENAI, AZURE, ANTHROPIC), deployments=(WEU,), overrides=house(), require_limit=True)
    catalogue = compile_catalogue(declared).catalogue
    assert msgspec.json.decode(msgspec.json.encode(catalogue), type=Catalogue) == catalogue
    assert compile_catalogue(declared).catalogue == catalogue


def test_prices_are_listed_flat_and_once() -> None:
    """Every rate with its unit, tier, time, source and version; two deployments of one card show it once."""
    models = (DeclaredModel("alias", ("openai/house-model",)),)
    catalogue = compile_catalogue(Declared(providers=(OPENAI,), models=models, overrides=house())).catalogue
    rows = [row for row in price_rows(catalogue) if row.model == "house-model"]
    assert [(row.unit, row.price_pico, row.per, row.source) for row in rows] == [
        ("input_tokens", picos("2.50"), 1_000_000, "override"),
        ("output_tokens", picos("10"), 1_000_000, "override"),
    ]
    assert {row.above_input_tokens for row in price_rows(catalogue) if row.model == "gpt-5.5"} == {0, 272_000}
