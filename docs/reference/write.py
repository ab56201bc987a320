"""Writes the parts of the reference that the code knows better than people do: `make docs`.

A page marks such a part with ``<!-- generated: NAME -->`` and ``<!-- end -->``. Columns that people write stay as they
are, found again by the first cell of their row; ``tests/test_docs.py`` fails while one is empty or a part is stale.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER.parent.parent / "src" / "faregate"
TESTS = FOLDER.parent.parent / "tests"

_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_UNITS_OF_TIME = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_UNITS_OF_SIZE = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("B", 1))


class Table(NamedTuple):
    """Columns and rows that the code tells, and the names of the columns that people write.

    ``after`` are columns that the code tells too, to the right of those that people write.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    after: Sequence[str] = ()

    def written(self, cells: Sequence[str]) -> list[str]:
        """Of the cells of a row, those that people write; empty where the row has fewer."""
        there = cells[len(self.columns) : len(cells) - len(self.after)]
        return [there[at] if at < len(there) else "" for at in range(len(self.words))]


def markdown(table: Table, before: str) -> str:
    """The table, with the words that ``before`` had in the rows of the same first cell."""
    kept = {cells[0]: table.written(cells) for cells in rows_of(before)}
    headings = (*table.columns, *table.words, *table.after)
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in table.rows:
        escaped = [cell.replace("|", "\\|") for cell in row]
        told, after = escaped[: len(table.columns)], escaped[len(table.columns) :]
        lines.append(_line([*told, *kept.get(told[0], [""] * len(table.words)), *after]))
    return "\n".join(lines) + "\n"


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of every table in ``text``, headings and rulers left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rulers = {at for at, row in enumerate(cells) if all(set(cell) <= set("-:") and cell for cell in row)}
    return [row for at, row in enumerate(cells) if at not in rulers and at + 1 not in rulers]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# -- errors ------------------------------------------------------------------------------------------------------------


def errors() -> Table:
    """Every public code of the gateway port."""
    from faregate.errors import CODES

    retry = {True: "yes", False: "no", None: ""}
    rows = [(f"`{code}`", str(rule.status), f"`{rule.type}`", retry[rule.should_retry]) for code, rule in CODES.items()]
    return Table(("Code", "Status", "Type", "Retry"), rows, ("When", "What to do"))


def console_errors() -> Table:
    """Codes that only the console tells, or tells with another status."""
    from faregate.console import problems

    rows = [(f"`{code}`", str(status)) for code, status in sorted(problems._STATUSES.items())]
    return Table(("Code", "Status"), rows, ("When",))


# -- bad inputs --------------------------------------------------------------------------------------------------------


def examples(*surfaces: str) -> dict[str, str]:
    """Code → the inputs of the catalogue that get it on these surfaces."""
    from bad_input.catalogue import catalogue

    found: dict[str, list[str]] = {}
    for each in (each for surface in surfaces for each in catalogue()[surface]):
        for code, what in each.codes.items():
            found.setdefault(code, []).append(plain(what))
    return {code: "<br>".join(dict.fromkeys(inputs)) for code, inputs in found.items()}


def taken(surface: str) -> str:
    """The inputs of the catalogue that are no error, as a list."""
    from bad_input.catalogue import catalogue

    inputs = [each for each in catalogue()[surface] if not each.codes]
    return "\n".join(["These are no errors:", "", *(f"- {plain(each.what)}" for each in inputs)]) + "\n"


def plain(what: str) -> str:
    """An input's phrase without what Markdown would take for a tag or for the end of a cell."""
    return what.replace("<", "&lt;").replace("|", "&#124;")


def gateway_inputs() -> str:
    """What gets which code on the gateway port."""
    from faregate.errors import CODES

    told = examples("gateway")
    rows = [(f"`{code}`", told[code]) for code in CODES if code in told]
    return markdown(Table(("Code", "For example"), rows), "") + "\n" + taken("gateway")


def console_inputs() -> str:
    """What gets which code on the console port; some have another status there."""
    from faregate.console.problems import status_of

    told = sorted(examples("admin").items())
    rows = [(f"`{code}`", str(status_of(code)), inputs) for code, inputs in told]
    return markdown(Table(("Code", "Status", "For example"), rows), "") + "\n" + taken("admin")


def command_errors() -> Table:
    """Codes that commands tell of themselves, with their exit status."""
    told = examples("cli", "config")
    rows = [(f"`{code}`", str(status), told.get(code, "")) for code, status in sorted(exits().items())]
    return Table(("Code", "Exit"), rows, ("When",), ("For example",))


def command_refusals() -> str:
    """Codes of the console that a command passes on."""
    from faregate.cli.client import error_of
    from faregate.console.problems import status_of

    own = {*exits(), *_findings()}
    told = sorted((code, inputs) for code, inputs in examples("cli").items() if code not in own)
    rows = [(f"`{code}`", str(error_of(code, status_of(code)).exit_code), inputs) for code, inputs in told]
    return markdown(Table(("Code", "Exit", "For example"), rows), "") + "\n" + taken("cli")


@cache
def exits() -> Mapping[str, int]:
    """Code → exit status of the errors that are raised below commands, without those of the configuration."""
    from faregate import errors

    kinds = {name: kind for name, kind in vars(errors).items() if getattr(kind, "exit_code", None)}
    found = {kind.code: kind.exit_code for kind in kinds.values()}
    for file in (SOURCE / "supervise.py", *(file for part in _BELOW for file in (SOURCE / part).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in kinds:
                continue
            named = [each.value for each in node.keywords if each.arg == "code"]
            found |= {each.value: kinds[node.func.id].exit_code for each in named if isinstance(each, ast.Constant)}
    return {code: status for code, status in found.items() if code not in {*_findings(), *_ABOVE}}


#: Where commands raise errors with a code of their own.
_BELOW = ("cli", "config", "storage")

#: Of these codes those that commands are told by the console, or that it tells as another.
_ABOVE = ("secret_sealed", "search_too_long")


# -- configuration -----------------------------------------------------------------------------------------------------


def configuration() -> str:
    """One table for each section of ``faregate.yaml``."""
    from faregate.config.schema import Config

    schema = Config.model_json_schema()
    parts = [f"### Top keys\n\n{_section(Config, schema, schema)}"]
    for name, heading in _SECTIONS.items():
        model = _model_named(name)
        parts.append(f"### {heading}\n\n{_section(model, schema['$defs'][name], schema)}")
    return "\n".join(parts)


#: Class of the schema → its place in the file.
_SECTIONS = {
    "Gateway": "`gateway`",
    "AnswerHeaders": "`gateway.headers`",
    "Console": "`console`",
    "Tls": "`gateway.tls`, `console.tls`",
    "Provider": "`providers[]`",
    "Timeouts": "`providers[].timeouts`",
    "Lookup": "`providers[].lookup`",
    "Deployment": "`deployments[]`",
    "Model": "`models[]`",
    "Selected": "`models[].instead[]`",
    "MirrorTo": "`models[].mirror`",
    "SelectedCallers": "`models[].instead[].select`",
    "Pool": "`pools[]`",
    "PoolMember": "`pools[].use[]`",
    "PriorityRange": "`pools[].priority[]`",
    "Breaker": "`breaker`, `pools[].breaker`",
    "Retry": "`retry`, `pools[].retry`",
    "Service": "`services[]`",
    "ServicePrice": "`services[].price`",
    "ServiceUnits": "`services[].price.units`",
    "ServiceCompute": "`services[].price.compute`",
    "ServiceFlops": "`services[].price.flops`",
    "Stage": "`stages.NAME`",
    "Pricing": "`pricing`",
    "PriceOverride": "`pricing.overrides[]`",
    "CeilingPrice": "`pricing.ceiling[]`",
    "ChargeRule": "`pricing.charges[]`",
    "ChargeSelector": "`pricing.charges[].select`",
    "Capacity": "`capacities[]`",
    "Limits": "`limits`",
    "Denial": "`limits.denials.NAME`",
    "RefusalStatuses": "`limits.statuses`",
    "RefusalDenials": "`limits.denial`",
    "Brake": "`limits.brake`",
    "Unknowns": "`unknowns`",
    "Alerts": "`alerts`",
    "AlertChannel": "`alerts.channels[]`",
    "UnknownsAlert": "`alerts.unknowns`",
    "AzureBudget": "`alerts.azure_budget`",
    "AzureBudgetRule": "`alerts.azure_budget.rules[]`",
    "Content": "`content`",
    "ContentRule": "`content.redaction[]`",
    "Cache": "`cache`",
    "ProviderCredential": "`providers[].credential`",
    "Identity": "`identity`",
    "Issuer": "`identity.issuers[]`",
    "Claims": "`identity.issuers[].claims`",
    "AccountingSettings": "`identity.accounting`",
    "ContextHeaderNames": "`identity.headers`",
    "Journal": "`journal`",
    "Logging": "`logging`",
}


def _model_named(name: str) -> Any:
    """The class of the schema; groups of settings stand in files of their own."""
    from faregate.config import schema, section

    del schema
    (found,) = (each for each in _below(section.Section) if each.__name__ == name)
    return found


def _below(model: Any) -> Iterator[Any]:
    for each in model.__subclasses__():
        yield each
        yield from _below(each)


def _section(model: Any, described: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    missing = sorted(set(root["$defs"]) - set(_SECTIONS))
    if missing:
        raise SystemExit(f"write.py: sections without a heading: {', '.join(missing)}")
    rows = []
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        kind = _kind(described["properties"][name])
        required = name in described.get("required", ())
        default = "**required**" if required else _default(field.default, kind)
        rows.append((f"`{name}`", kind, default, field.description or ""))
    return markdown(Table(("Key", "Type", "Default", "Meaning"), rows), "")


def _kind(told: Mapping[str, Any]) -> str:
    """A JSON schema as a few words."""
    choices = [each for each in told.get("anyOf", ()) if each.get("type") != "null"]
    if "MiB" in str(told.get("examples", "")):
        return "size"
    if len(choices) == 1:
        return _kind(choices[0])
    if "60s" in str(told.get("examples", "")):
        return "duration"
    if "12.5" in str(told.get("examples", "")):
        return "percentage"
    if "7.5" in str(told.get("examples", "")):
        return "gigabytes"
    if "enum" in told:
        return " \\| ".join(f"`{value}`" for value in told["enum"]).replace("\\|", "or")
    if "const" in told:
        return f"`{told['const']}`"
    if "$ref" in told or told.get("allOf"):
        return "mapping"
    kind = told.get("type")
    if kind == "integer":
        bounds = [
            f"from {told['minimum']}" if "minimum" in told else "",
            f"to {told['maximum']}" if "maximum" in told else "",
        ]
        return " ".join(["whole number", *(bound for bound in bounds if bound)])
    if kind == "array":
        items = told.get("items", {})
        if "enum" in items:
            return f"list of {_kind(items)}"
        return f"list of {_kind(items)}s" if items.get("type") == "string" else "list"
    return {"string": "text", "boolean": "true or false", "object": "mapping by name"}.get(str(kind), "price")


def _default(value: Any, kind: str) -> str:
    if value is None or value in ("", (), {}) or kind == "mapping":
        return ""
    if kind == "duration":
        return _in_units(value, _UNITS_OF_TIME)
    if kind == "size":
        return _in_units(value, _UNITS_OF_SIZE)
    if isinstance(value, tuple):
        # A range of statuses is written with a dash.
        texts = ("-".join(map(str, sorted(set(each)))) if isinstance(each, tuple) else str(each) for each in value)
        return f"`[{', '.join(texts)}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _in_units(value: int, units: Sequence[tuple[str, int]]) -> str:
    return next(f"`{value // size}{unit}`" for unit, size in units if value % size == 0)


def variables() -> Table:
    """Every variable that overrides a key."""
    from faregate.config.variables import documented

    return Table(("Variable", "Key"), [(f"`{name}`", f"`{key}`") for name, key in documented()])


def findings() -> Table:
    """Codes of what can be wrong with a configuration."""
    told = examples("config", "cli")
    rows = [(f"`{code}`", told.get(code, "")) for code in sorted(_findings())]
    return Table(("Code",), rows, ("When",), ("For example",))


def _findings() -> set[str]:
    return {code for file in (SOURCE / "config").glob("*.py") for code in re.findall(r"CFG-[A-Z]+", file.read_text())}


# -- command line ------------------------------------------------------------------------------------------------------


def programs() -> Iterator[tuple[str, Any]]:
    """``(words, command)`` of every command that can be typed."""
    from faregate.cli.main import COMMANDS, program_of

    for name, command in COMMANDS.items():
        program: Any = program_of(name, command)
        below = getattr(program, "commands", None)
        if below is None:
            yield f"faregate {name}", program
        else:
            yield from ((f"faregate {name} {verb}", inner) for verb, inner in below.items())


def command_line() -> str:
    """A heading, a sentence and a table of options for each command."""
    parts = []
    for words, program in programs():
        about = (program.help or program.callback.__doc__ or "").strip()
        rows = [_parameter(parameter) for parameter in program.params if parameter.name != "help"]
        table = markdown(Table(("Option", "Default", "Meaning"), rows), "")
        parts.append(f"### `{words}`\n\n{about}\n\n{table}")
    return "\n".join(parts)


def _parameter(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        told = parameter.metavar or parameter.name.upper()
        return f"`{told}`", "", parameter.help or ""
    longest = max(parameter.opts, key=len)
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper().rstrip('_')}"
    default = parameter.default
    shown = "" if default in (None, False) or callable(default) else f"`{default}`"
    if getattr(parameter, "required", False):
        shown = "**required**"
    about = parameter.help or _PLAIN.get(parameter.name, "")
    if parameter.envvar:
        about += f" Also `{parameter.envvar}`."
    return f"`{longest}{value}`", shown, about


#: Options whose name says it all carry no help of their own.
_PLAIN = {
    "organization": "Organization of it.",
    "team": "Team of it.",
    "project": "Project of it.",
    "user": "User of it.",
    "product": "Product of it.",
    "stage": "Stage of it.",
    "role": "Role of it.",
    "state": "State of it.",
    "unit": "Unit of it.",
    "window": "Window of it.",
    "provider": "Provider of it.",
    "model": "Model of it.",
}


# -- admin API ---------------------------------------------------------------------------------------------------------


def described_api() -> dict[str, Any]:
    """The OpenAPI document that the console serves."""
    from fastapi import FastAPI

    from faregate.console.app import ALONE, ROUTERS
    from faregate.console.openapi import document_of

    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router, prefix="/api/v1")
    for router in ALONE:
        app.include_router(router)
    return document_of(app)


@cache
def admin_api() -> Table:
    """Every route with its sentence, the parameters of its query and the fields of its body."""
    document = described_api()
    rows = []
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            words = [part for part in told["description"].split("\n\n") if not part.startswith("Takes the permission")]
            about = " ".join(words).replace("``", "`")
            permission = f"`{told['x-permission']}`" if "x-permission" in told else "its own secret"
            rows.append((f"`{method.upper()} {path}`", about, permission, _query(told), _fields(told, document)))
    return Table(("Route", "Does", "Permission", "Parameters", "Fields of the body"), rows)


def _query(told: Mapping[str, Any]) -> str:
    named = [each for each in told.get("parameters", ()) if each.get("in") == "query"]
    names = ["tag.NAME" if each["name"] == "tags" else each["name"] for each in named]
    return ", ".join(f"**{name}**" if each["required"] else name for name, each in zip(names, named, strict=True))


def roles() -> Table:
    """Every role a key may have, and where it may be."""
    from faregate.core.access import ROLES, WHOLE_ROLES

    places = {"root": "the installation", "manager": "a team, project or product", "user": "a user"}
    rows = []
    for role, about in ROLES.items():
        whole = "the installation, or a part of it" if role in WHOLE_ROLES else "an organization, or a part of it"
        rows.append((f"`{role}`", about, places.get(role, whole)))
    return Table(("Role", "For whom", "Its key is of"), rows)


def permissions() -> Table:
    """Every permission, what it allows and who holds it."""
    from faregate.core.access import GRANTED, OF_SCOPE, PERMISSIONS, ROLES

    rows = []
    for name, about in PERMISSIONS.items():
        holders = ", ".join(role for role in ROLES if name in GRANTED[role])
        rows.append((f"`{name}`", about, "its scope" if name in OF_SCOPE else "the installation", holders))
    return Table(("Permission", "Allows", "Over", "Held by"), rows)


def _fields(told: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    content = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    for candidate in (content, *content.get("anyOf", ())):
        name = candidate.get("$ref", "").rpartition("/")[2]
        if name:
            schema = document["components"]["schemas"][name]
            needed = schema.get("required", ())
            return ", ".join(f"**{field}**" if field in needed else field for field in schema["properties"])
    return ""


# -- simulator, events -------------------------------------------------------------------------------------------------


def steering() -> Table:
    """The fields of a ``sim:`` line."""
    import msgspec

    from faregate.simulator.steering import Steering

    rows = []
    for field in msgspec.structs.fields(Steering):
        default = field.default if field.default is not msgspec.NODEFAULT else {}
        rows.append((f"`{field.name}`", f"`{msgspec.json.encode(default).decode()}`"))
    return Table(("Field", "Default"), rows, ("Meaning",))


def profiles() -> Table:
    """Models of the simulator's own."""
    from faregate.simulator.steering import PROFILES

    rows = [
        (f"`{name}`", ", ".join(f"{key} {value}" for key, value in fields.items())) for name, fields in PROFILES.items()
    ]
    return Table(("Model", "Steered as"), rows)


def faults() -> Table:
    """The ways in which the simulator misbehaves."""
    from faregate.simulator.faults import FAULTS

    yes = {True: "yes", False: "no"}
    rows = [
        (f"`{name}`", each.code, each.meaning, yes[each.served], yes[each.complete]) for name, each in FAULTS.items()
    ]
    return Table(("Fault", "Code", "What happens", "Billed", "Whole"), rows)


def events() -> str:
    """The facts of the journal with their fields."""
    from faregate.core.ledger import events as module

    parts = []
    names = "Started Intended Progressed Redirected Lost Settled Refused Recalled Attempt"
    for name in names.split():
        kind = getattr(module, name)
        about = (kind.__doc__ or "").strip().splitlines()[0]
        parts.append(f"| `{name}` | {about} | {', '.join(f'`{field}`' for field in kind._fields)} |")
    return "\n".join([_line(("Event", "Meaning", "Fields")), _line(["---"] * 3), *parts]) + "\n"


def record() -> Table:
    """The fields of a request record, from the function that shows one."""
    source = (SOURCE / "console" / "requests.py").read_text()
    body = source.partition("def shape(")[2].partition("\ndef ")[0]
    names: list[str] = []
    for line in body.splitlines():
        if "IDENTITIES" in line:
            from faregate.console.requests import IDENTITIES

            names += [name for name in IDENTITIES if name != "run"]
        elif "PLACES" in line:
            from faregate.console.requests import PLACES

            names += PLACES
        elif "_others(" in line:
            from faregate.core.usage import OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS

            names += [*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS, "units"]
        elif found := re.match(r'        "([a-z_]+)":', line):
            names.append(found[1])
    return Table(("Field",), [(f"`{name}`",) for name in names], ("Meaning",))


def limit_units() -> Table:
    """What a limit may count."""
    from faregate.core.limits.kinds import KINDS

    rows = [(f"`{kind.unit}`", kind.held, kind.posted) for kind in KINDS.values()]
    return Table(("Unit", "Held at admission", "Posted at the end"), rows)


# -- gateway -----------------------------------------------------------------------------------------------------------


def operations() -> Table:
    """What passes to providers, and what is refused by name until it can be metered."""
    from faregate.dialects import DIALECTS
    from faregate.dialects.operations import AZURE, DECLARED, SERVICES
    from faregate.dialects.paths import gate_paths

    rows = []
    for declared in DECLARED:
        paths = [path for path in gate_paths(declared) if not path.startswith("/openai/v1/")]
        asked = f"`{declared.method} {paths[0]}`" + "".join(f", `{path}`" for path in paths[1:])
        below = "yes" if AZURE in declared.kinds and declared.azure == "deployment" else ""
        meter = declared.meter if declared.name in DIALECTS else "refused by name: not metered yet"
        rows.append((f"`{declared.name}`", asked, below, ", ".join(f"`{kind}`" for kind in declared.kinds), meter))
    # Services are configured, so that there may be any number of them, or none.
    rows.append((f"`{SERVICES.name}`", f"`{SERVICES.path}`, methods by configuration", "", "services", SERVICES.meter))
    return Table(("Operation", "Request", "Below a deployment", "Kinds of providers", "Metered by"), rows)


PARTS: Mapping[str, Callable[[], Table | str]] = {
    "errors": errors,
    "gateway-inputs": gateway_inputs,
    "console-errors": console_errors,
    "console-inputs": console_inputs,
    "command-errors": command_errors,
    "command-refusals": command_refusals,
    "configuration": configuration,
    "variables": variables,
    "findings": findings,
    "findings-taken": lambda: taken("config"),
    "command-line": command_line,
    "admin-api": admin_api,
    "roles": roles,
    "permissions": permissions,
    "steering": steering,
    "profiles": profiles,
    "faults": faults,
    "events": events,
    "record": record,
    "limit-units": limit_units,
    "operations": operations,
}


def rewritten(page: str) -> str:
    """A page with its generated parts as the code has them now."""

    def part(match: re.Match[str]) -> str:
        told = PARTS[match[2]]()
        text = told if isinstance(told, str) else markdown(told, match[3])
        return f"{match[1]}\n{text}\n{match[4]}"

    return _PART.sub(part, page)


def main() -> int:
    """Rewrite every page of the reference; says which ones changed."""
    sys.path.append(str(TESTS))
    for file in sorted(FOLDER.glob("*.md")):
        before = file.read_text()
        after = rewritten(before)
        if after != before:
            file.write_text(after)
            sys.stdout.write(f"wrote {file.name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
