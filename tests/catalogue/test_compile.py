"""From what is declared to the catalogue that the gate works from."""

import msgspec
import pytest

from faregate.catalogue.compile import Compiled, compile_catalogue, price_rows
from faregate.catalogue.declared import Declared, DeclaredDeployment, DeclaredModel, PriceRow
from faregate.catalogue.model_facts import (
    BATCHES,
    EMBED,
    FILES,
    GENERATE,
    IMAGES,
    MESSAGES,
    OPERATIONS,
    RESPONSES,
    WITHOUT_MODEL,
)
from faregate.catalogue.timeline import service_tiers
from faregate.control import Catalogue, Deployment, Provider
from faregate.core.money import picos
from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.card import Rate, is_provisional
from faregate.core.usage import Usage
from faregate.dialects.operations import DECLARED

OPENAI = Provider("openai", "openai", "https://api.openai.com/v1", {})
OPENAI_DEV = Provider("openai-dev", "openai", "https://api.openai.com/v1", {})
AZURE = Provider("azure-weu", "azure_openai", "https://example.openai.azure.com", {})
ANTHROPIC = Provider("claude", "anthropic", "https://api.anthropic.com", {})
GEMINI = Provider("gemini", "gemini", "https://generativelanguage.googleapis.com/v1beta", {})
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
    tariff = PriceTimeline(card for card in made.cards if not card.service_tier).at(now)
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
    assert {"whisper-1", "tts-1", "dall-e-3", "omni-moderation-latest"} <= set(routes(compiled))
    assert "rerank-v3.5" not in routes(compiled)
    assert all(made.cards for made in compiled.catalogue.deployments)
    made = deployment(compiled, "openai/gpt-4o")
    assert (made.cap_field, made.encoding, made.operations) == (
        "max_completion_tokens",
        "o200k_base",
        ("chat.completions", *RESPONSES),
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
    assert [made.name for made in compiled.catalogue.deployments if made.model] == ["weu-gpt-4o"]
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


@pytest.mark.parametrize(
    ("provider", "model", "operations", "tokens"),
    [
        (ANTHROPIC, "claude-opus-5", MESSAGES, (1_000_000, 128_000)),
        (ANTHROPIC, "claude-haiku-4-5", MESSAGES, (200_000, 64_000)),
        (GEMINI, "gemini-2.5-pro", GENERATE, (1_048_576, 65_536)),
        (GEMINI, "gemini-4-argon", GENERATE, (1_048_576, 1_048_576)),
        (GEMINI, "gemini-embedding-001", EMBED, (0, 0)),
        (GEMINI, "gemini-3.8-live", (), (131_072, 0)),
        # The list of Google's models holds those of others that Vertex AI sells in other formats.
        (GEMINI, "claude-opus-5", (), (1_000_000, 0)),
    ],
)
def test_each_kind_speaks_its_own_formats(
    provider: Provider, model: str, operations: tuple[str, ...], tokens: tuple[int, int]
) -> None:
    """A model of Anthropic's or Google's is priced, bounded and asked in the format of its maker."""
    compiled = compile_catalogue(Declared(providers=(provider,)))
    made = deployment(compiled, routes(compiled)[model][0])
    assert made.cards
    assert made.operations == operations
    assert (made.context_tokens_max, made.output_tokens_max) == tokens


def operations_for(*units: str, kind: str = "openai", model: str = "house-model") -> tuple[str, ...]:
    """What a model that nobody knows can be asked for at these prices."""
    rows = tuple(priced("p", model, unit, "1") for unit in units)
    compiled = compile_catalogue(
        Declared(providers=(Provider("p", kind, "http://127.0.0.1:1/v1", {}),), overrides=rows)
    )
    return deployment(compiled, f"p/{model}").operations


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (("seconds",), ("audio.transcriptions", "audio.translations", "audio.speech")),
        (("characters",), ("audio.speech",)),
        (("images",), (*IMAGES, "images.variations")),
        (("search_units",), ("rerank",)),
        (("requests",), OPERATIONS["openai"]),
        (("input_tokens", "output_tokens", "images"), OPERATIONS["openai"]),
        (("input_tokens", "web_searches"), ("embeddings",)),
    ],
)
def test_nothing_can_be_asked_of_a_model_that_its_prices_do_not_cover(
    units: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """A price by the second makes no chat, and a price of searches makes nothing: its tokens would be free."""
    assert operations_for(*units) == expected


def test_a_price_of_tools_alone_is_no_price() -> None:
    """They come on top of something."""
    rows = (priced("openai", "house-model", "web_searches", "10", 1_000),)
    compiled = compile_catalogue(Declared(providers=(OPENAI,), overrides=rows))
    assert deployment(compiled, "openai/house-model").cards == ()


def test_a_price_by_the_token_makes_a_reranker_of_what_is_called_one() -> None:
    """It reads and answers no tokens, so a price for input is all of it."""
    assert operations_for("input_tokens", model="bge-reranker-v2") == ("rerank",)


def test_a_known_model_is_asked_for_what_its_price_covers() -> None:
    """A slip that prices whisper by the token instead of the second leaves nothing that could be had for nothing."""
    rows = (priced("azure-weu", "gpt-4o-mystery-transcribe", "seconds", "1"),)
    deployed = DeclaredDeployment("d", "azure-weu", "d", "gpt-4o-mystery-transcribe")
    compiled = compile_catalogue(Declared(providers=(AZURE,), deployments=(deployed,), overrides=rows))
    assert "chat.completions" not in deployment(compiled, "d").operations


def test_operations_are_those_that_the_gate_declares() -> None:
    """Names are spelled alike on both sides, and each kind is asked for what it knows."""
    declared = {kind: {each.name for each in DECLARED if kind in each.kinds} for kind in OPERATIONS}
    ours = {kind: {*names, *WITHOUT_MODEL.get(kind, ())} for kind, names in OPERATIONS.items()}
    assert ours == declared


def test_files_and_batches_have_a_place_of_their_own_at_each_provider() -> None:
    """They name no model: the empty name leads to the provider itself, in each stage to its own, and costs nothing."""
    stages = (("dev", ("azure-weu",)),)
    compiled = compile_catalogue(
        Declared(providers=(OPENAI, OPENAI_DEV, AZURE, ANTHROPIC), deployments=(WEU,), stages=stages)
    )
    assert routes(compiled)[""] == ("openai", "azure-weu")
    made = deployment(compiled, "azure-weu")
    assert made.operations == (*FILES, *BATCHES)
    assert (made.model, made.upstream_model, cost(made, Usage())) == ("", "", 0)
    assert [(card.service_tier, card.tiers[0].rates) for card in made.cards] == [("", (Rate("requests", 0, 1),))]
    assert not [row for row in price_rows(compiled.catalogue) if not row.model]


def test_a_deployment_with_the_name_of_its_provider_takes_that_place_away() -> None:
    """It is told, and the deployment works."""
    deployed = DeclaredDeployment("openai", "openai", "gpt-4o", "gpt-4o")
    compiled = compile_catalogue(Declared(providers=(OPENAI,), deployments=(deployed,)))
    assert "" not in routes(compiled)
    assert deployment(compiled, "openai").model == "gpt-4o"
    assert [problem.serious for problem in compiled.problems] == [False]


def test_a_service_tier_has_prices_of_its_own_or_none() -> None:
    """gpt-5 has two cards beside the standard one and batches; gpt-4 can be had in no other tier."""
    compiled = compile_catalogue(Declared(providers=(OPENAI,)))
    tiers = {name: service_tiers(deployment(compiled, f"openai/{name}").cards) for name in ("gpt-5", "gpt-4", "tts-1")}
    assert tiers == {"gpt-5": ("priority", "flex", "batch"), "gpt-4": ("batch",), "tts-1": ()}


def test_an_own_price_of_a_tier_needs_all_of_it() -> None:
    """One unit of a tier that the list does not know is no price of a call there, and the others stay."""
    row = priced("openai", "gpt-4", "input_tokens", "1")._replace(service_tier="priority")
    half = compile_catalogue(Declared(providers=(OPENAI,), overrides=(row,)))
    whole = compile_catalogue(Declared(providers=(OPENAI,), overrides=(row, row._replace(unit="output_tokens"))))
    assert service_tiers(deployment(half, "openai/gpt-4").cards) == ("batch",)
    assert any("in the tier priority" in problem.message for problem in half.problems)
    assert service_tiers(deployment(whole, "openai/gpt-4").cards) == ("priority", "batch")


@pytest.mark.parametrize(("region", "expected"), [("global", 2_500), ("data_zone", 2_750), ("regional", 2_750)])
def test_a_region_raises_the_price_of_tokens(region: str, expected: int) -> None:
    """Azure asks a tenth more where it promises where it processes, and the card says so."""
    deployed = WEU._replace(region=region)
    made = deployment(compile_catalogue(Declared(providers=(AZURE,), deployments=(deployed,))), "weu-gpt-4o")
    assert cost(made, Usage(input_text=1)) == expected
    assert {card.region for card in made.cards} == {"" if region == "global" else region}


def test_a_price_set_for_a_deployment_holds_there_alone() -> None:
    """The deployment's own price goes before that of its model."""
    other = WEU._replace(name="other", upstream_model="other")
    rows = (
        priced("azure-weu", "gpt-4o", "input_tokens", "1"),
        priced("azure-weu", "other", "input_tokens", "3"),
    )
    compiled = compile_catalogue(Declared(providers=(AZURE,), deployments=(WEU, other), overrides=rows))
    costs = [cost(deployment(compiled, name), Usage(input_text=1)) for name in ("weu-gpt-4o", "other")]
    assert costs == [1_000, 3_000]


def test_an_own_price_reaches_other_spellings_of_its_model() -> None:
    """gpt-35-turbo is gpt-3.5-turbo; a snapshot that the list prices apart is not its model."""
    rows = (
        priced("azure-weu", "gpt-3.5-turbo", "input_tokens", "1"),
        priced("azure-weu", "gpt-4o", "input_tokens", "1"),
    )
    deployments = (
        DeclaredDeployment("a", "azure-weu", "a", "gpt-35-turbo"),
        DeclaredDeployment("b", "azure-weu", "b", "gpt-4o-2024-05-13"),
    )
    compiled = compile_catalogue(Declared(providers=(AZURE,), deployments=deployments, overrides=rows))
    assert [cost(deployment(compiled, name), Usage(input_text=1)) for name in "ab"] == [1_000, 5_000]


def test_the_simulator_has_the_prices_that_are_set_for_it() -> None:
    """Models that no list knows become callable by their prices, with every operation that these cover."""
    compiled = compile_catalogue(Declared(providers=(SIMULATOR,), overrides=house("simulator", "sim-1")))
    made = deployment(compiled, "simulator/sim-1")
    assert made.operations == OPERATIONS["openai"]
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
            providers=(OPENAI, AZURE, GEMINI),
            deployments=(DeclaredDeployment("speech", "azure-weu", "mine", "house-speech"),),
            models=(
                DeclaredModel("mystery", ("openai/gpt-99",)),
                DeclaredModel("video", ("gemini/gemini-embedding-2",)),
            ),
        )
    )
    assert [problem.where for problem in compiled.problems] == ["deployments.speech", "models.mystery", "models.video"]
    assert "input_video_mtok" in compiled.problems[2].message
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
    speakable = [
        made
        for made in listed.catalogue.deployments
        # Those that search the web are billed by the call, too.
        if "chat.completions" in made.operations and "-search-" not in made.name
    ]
    assert cost(deployment(own, "openai/gpt-99"), one) == 12_500
    assert (cost(deployment(dearest, "openai/gpt-99"), one) or 0) >= max(cost(made, one) or 0 for made in speakable)
    assert [(problem.serious, problem.where) for problem in own.problems] == [(False, "models.mystery")]
    assert {card.source for card in deployment(dearest, "openai/gpt-99").cards} == {"fallback"}


@pytest.mark.parametrize(
    ("model", "dearest"),
    [("gpt-5.9-mini", "gpt-5.5-pro"), ("claude-opus-9", "claude-opus-4-1"), ("mystery", "o1-pro")],
)
def test_a_ceiling_is_the_dearest_of_the_family_and_says_that_it_is_provisional(model: str, dearest: str) -> None:
    """No member of the family costs more, the card's version tells what is to be trued up, and the operator is told."""
    provider = ANTHROPIC if model.startswith("claude") else OPENAI
    compiled = compile_catalogue(
        Declared(
            providers=(provider,),
            models=(DeclaredModel("new", (f"{provider.name}/{model}",)),),
            unknown_price="ceiling",
        )
    )
    made = deployment(compiled, f"{provider.name}/{model}")
    known = deployment(compiled, f"{provider.name}/{dearest}")
    for usage in (Usage(300_000, output_text=1), Usage(1, input_cache_write=1_000, output_reasoning=9)):
        assert (cost(made, usage) or 0) >= (cost(known, usage) or 0) > 0
    assert [is_provisional(card.version) for card in made.cards] == [True]
    assert made.cards[0].source.startswith("provisional")
    assert not any(is_provisional(card.version) for card in known.cards)
    assert [(problem.serious, problem.where) for problem in compiled.problems] == [(False, "models.new")]


def test_a_declared_ceiling_goes_before_the_dearest_known() -> None:
    """That of the provider first, then that of all; one that leaves something free is none."""
    rows = (
        PriceRow("", "*", "input_tokens", 1_000_000, picos("50")),
        PriceRow("", "*", "output_tokens", 1_000_000, picos("90")),
        PriceRow("openai-dev", "*", "requests", 1, picos("3")),
    )
    to = ("openai/gpt-99", "openai-dev/gpt-99")
    wanted = Declared(
        providers=(OPENAI, OPENAI_DEV), models=(DeclaredModel("m", to),), unknown_price="ceiling", ceiling=rows
    )
    compiled = compile_catalogue(wanted)
    costs = [cost(deployment(compiled, name), Usage(input_text=1, output_text=1)) for name in to]
    assert costs == [140_000, 3_000_000_000]
    half = compile_catalogue(wanted._replace(ceiling=(PriceRow("", "*", "output_tokens", 1, 1),)))
    assert deployment(half, "openai/gpt-99").cards == ()


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
