"""How the configuration becomes what the catalogue is compiled from."""

from pathlib import Path

from faregate.assembly.catalogue import problems_of
from faregate.assembly.declare import declared
from faregate.catalogue.declared import Declared, PriceRow
from faregate.config.load import Loaded, load_text

CONFIG = """\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: sk-openai-secret, ca_file: ca.pem}
  - name: azure
    kind: azure_openai
    base_url: https://example.openai.azure.com/
    api_key: azure-secret
    api_version: "2024-10-21"
    timeouts: {total: 90s}
    client_gone: drain
    proxy: http://own-proxy:8080
  - {name: local, kind: openai, base_url: "http://127.0.0.1:9/v1", lookup: {path: "/lookup/{id}"}}
deployments:
  - {name: weu, provider: azure, deployment: my-gpt4o, model: gpt-4o, max_output_tokens: 1000}
  - {name: local-1, provider: local, model: llama}
models:
  - {name: gpt-4o, to: [weu, openai/gpt-4o], max_output_tokens: 2000}
  - {name: best, to: [gpt-4o, local-1, weu]}
  - {name: local-1, to: [local-1]}
pricing:
  overrides:
    - {provider: local, model: llama, unit: input_tokens, per: 1000000, price: "0.5"}
    - {provider: local, model: llama, unit: output_tokens, per: 1000000, price: "1",
       effective_from: "2026-12-01T00:00:00+01:00"}
stages:
  dev: {providers: [local]}
limits: {require: true}
"""

OWN_PRICE = {
    "id": "prc_1",
    "provider": "openai",
    "model": "gpt-4o",
    "unit": "output_tokens",
    "per": 1_000_000,
    "pico": 12_000_000_000_000,
    "effective_from": 5,
    "effective_to": 0,
    "source": "api",
    "above_input_tokens": 0,
    "details": {},
}


def loaded(tmp_path: Path) -> Loaded:
    (tmp_path / "ca.pem").touch()
    return load_text(CONFIG.encode(), "faregate.yaml", {}, tmp_path)


def made(tmp_path: Path, **environment: str) -> Declared:
    config = loaded(tmp_path)
    return declared(config.config, config.folder, environment, [OWN_PRICE], ["search"])


def test_each_kind_of_provider_gets_its_kind_of_credential(tmp_path: Path) -> None:
    """Ready-made headers, and the secret among the texts that answers are masked of."""
    openai, azure, local = made(tmp_path).providers

    assert [provider.credential for provider in (openai, azure, local)] == [
        {"authorization": "Bearer sk-openai-secret"},
        {"api-key": "azure-secret"},
        {},
    ]
    assert (openai.masked, local.masked) == (("sk-openai-secret",), ())


def test_files_and_times_are_ready_to_use(tmp_path: Path) -> None:
    """The gate knows neither the configuration's folder nor its units."""
    openai, azure, local = made(tmp_path).providers

    assert (openai.ca_file, azure.total_timeout_ms, azure.client_gone, azure.base_url, local.lookup) == (
        str(tmp_path / "ca.pem"),
        90_000,
        "drain",
        "https://example.openai.azure.com",
        "/lookup/{id}",
    )


def test_the_environments_proxy_is_for_those_that_name_none_and_are_elsewhere(tmp_path: Path) -> None:
    """A provider's own proxy goes before it, and loopback is never sent through one."""
    providers = made(tmp_path, HTTPS_PROXY="http://proxy:3128", HTTP_PROXY="http://proxy:3128").providers

    assert [provider.proxy for provider in providers] == ["http://proxy:3128", "http://own-proxy:8080", ""]


def test_a_deployment_is_called_what_the_provider_calls_it(tmp_path: Path) -> None:
    """By its own name there, else by its model."""
    assert [(each.name, each.upstream_model, each.model) for each in made(tmp_path).deployments] == [
        ("weu", "my-gpt4o", "gpt-4o"),
        ("local-1", "llama", "llama"),
    ]


def test_a_model_that_goes_to_a_model_goes_where_that_goes(tmp_path: Path) -> None:
    """In order and each place once; a deployment goes before a model of the same name."""
    assert {model.name: model.to for model in made(tmp_path).models} == {
        "gpt-4o": ("weu", "openai/gpt-4o"),
        "best": ("weu", "openai/gpt-4o", "local-1"),
        "local-1": ("local-1",),
    }


def test_prices_are_exact_and_the_books_own_come_last(tmp_path: Path) -> None:
    """What comes later in the list wins, so the API overrides the file."""
    december = 1_796_079_600_000_000_000  # 2026-11-30T23:00:00Z

    assert made(tmp_path).overrides == (
        PriceRow("local", "llama", "input_tokens", 1_000_000, 500_000_000_000),
        PriceRow("local", "llama", "output_tokens", 1_000_000, 1_000_000_000_000, december),
        PriceRow("openai", "gpt-4o", "output_tokens", 1_000_000, 12_000_000_000_000, 5, 0, "api"),
    )


def test_stages_projects_and_the_rule_about_limits_are_passed_on(tmp_path: Path) -> None:
    """As the file and the books have them."""
    found = made(tmp_path)

    assert (found.stages, found.projects, found.require_limit, found.unknown_price) == (
        (("dev", ("local",)),),
        ("search",),
        True,
        "refuse",
    )


def test_what_cannot_be_used_is_found_without_starting_anything(tmp_path: Path) -> None:
    """`faregate check` asks the same compiler that the console uses."""
    text = CONFIG.replace('    - {provider: local, model: llama, unit: input_tokens, per: 1000000, price: "0.5"}\n', "")
    (tmp_path / "ca.pem").touch()
    problems = problems_of(load_text(text.encode(), "faregate.yaml", {}, tmp_path), {})

    assert "deployments.local-1" in {problem.where for problem in problems}


def test_native_kinds_are_at_home_and_bring_their_credential(tmp_path: Path) -> None:
    """Anthropic and Gemini need no address, and each takes its key in a header of its own; an address still wins."""
    text = """\
providers:
  - {name: claude, kind: anthropic, api_key: "${CLAUDE}"}
  - {name: google, kind: gemini, api_key: "${GOOGLE}"}
  - {name: here, kind: gemini, base_url: "http://127.0.0.1:4010/v1beta"}
"""
    environment = {"CLAUDE": "sk-ant-secret-0001", "GOOGLE": "google-secret-0002"}
    config = load_text(text.encode(), "faregate.yaml", environment, tmp_path)
    claude, google, here = declared(config.config, config.folder, environment, [], []).providers

    assert (claude.base_url, claude.credential) == ("https://api.anthropic.com/v1", {"x-api-key": "sk-ant-secret-0001"})
    assert (google.base_url, google.credential) == (
        "https://generativelanguage.googleapis.com/v1beta",
        {"x-goog-api-key": "google-secret-0002"},
    )
    assert (here.base_url, here.credential) == ("http://127.0.0.1:4010/v1beta", {})


def test_names_that_lead_to_names_in_many_layers_are_followed_once_each(tmp_path: Path) -> None:
    """Forty layers of two names, each leading to both of the next: a million million ways, and two places."""
    layers = [f"  - {{name: {side}{at}, to: [a{at + 1}, b{at + 1}]}}\n" for at in range(40) for side in "ab"]
    ends = "  - {name: a40, to: [openai/gpt-4o]}\n  - {name: b40, to: [local-1]}\n"
    text = CONFIG.replace("models:\n", "models:\n" + "".join(layers) + ends, 1)
    (tmp_path / "ca.pem").touch()
    config = load_text(text.encode(), "faregate.yaml", {}, tmp_path)
    found = {model.name: model.to for model in declared(config.config, config.folder, {}).models}

    assert (found["a0"], found["b40"], found["best"]) == (
        ("openai/gpt-4o", "local-1"),
        ("local-1",),
        ("weu", "openai/gpt-4o", "local-1"),
    )
