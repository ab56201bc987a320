"""``faregate check``: everything that is wrong with a configuration, at once."""

from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.output import Json, emit, emit_json, finding_json, say
from faregate.cli.words import numbered
from faregate.config.environment import process_environment
from faregate.config.findings import Finding, Invalid, Place, key_text
from faregate.config.load import Loaded, load, schema_json
from faregate.config.tree import Environment
from faregate.errors import UsageError

CONFIG_DEFAULT = Path("faregate.yaml")

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", envvar="FAREGATE_CONFIG", help="Configuration to check.")
]
Schema = Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file instead.")]


State = Annotated[bool, typer.Option("--state", help="With --schema: that of state files (`faregate apply`).")]


def command(config: Config = CONFIG_DEFAULT, schema: Schema = False, state: State = False, json: Json = False) -> int:
    """Check a configuration: all problems at once, as `file:line:col key: problem`; exit 2 where there are any."""
    if state and not schema:
        raise UsageError("--state goes with --schema; a state file is checked by `faregate diff -f FILE`")
    if schema:
        import json as json_module

        from faregate.config.state_file import state_schema_json

        emit(json_module.dumps(state_schema_json() if state else schema_json(), indent=2))
        return 0
    try:
        loaded = load(config, process_environment())
    except Invalid as invalid:
        if not json:
            raise
        emit_json({"ok": False, "problems": [finding_json(finding) for finding in invalid.findings]})
        return invalid.exit_code
    warnings = [*loaded.warnings, *catalogue_warnings(loaded, str(config))]
    if json:
        emit_json({"ok": True, "problems": [], "warnings": [finding_json(finding) for finding in warnings]})
        return 0
    for warning in warnings:
        say(f"warning: {warning.line()}")
    emit(f"{config}: ok, {_count(loaded)}")
    return 0


def catalogue_warnings(loaded: Loaded, source: str) -> list[Finding]:
    """What cannot work as declared though every key is right: models without a price, or with half of one."""
    # The price data takes a moment to load; a wrong file is told without it.
    from faregate.assembly.catalogue import problems_of

    config = loaded.config
    places = {
        "deployments": [d.name for d in config.deployments],
        "models": [m.name for m in config.models],
        "services": [s.name for s in config.services],
        "prices": [f"{row.provider}/{row.model}.{row.unit}" for row in config.pricing.overrides],
    }
    warnings: list[Finding] = []
    for problem in problems_of(loaded, process_environment()):
        section, _, name = problem.where.partition(".")
        index = places[section].index(name) if name in places.get(section, ()) else None
        if index is None:
            # Models that a provider merely offers need no price until somebody asks for them.
            continue
        key = key_text(("pricing", "overrides", index) if section == "prices" else (section, index))
        warnings.append(Finding("CFG-PRICE", Place(source), f"{key} ({name})", problem.message))
    return warnings


def models_without_maximum(loaded: Loaded, environment: Environment) -> list[str]:
    """Declared deployments and names whose most output tokens nobody knows, where answers are text."""
    from faregate.assembly.catalogue import without_maximum

    declared = {each.name for each in loaded.config.deployments} | {each.name for each in loaded.config.models}
    return [name for name in without_maximum(loaded, environment) if name in declared]


def _count(loaded: Loaded) -> str:
    config = loaded.config
    counts = {
        "provider": len(config.providers),
        "deployment": len(config.deployments),
        "model": len(config.models),
        "service": len(config.services),
        "issuer": len(config.identity.issuers),
    }
    told = [numbered(count, noun) for noun, count in counts.items() if count or noun == "provider"]
    prices = len(config.pricing.overrides)
    return ", ".join([*told, f"{numbered(prices, 'price')} beside the bundled ones" if prices else "bundled prices"])
