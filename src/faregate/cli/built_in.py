"""Configurations that are there without a file: for the first run, and for the demo.

They are YAML texts that go through the same door as a file, so that nothing works here that would not work there.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from faregate.config.tree import Environment

OPENAI_URL = "https://api.openai.com/v1"
AZURE_API_VERSION = "2024-10-21"

#: A model that OpenAI, most Azure resources and the simulator know.
FIRST_MODEL = "gpt-4o-mini"

#: The simulator wants a key, as providers do; any will do.
SIMULATOR_KEY = "sk-any-key-will-do"

#: Dollars per million input and output tokens of the simulator's own models.
SIMULATED_PRICES: Mapping[str, tuple[str, str]] = {
    "sim-1": ("2.50", "10"),
    "sim-fast": ("0.15", "0.60"),
    "sim-slow": ("5", "20"),
    "sim-large": ("2.50", "10"),
    "sim-embed": ("0.02", "0"),
}
SIMULATED_OUTPUT_TOKENS_MAX = 16_384


class BuiltIn(NamedTuple):
    """A configuration, what messages call it, and what the first ``curl`` asks for."""

    text: str
    source: str
    model: str
    #: One line on where calls go.
    about: str
    #: Where the built-in provider is to listen; ``None`` where calls go elsewhere.
    simulator_port: int | None = None


def from_environment(environment: Environment) -> BuiltIn | None:
    """The provider whose variables are set; ``None`` where none is."""
    if environment.get("OPENAI_API_KEY", "").strip():
        url = environment.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL
        provider = {"name": "openai", "kind": "openai", "base_url": url, "api_key": "${OPENAI_API_KEY}"}
        about = f"calls go to {url} with OPENAI_API_KEY"
        return BuiltIn(json.dumps({"providers": [provider]}), "environment:OPENAI_API_KEY", FIRST_MODEL, about)
    names = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT")
    if all(environment.get(name, "").strip() for name in names):
        return _azure(environment)
    return None


def _azure(environment: Environment) -> BuiltIn:
    """One deployment of an Azure resource; its name and its model can be told by variables."""
    deployment = environment.get("AZURE_OPENAI_DEPLOYMENT", "").strip() or FIRST_MODEL
    model = environment.get("AZURE_OPENAI_MODEL", "").strip() or FIRST_MODEL
    version = environment.get("OPENAI_API_VERSION", "").strip() or AZURE_API_VERSION
    provider = {
        "name": "azure",
        "kind": "azure_openai",
        "base_url": "${AZURE_OPENAI_ENDPOINT}",
        "api_key": "${AZURE_OPENAI_API_KEY}",
        "api_version": version,
    }
    place = {"name": deployment, "provider": "azure", "deployment": deployment, "model": model}
    config = {"providers": [provider], "deployments": [place]}
    about = f"calls go to the Azure deployment {deployment} ({model}); AZURE_OPENAI_DEPLOYMENT and _MODEL name another"
    return BuiltIn(json.dumps(config), "environment:AZURE_OPENAI_API_KEY", deployment, about)


def simulated(port: int) -> BuiltIn:
    """The built-in simulator on ``port``: it offers the models of OpenAI, Anthropic and Google at their prices, and its
    own.
    """
    speaks = (("simulator", "openai", "v1"), ("anthropic", "anthropic", "v1"), ("gemini", "gemini", "v1beta"))
    providers = [
        {
            "name": name,
            "kind": kind,
            "base_url": f"http://127.0.0.1:{port}/{base}",
            "api_key": SIMULATOR_KEY,
            "lookup": {"path": "/simulator/truth/{id}"},
        }
        for name, kind, base in speaks
    ]
    models = [
        {"name": name, "to": [f"simulator/{name}"], "max_output_tokens": SIMULATED_OUTPUT_TOKENS_MAX}
        for name in SIMULATED_PRICES
    ]
    overrides = [
        {"provider": "simulator", "model": name, "unit": unit, "per": 1_000_000, "price": price}
        for name, prices in SIMULATED_PRICES.items()
        for unit, price in zip(("input_tokens", "output_tokens"), prices, strict=True)
    ]
    config = {"providers": providers, "models": models, "pricing": {"overrides": overrides}}
    about = "calls go to the built-in provider simulator: no network, no provider key, nothing costs money"
    return BuiltIn(json.dumps(config), "built in", FIRST_MODEL, about, port)
