"""What a good configuration is read as, and the ways into it besides the file."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.config.findings import Invalid
from faregate.config.gate import gate_settings
from faregate.config.load import Given, load_text, schema_json
from faregate.config.schema import Config
from faregate.config.secrets import Pepper, Secrets
from faregate.config.variables import proxy_for, variables
from soaking import examples

#: The example of the contract, as written there.
EXAMPLE = """\
providers:
  - name: openai
    kind: openai                        # openai | azure_openai | anthropic | gemini | http
    base_url: https://api.openai.com/v1 # plain http is accepted for loopback addresses
    api_key: ${OPENAI_API_KEY}
  - name: azure-weu
    kind: azure_openai
    base_url: https://example.openai.azure.com
    api_key: ${AZURE_OPENAI_API_KEY}
    api_version: "2024-10-21"
deployments:
  - {name: weu-gpt-4o, provider: azure-weu, deployment: my-gpt4o, model: gpt-4o}
models:
  - {name: gpt-4o, to: [weu-gpt-4o, openai/gpt-4o]}
pricing:
  unknown: refuse                       # refuse | fallback
  overrides:
    - {provider: openai, model: house-model, unit: input_tokens,  per: 1000000, price: "2.50"}
    - {provider: openai, model: house-model, unit: output_tokens, per: 1000000, price: "10"}
stages:
  dev: {providers: [openai]}
limits: {require: false}
"""
ENVIRONMENT = {"OPENAI_API_KEY": "sk-one", "AZURE_OPENAI_API_KEY": "two"}
MINIMAL = "providers: [{name: a, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]\n"


def config_of(text: str, environment: dict[str, str] | None = None, *given: Given) -> Config:
    return load_text(text.encode(), "faregate.yaml", environment or {}, Path("/nowhere"), given).config


def test_the_example_of_the_contract_works_as_written() -> None:
    """Nothing about it is even a warning."""
    assert load_text(EXAMPLE.encode(), "faregate.yaml", ENVIRONMENT, Path("/nowhere")).warnings == ()


def test_secrets_show_in_no_text_of_the_configuration() -> None:
    """Neither a log of it nor a traceback through it holds one."""
    config = config_of(EXAMPLE, ENVIRONMENT)

    assert "sk-one" not in repr(config) + str(config) + repr(config.providers[0])


def test_a_configuration_handed_to_another_process_is_the_same_there() -> None:
    """Durations, sizes, prices and secrets survive the way through JSON."""
    config = config_of(EXAMPLE + "gateway: {drain: 90s, body_bytes_max: 2MiB}\n", ENVIRONMENT)

    assert Config.model_validate_json(config.model_dump_json()) == config


def test_durations_and_sizes_are_milliseconds_and_bytes() -> None:
    """As people write them, with their unit."""
    gateway = config_of(MINIMAL + "gateway: {drain: 2m, keep_alive: 1500ms, header_bytes_max: 64KiB}\n").gateway

    assert (gateway.drain, gateway.keep_alive, gateway.header_bytes_max) == (120_000, 1_500, 65_536)


def test_a_price_keeps_the_digits_that_were_written() -> None:
    """Quoted or not, no binary fraction comes between the file and the ledger."""
    override = "{provider: a, model: m, unit: input_tokens, per: 1000000, price: 0.123456789012}"
    config = config_of(MINIMAL + f"pricing: {{overrides: [{override}]}}\n")

    assert config.pricing.overrides[0].price == "0.123456789012"


def test_a_literal_reference_can_be_written() -> None:
    """``$${`` stands for ``${``."""
    assert config_of(MINIMAL + 'models: [{name: "$${x}", to: [a/m]}]\n').models[0].name == "${x}"


def test_aliases_and_merges_of_mappings_work() -> None:
    """YAML's own way of not repeating oneself."""
    text = """\
providers:
  - &first {name: a, kind: openai, base_url: 'http://127.0.0.1:1/v1'}
  - {<<: *first, name: b}
"""
    assert [provider.base_url for provider in config_of(text).providers] == ["http://127.0.0.1:1/v1"] * 2


def test_a_variable_overrides_the_file() -> None:
    """``FAREGATE_GATEWAY_PORT`` is ``gateway.port``; text becomes the kind that the key has."""
    environment = {"FAREGATE_GATEWAY_PORT": "4444", "FAREGATE_LIMITS_REQUIRE": "true", "FAREGATE_GATEWAY_DRAIN": "5s"}
    config = config_of(MINIMAL + "gateway: {port: 4000}\n", environment)

    assert (config.gateway.port, config.limits.require, config.gateway.drain) == (4444, True, 5_000)


def test_a_wrong_variable_is_told_by_its_name_and_without_its_value() -> None:
    """What stands in the environment may be a secret that was put into the wrong variable."""
    with pytest.raises(Invalid) as caught:
        config_of(MINIMAL, {"FAREGATE_GATEWAY_PORT": "sk-secret-in-the-wrong-place"})

    assert str(caught.value).startswith("environment:FAREGATE_GATEWAY_PORT gateway.port: ")
    assert "sk-secret" not in str(caught.value)


def test_an_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    """L83: a typing error in a variable does not pass silently, nor does it stop anything."""
    loaded = load_text(MINIMAL.encode(), "f", {"FAREGATE_GATEWAY_PROT": "1"}, Path("/nowhere"))

    assert [warning.hint for warning in loaded.warnings] == ["did you mean FAREGATE_GATEWAY_PORT?"]


def test_variables_of_commands_are_no_settings_and_no_mistake() -> None:
    """``FAREGATE_URL`` belongs to the commands that talk to a console."""
    loaded = load_text(MINIMAL.encode(), "f", {"FAREGATE_URL": "x", "FAREGATE_ADMIN_KEY": "y"}, Path("/nowhere"))

    assert loaded.warnings == ()


def test_the_command_line_goes_before_environment_and_file() -> None:
    """Nearest wins."""
    given = Given("--gateway", ("gateway", "port"), 5000)

    assert config_of(MINIMAL + "gateway: {port: 4000}\n", {"FAREGATE_GATEWAY_PORT": "4444"}, given).gateway.port == 5000


def test_a_bad_value_from_the_command_line_is_told_by_its_option() -> None:
    """An address that others reach is as unsafe there as in the file."""
    with pytest.raises(Invalid) as caught:
        config_of(MINIMAL, None, Given("--gateway", ("gateway", "host"), "0.0.0.0"))

    assert str(caught.value).startswith("--gateway gateway.host: ")


def test_every_variable_names_a_key_of_one_value() -> None:
    """The mapping is a function of the schema, so that no key can be forgotten."""
    known = variables()

    assert known["FAREGATE_GATEWAY_TLS_KEY_FILE"] == ("gateway", "tls", "key_file")
    assert not any(path[0] in ("providers", "models", "deployments") for path in known.values())


def test_the_published_schema_describes_every_key() -> None:
    """Editors show what each key is for."""
    schema = schema_json()
    sections = [schema, *schema["$defs"].values()]
    undescribed = [
        f"{section['title']}.{name}"
        for section in sections
        for name, key in section.get("properties", {}).items()
        if "description" not in key
    ]

    assert undescribed == []


def test_the_gate_is_told_bounds_and_absolute_files() -> None:
    """The gate process knows no configuration file: names are made absolute before."""
    text = MINIMAL + "gateway: {port: 4002, drain: 7s}\njournal: {segment: 1MiB}\ndurability: power\n"
    secrets = Secrets((Pepper("p1", "00" * 32),), "11" * 32)

    told = gate_settings(config_of(text), Path("/etc/faregate"), Path("/var/lib/faregate"), secrets)

    assert (told.port, told.drain_ms, told.journal_segment_bytes, told.durability, told.data_dir, told.peppers) == (
        4002,
        7_000,
        1024 * 1024,
        "power",
        "/var/lib/faregate",
        (("p1", "00" * 32),),
    )


@pytest.mark.parametrize(
    ("gateway", "expected"),
    [
        ("", 64 * 1024**2),
        ("gateway: {held_bodies_bytes_max: 1GiB}", 256 * 1024**2),
        ("gateway: {held_bodies_bytes_max: 32MiB}", 32 * 1024**2),
        ("gateway: {held_bodies_bytes_max: 32MiB, upload_bytes_max: 1MiB}", 10 * 1024**2),
        ("gateway: {key_bodies_bytes_max: 16MiB}", 16 * 1024**2),
    ],
)
def test_the_share_of_a_key_is_a_quarter_and_room_for_the_largest_body(gateway: str, expected: int) -> None:
    """Unless it is set, a key may send a quarter of all bodies at once, and always one whole body."""
    config = config_of(MINIMAL + gateway)
    settings = gate_settings(config, Path("/nowhere"), Path("/data"), Secrets((Pepper("p1", "00" * 32),), "11" * 32))

    assert settings.key_bodies_bytes_max == expected


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://api.openai.com/v1", {"https_proxy": "proxy:3128"}, "http://proxy:3128"),
        ("https://api.openai.com/v1", {"ALL_PROXY": "http://proxy:3128/"}, "http://proxy:3128"),
        ("https://api.openai.com/v1", {"HTTP_PROXY": "http://proxy:3128"}, ""),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, ""),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "local, .openai.com"}, ""),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.openai.com"}, ""),
        (
            "https://api.openai.com/v1",
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "notopenai.com,penai.com"},
            "http://p:1",
        ),
        ("http://127.0.0.1:4010/v1", {"HTTP_PROXY": "http://p:1"}, ""),
        ("http://localhost:4010/v1", {"HTTP_PROXY": "http://p:1"}, ""),
        ("https://api.openai.com/v1", {}, ""),
    ],
)
def test_the_usual_variables_name_the_proxy(url: str, environment: dict[str, str], expected: str) -> None:
    """``HTTPS_PROXY`` and its kin are honoured, never for loopback, and not for what ``NO_PROXY`` lists."""
    assert proxy_for(url, environment) == expected


@pytest.mark.parametrize(
    ("fields", "environment"),
    [
        ("base_url: 'https://api.openai.com/v1'", {"NO_PROXY": "openai.com"}),
        ("base_url: 'https://api.openai.com/v1', proxy: ''", {}),
        ("base_url: 'https://api.openai.com/v1', proxy: 'http://p:1'", {}),
        ("base_url: 'http://127.0.0.1:1/v1'", {}),
    ],
)
def test_a_proxy_of_the_environment_that_nobody_uses_is_not_looked_at(fields: str, environment: dict[str, str]) -> None:
    """What a machine says for other programs keeps nobody from starting."""
    odd = {"ALL_PROXY": "socks5://p:1", "HTTPS_PROXY": "", "FTP_PROXY": "nonsense", "K": "sk-one"}
    text = f"providers: [{{name: a, kind: openai, api_key: '${{K}}', {fields}}}]\n"

    assert load_text(text.encode(), "faregate.yaml", {**odd, **environment}, Path("/nowhere")).warnings == ()


def told(content: bytes) -> int:
    """How many findings some content has."""
    try:
        load_text(content, "faregate.yaml", {}, Path("/nowhere"))
    except Invalid as invalid:
        return len(invalid.findings)
    return 0


@given(st.binary(max_size=300))
@settings(max_examples=examples(60, 2_000))
def test_no_content_at_all_makes_more_than_findings(content: bytes) -> None:
    """Whatever bytes a file holds, they are a configuration or they are told to be none."""
    assert told(content) or load_text(content, "faregate.yaml", {}, Path("/nowhere")).config.providers


_SCALARS = st.one_of(
    st.sampled_from(
        ["no", "0755", "1_000", "~", "{}", "[]", "1.5", "${X}", "file:/nope", "'", '"', "*a", "&a b", "<<"]
    ),
    st.text(max_size=12),
)
_KEYS = st.sampled_from([*Config.model_fields, "name", "kind", "base_url", "timeouts", "to", "price", "<<", "x"])


@given(st.recursive(_SCALARS, lambda below: st.dictionaries(_KEYS, below, max_size=4), max_leaves=12))
@settings(max_examples=examples(60, 2_000))
def test_no_shape_of_keys_and_values_makes_more_than_findings(tree: object) -> None:
    """Keys we know with values of any shape: told, not crashed on."""

    def lines(node: object, indent: int) -> str:
        if isinstance(node, dict):
            return "".join(f"{' ' * indent}{key}:\n{lines(below, indent + 2)}" for key, below in node.items())
        return f"{' ' * indent}{node}\n"

    content = lines(tree, 0).encode()

    assert told(content) or load_text(content, "faregate.yaml", {}, Path("/nowhere")).config.providers
