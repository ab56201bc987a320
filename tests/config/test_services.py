"""Services in the configuration: what reaches the gate, and what is refused, where, and in which words."""

from pathlib import Path
from typing import NamedTuple

import pytest

from faregate.assembly.declare import declared
from faregate.catalogue.compile import Compiled, compile_catalogue
from faregate.config.findings import Invalid
from faregate.config.load import load_text
from faregate.core.metering.service import ServiceTerms, Told
from faregate.core.pricing.card import Rate
from faregate.core.usage import Measure

SECRET = "ck-5d1f0c7b9e24a8"

GOOD = """\
services:
  - name: ocr
    base_url: http://127.0.0.1:9000/api/
    api_key: ${KEY}
    headers: [X-Own]
    max_duration: 30s
    price:
      per_call: "0.001"
      units: {header: X-Units, price: "0.5", max: 9}
      compute: {rate_per_hour: "2.40", memory_gb: 8, memory_gb_total: 64}
      flops: {header: x-flops, price_per_teraflop: 1, max: 10}
"""


def compiled(text: str, **environment: str) -> Compiled:
    """The catalogue of a configuration."""
    config = load_text(text.encode(), "faregate.yaml", {"KEY": SECRET, **environment}, Path("/nowhere")).config
    return compile_catalogue(declared(config, Path("/nowhere"), environment))


def test_a_service_reaches_the_gate_whole() -> None:
    """It needs no provider beside it; place, terms and rates are what was written."""
    catalogue, problems = compiled(GOOD)
    (provider,), (place,) = catalogue.providers, catalogue.deployments
    assert problems == ()
    assert (provider.name, provider.kind, provider.base_url) == ("ocr", "http", "http://127.0.0.1:9000/api")
    assert provider.credential == {"authorization": f"Bearer {SECRET}"}
    assert (provider.total_timeout_ms, provider.masked) == (30_000, (SECRET,))
    assert (place.name, place.provider, place.model, place.operations) == ("ocr", "ocr", "ocr", ("ocr",))
    assert place.service == ServiceTerms(
        headers=("x-own",),
        duration_ms_max=30_000,
        request_bytes_max=10 * 1024**2,
        told=(Told("units", "", "x-units", 9), Told("gigaflops", "", "x-flops", 1, 10**9)),
    )
    assert place.cards[0].tiers[0].rates == (
        Rate("requests", 10**9, 1),
        Rate("busy_milliseconds", 2_400_000_000_000, 28_800_000),
        Rate("seconds", 0, 1),
        Rate("bytes", 0, 1_000_000),
        Rate("units", 500_000_000_000, 1),
        Rate("gigaflops", 10**12, 1000),
    )
    assert catalogue.routes == ()


def test_other_ways_to_write_it() -> None:
    """A header of its own for the credential, operations of every call, and a price of the books over the file's."""
    text = GOOD.replace("    headers: [X-Own]\n", "    api_key_header: X-Key\n    max_answer_bytes: 5MiB\n")
    text = text.replace(
        "{header: x-flops, price_per_teraflop: 1, max: 10}", "{per_call: 1500000001, price_per_teraflop: 1}"
    )
    text += "pricing: {overrides: [{provider: ocr, model: ocr, unit: requests, per: 1, price: 7}]}\n"
    text += "stages: {dev: {providers: [ocr]}}\n"
    catalogue, problems = compiled(text, HTTP_PROXY="http://proxy:1", NO_PROXY="")
    assert problems == ()
    assert catalogue.providers[0].credential == {"x-key": SECRET}
    assert catalogue.stages == {"dev": ("ocr",)}
    place = catalogue.deployments[0]
    assert place.service is not None
    assert (place.service.fixed, place.service.answer_bytes_max) == ((Measure("gigaflops", "", 2),), 5 * 1024**2)
    assert Rate("requests", 7 * 10**12, 1) in place.cards[0].tiers[0].rates


def test_the_name_of_an_operation_is_told() -> None:
    """It works, and whoever names it in a limit should know that both are meant."""
    _, (problem,) = compiled(GOOD.replace("name: ocr", "name: rerank"))
    assert (problem.where, problem.serious) == ("services.rerank", False)


class Row(NamedTuple):
    """``old`` in the good configuration becomes ``new``: the code, the line, and words of the message."""

    id: str
    old: str
    new: str
    code: str
    line: int
    words: str


TWIN = "  - {name: ocr, base_url: 'http://127.0.0.1:1', max_duration: 1s, price: {per_call: 1}}\n"

ROWS = [
    Row("no maximum of time", "    max_duration: 30s\n", "", "CFG-MISSING", 2, "max_duration: is missing"),
    Row("too long", "30s", "25h", "CFG-RANGE", 6, "no call is that long"),
    Row("no maximum of units", ", max: 9}", "}", "CFG-MISSING", 9, "max: is missing"),
    Row("no maximum of flops", ", max: 10}", "}", "CFG-MISSING", 11, "no maximum"),
    Row(
        "no maximum of bytes", 'per_call: "0.001"', "per_million_bytes_out: 1", "CFG-MISSING", 8, "set max_answer_bytes"
    ),
    Row("flops of nothing", "header: x-flops, ", "", "CFG-CONFLICT", 11, "says nothing of how many"),
    Row("flops twice", "header: x-flops", "per_call: 5, header: x-flops", "CFG-CONFLICT", 11, "both"),
    Row("exact flops with a maximum", "header: x-flops", "per_call: 5", "CFG-CONFLICT", 11, "exact already"),
    Row("more memory than there is", "memory_gb: 8", "memory_gb: 65", "CFG-CONFLICT", 10, "more than memory_gb_total"),
    Row("no memory", "memory_gb: 8", "memory_gb: 0", "CFG-RANGE", 10, "not a size of memory"),
    Row("negative memory", "memory_gb: 8", "memory_gb: -1", "CFG-RANGE", 10, "not a size of memory"),
    Row(
        "endless numbers",
        '"2.40", memory_gb: 8',
        '"8999999", memory_gb: "63.999"',
        "CFG-RANGE",
        10,
        "numbers that no",
    ),
    Row("negative price", 'per_call: "0.001"', 'per_call: "-1"', "CFG-RANGE", 8, "per_call"),
    Row("unknown price", 'per_call: "0.001"', "per_minute: 1", "CFG-UNKNOWN", 8, "per_minute"),
    Row(
        "body larger than any",
        "    headers",
        "    max_request_bytes: 11MiB\n    headers",
        "CFG-CONFLICT",
        5,
        "body_bytes_max",
    ),
    Row(
        "answer larger than counted",
        "    headers",
        "    max_answer_bytes: 2GiB\n    headers",
        "CFG-RANGE",
        5,
        "max_answer",
    ),
    Row("HEAD", "    headers", "    methods: [HEAD]\n    headers", "CFG-RANGE", 5, "GET"),
    Row("no method", "    headers", "    methods: []\n    headers", "CFG-MISSING", 5, "is empty"),
    Row("relative path", "    headers", "    paths: [v1]\n    headers", "CFG-RANGE", 5, "beginning of a path"),
    Row("path with dots", "    headers", "    paths: [/a/../b]\n    headers", "CFG-RANGE", 5, "beginning of a path"),
    Row("escaped path", "    headers", "    paths: [/a%2fb]\n    headers", "CFG-RANGE", 5, "beginning of a path"),
    Row("credential passes", "[X-Own]", "[Authorization]", "CFG-UNSAFE", 5, "never passes"),
    Row("own credential passes", "[X-Own]", "[x-key]\n    api_key_header: x-key", "CFG-CONFLICT", 5, "ours alone"),
    Row("no header", "[X-Own]", '["a b"]', "CFG-RANGE", 5, "not the name of a header"),
    Row("framing as credential", "[X-Own]", "[x-own]\n    api_key_header: Host", "CFG-RANGE", 6, "no credential"),
    Row(
        "a caller's header as credential",
        "[X-Own]",
        "[x-own]\n    api_key_header: User-Agent",
        "CFG-RANGE",
        6,
        "no credential",
    ),
    Row(
        "our header as credential",
        "[X-Own]",
        "[x-own]\n    api_key_header: x-request-id",
        "CFG-RANGE",
        6,
        "no credential",
    ),
    Row("units by a usual header", "X-Units", "Age", "CFG-RANGE", 9, "tells something else"),
    Row("units by framing", "X-Units", "Content-Length", "CFG-RANGE", 9, "tells something else"),
    Row("dots in its address", ":9000/api/", ":9000/a/../b", "CFG-RANGE", 3, "dot or empty segments"),
    Row("gateway itself", ":9000/api/", ":4000", "CFG-UNSAFE", 3, "gateway of this installation"),
    Row("console itself", ":9000/api/", ":4001", "CFG-UNSAFE", 3, "console of this installation"),
    Row("in the clear", "http://127.0.0.1:9000", "http://example.com", "CFG-UNSAFE", 3, "in the clear"),
    Row("private", "http://127.0.0.1:9000", "https://10.0.0.5", "CFG-UNSAFE", 3, "private address"),
    Row("file", "    headers", "    ca_file: nowhere.pem\n    headers", "CFG-REF", 5, "is not a file"),
    Row("twice", "  - name: ocr\n", TWIN + "  - name: ocr\n", "CFG-CONFLICT", 3, "services[0]"),
    Row("stage", "services:", "stages: {dev: {providers: [ocd]}}\nservices:", "CFG-REF", 1, "did you mean ocr?"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_what_is_wrong_is_told_at_its_place(row: Row) -> None:
    """Each mistake alone is found alone, with its code and a way out."""
    assert row.old in GOOD
    with pytest.raises(Invalid) as told:
        compiled(GOOD.replace(row.old, row.new, 1))
    (finding,) = told.value.findings
    assert (finding.code, finding.place.line) == (row.code, row.line), finding.line()
    assert row.words in finding.line()


@pytest.mark.parametrize("key", ["providers", "deployments", "models"])
def test_nothing_else_has_the_name_of_a_service(key: str) -> None:
    """Reports would add up what does not belong together."""
    entries = {
        "providers": "[{name: ocr, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]",
        "deployments": "[{name: ocr, provider: p, model: m}]\nproviders: [{name: p, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]",
        "models": "[{name: ocr, to: [p/m]}]\nproviders: [{name: p, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]",
    }
    with pytest.raises(Invalid) as told:
        compiled(GOOD + f"{key}: {entries[key]}\n")
    (finding,) = told.value.findings
    assert (finding.code, finding.key) == ("CFG-CONFLICT", "services[0].name")


def test_a_price_that_says_nothing(tmp_path: Path) -> None:
    """A service that is meant to be free says so."""
    nothing = GOOD[: GOOD.index("    price:")] + "    price: {}\n"
    with pytest.raises(Invalid, match='per_call: "0"'):
        compiled(nothing)
    assert compiled(nothing.replace("{}", "{per_call: 0}")).problems == ()


def test_a_secret_in_a_file_that_everybody_may_read() -> None:
    """As with providers."""
    text = GOOD.replace("${KEY}", SECRET).encode()
    with pytest.raises(Invalid) as told:
        load_text(text, "faregate.yaml", {}, Path("/nowhere"), world_readable=True)
    assert [finding.key for finding in told.value.findings] == ["services[0].api_key"]
    assert SECRET not in str(told.value)
