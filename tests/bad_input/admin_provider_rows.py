"""Bad inputs about prices (A45 to A50, A81), providers (A51 to A56) and where alerts go (A85)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bad_input.admin_row import API, CANARY, Row

PRICES = f"{API}/prices"
PROVIDERS = f"{API}/providers"

HEAD = "provider,model,unit,per,price\n"
TWICE = "openai,gpt-4o,input_tokens,1M,2.40\n"


def price(row: str, code: str, field: str, has: str, **body: Any) -> Row:
    """A price that cannot be set; ``body`` is what it has otherwise than that of a million input tokens."""
    usual = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000, "price": "2.5"}
    sent = {name: value for name, value in {**usual, **body}.items() if value is not None}
    return Row(row, "PUT", PRICES, sent, 422, code, field, has)


def price_file(row: str, code: str, field: str, has: str, text: str, **body: Any) -> Row:
    """A price file that is not taken in."""
    return Row(row, "POST", f"{PRICES}/import", {"file": "book.csv", "text": text, **body}, 422, code, field, has)


def _prices() -> Iterator[Row]:
    yield price("A45", "field_range", "price", "negative", price="-1")
    yield price("A45 number", "field_type", "price", "", price=2.5)
    yield price("A46", "invariant", "price", "Send confirm: true", per=1)
    for field in ("price", "per", "unit"):
        yield price(f"A47 {field}", "field_missing", field, "required", **{field: None})
    yield price_file(
        "A47 file", "field_range", "book.csv:1", "missing: price", "provider,model,unit,per\nopenai,x,calls,1"
    )
    yield price_file("A48 file", "field_range", "book.csv:3", "stands in book.csv:2 already", HEAD + TWICE * 2)
    ended = {"effective_to": "2027-01-01T00:00:00Z"}
    between = {"unit": "output_tokens", "price": "9", "effective_from": "2026-12-01T00:00:00Z"}
    body = {"provider": "openai", "model": "gpt-4o", "per": 1_000_000, **between}
    yield Row("A48", "PUT", PRICES, body, 200, shows=ended)
    past = "2026-01-01T00:00:00Z"
    yield price("A49", "invariant", "effective_from", "what is booked stays", effective_from=past)
    yield price("A49 far", "field_range", "effective_from", "five years", effective_from="2099-01-01T00:00:00Z")
    yield price("A50", "field_enum", "unit", "input_tokens", unit="parsecs")
    yield price("A50 none", "field_range", "per", "", per=0)
    yield price_file("A81", "field_enum", "format", "litellm", HEAD + TWICE, format="xlsx.exe")


def provider(row: str, code: str, field: str, has: str, *, status: int = 422, **body: Any) -> Row:
    """A provider that cannot be made."""
    usual = {"name": "wanted", "kind": "openai", "base_url": "https://8.8.4.4/v1", "api_key": "sk-0123456789"}
    return Row(row, "POST", PROVIDERS, {**usual, **body}, status, code, field, has)


def _addresses() -> Iterator[Row]:
    def forbidden(row: str, url: str, has: str) -> Row:
        return provider(row, "url_forbidden", "base_url", has, status=400, base_url=url)

    yield forbidden("A51", "http://8.8.4.4/v1", "in the clear")
    yield forbidden("A51 loopback", "http://127.0.0.1:9/v1", "allow_http: true")
    here = {"name": "here", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "allow_http": True}
    yield Row("A51 allowed", "POST", PROVIDERS, here, 201, shows={"name": "here", "state": "active"})
    for host in ("169.254.169.254", "[fd00:ec2::254]", "2852039166", "0xa9fea9fe", "[::ffff:169.254.169.254]"):
        yield forbidden(f"A52 {host}", f"https://{host}/latest", "metadata")
    for row, rest, has in (
        ("query", f"8.8.4.4/v1?key={CANARY}", "neither query nor fragment"),
        ("fragment", f"8.8.4.4/v1#{CANARY}", "neither query nor fragment"),
        ("user", f"user:{CANARY}@8.8.4.4/v1", "neither user nor password"),
        ("dots", "8.8.4.4/v1/../admin", "dot or empty segments"),
    ):
        yield forbidden(f"A53 {row}", f"https://{rest}", has)
    yield forbidden("A56 make", "file:///etc/passwd", "the configuration file only")
    yield forbidden("A56 reference", f"https://${{{CANARY}}}/v1", "the configuration file only")


def _secrets() -> Iterator[Row]:
    elsewhere = {"base_url": "https://8.8.8.8/v1"}
    one = f"{PROVIDERS}/{{provider}}"
    yield Row("A54", "PATCH", one, elsewhere, 422, "invariant", "base_url", "send api_key again")
    for row, secret, has in (
        ("empty", "", "the secret alone"),
        ("lines", f"{CANARY}\nnext", "a line's end"),
        ("mask", f"{CANARY}…abcd", "a masked secret"),
        ("stars", f"{CANARY}****", "a masked secret"),
        ("placeholder", "changeme", "a placeholder"),
        ("long", "x" * 9_000, ""),
    ):
        yield provider(f"A55 {row}", "field_range", "api_key", has, api_key=secret)
        yield Row(f"A55 {row} patch", "PATCH", one, {"api_key": secret}, 422, "field_range", "api_key", has)
    for field, value in (("base_url", "file:///etc/passwd"), ("api_key", f"env:{CANARY}")):
        body, has = {field: value}, "the stored address with the stored secret"
        yield Row(f"A56 {field}", "POST", f"{one}/test", body, 400, "url_forbidden", field, has)
    reference = {"api_key": f"file:/{CANARY}"}
    yield Row("A56 patch", "PATCH", one, reference, 400, "url_forbidden", "api_key", "the configuration file only")


def _webhooks() -> Iterator[Row]:
    for url in ("http://127.0.0.1", "https://10.0.0.8/x", "http://[::ffff:127.0.0.1]/", f"http://2130706433/{CANARY}"):
        body, has = {"name": "inside", "url": url}, "alerts.allow_private"
        yield Row(f"A85 {url}", "POST", f"{API}/webhooks", body, 400, "url_forbidden", "url", has)


ROWS = (*_prices(), *_addresses(), *_secrets(), *_webhooks())
