"""Services behind the gate in a state file: what `export` writes, `diff` tells and `apply` brings about."""

from pathlib import Path

import pytest

from cli.test_apply import apply, diff
from commands import command

SECRET = "ck-canary-11aa22bb33cc44dd"
SERVICES = """\
services:
  - name: ocr
    base_url: https://8.8.4.4/ocr
    api_key: ${OCR_KEY}
    api_key_header: x-key
    methods: [POST]
    paths: [/v1/read, /v1/pages]
    max_duration: 30s
    max_answer_bytes: 1MiB
    price:
      per_call: "0.0010"
      units: {header: x-pages, price: "0.50", max: 9}
      compute: {rate_per_hour: "2.40", memory_gb: 8, memory_gb_total: 64}
  - {name: search, base_url: "https://8.8.4.4/search", max_duration: 5s, price: {per_second: "0.5"}, state: disabled}
products:
  - {name: scans, operations: [ocr, chat.completions]}
keys:
  - {name: scanner, product: scans, operations: [ocr]}
"""


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_KEY", SECRET)


def test_an_export_changes_nothing_where_it_comes_from_and_makes_the_same_elsewhere(tmp_path: Path) -> None:
    """Services come before whatever names them; secrets come from the environment, and an export has none."""
    one, two = tmp_path / "one", tmp_path / "two"
    for each in (one, two):
        each.mkdir()
    done = apply(one, SERVICES, "--json").json["done"]
    assert [step["kind"] for step in done] == ["service", "service", "product", "key"]
    assert apply(one, SERVICES, "--json").json["done"] == []
    text = command("export", "--data", one / "data").out

    assert SECRET not in text
    assert diff(one, SERVICES).code == diff(one, text).code == 0
    assert apply(two, text).code == 0
    assert command("export", "--data", two / "data").out == text
    shown = command("service", "show", "ocr", "--data", one / "data", "--json").json
    assert (shown["api_key"], shown["max_answer_bytes"], shown["price"]["compute"]["memory_gb"]) == (
        "ck-…44dd",
        1024**2,
        "8",
    )
    rest = command("service", "show", "search", "--data", two / "data", "--json").json
    assert (rest["state"], rest["api_key"]) == ("disabled", None)


def test_what_means_the_same_is_no_difference(tmp_path: Path) -> None:
    """Units of time and size, ends of decimals, and what is as usual anyway."""
    apply(tmp_path, SERVICES)
    same = (
        SERVICES.replace("30s", "30000ms")
        .replace("1MiB", "1024KiB")
        .replace('"0.0010"', '"0.001"')
        .replace('price: "0.50"', 'price: "0.5", per: 1')
        .replace("memory_gb: 8", 'memory_gb: "8.0"')
        .replace("[/v1/read, /v1/pages]", "[/v1/pages, /v1/read]\n    bill_errors: false\n    connect_timeout: 5s")
    )

    assert diff(tmp_path, same).code == 0


def test_a_service_changes_and_goes(tmp_path: Path) -> None:
    """A field that leaves the file is as usual again, and another address takes the secret along; keys go first."""
    apply(tmp_path, SERVICES)
    less = SERVICES.replace("    paths: [/v1/read, /v1/pages]\n    max_duration", "    max_duration").replace(
        "    max_answer_bytes: 1MiB\n", ""
    )
    changed = apply(tmp_path, less.replace("https://8.8.4.4/ocr", "https://8.8.8.8/ocr"), "--json").json["done"]
    shown = command("service", "show", "ocr", "--data", tmp_path / "data", "--json").json
    gone = apply(tmp_path, "services: []\nproducts: []\nkeys: []\n", "--prune", "--json").json["done"]

    assert [[each["field"] for each in step["changes"]] for step in changed] == [
        ["base_url", "max_answer_bytes", "paths"]
    ]
    assert (shown["base_url"], shown["paths"], shown["max_answer_bytes"]) == ("https://8.8.8.8/ocr", [], None)
    assert [(step["action"], step["kind"]) for step in gone] == [
        ("delete", "key"),
        ("delete", "service"),
        ("delete", "service"),
        ("delete", "product"),
    ]


def test_what_no_service_can_be_is_told_at_its_line(tmp_path: Path) -> None:
    """What only an installation knows is told when it is asked."""
    told = diff(tmp_path, SERVICES.replace("30s", "soon"))
    assert (told.code, "services[0].max_duration" in told.err) == (2, True)
    refused = apply(tmp_path, SERVICES.replace("https://8.8.4.4/ocr", "https://10.0.0.5"))
    assert (refused.code, "set allow_private: true" in refused.err) == (2, True)
