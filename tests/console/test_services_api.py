"""Services behind the gate by the admin API: what is refused, what is shown, and how their secrets are kept."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from config.test_services import GOOD, ROWS, SECRET, Row, compiled
from console_parts import Api, Parts, parts
from faregate.config.findings import Invalid
from faregate.config.load import load_text
from faregate.config.read import parse
from faregate.config.secret_box import MARK, SecretBox, provider_place, service_place
from faregate.console import declared
from faregate.console.reading import made_places
from faregate.console.sealing import seal_anew
from faregate.console.services import ServiceChange, change
from faregate.console.writing import put
from faregate.control import Ask, Catalogue, Load, decode_ask, encode
from faregate.core.metering.service import ServiceTerms, Told
from faregate.core.pricing.card import Rate
from faregate.errors import Conflict, Failed

PATH = "/api/v1/services"
URL = "https://8.8.4.4/ocr"
PRICE = {"per_call": "0.0010", "units": {"header": "X-Pages", "price": 3, "max": 9}}
OCR: dict[str, Any] = {"name": "ocr", "base_url": URL, "api_key": SECRET, "max_duration": "30s", "price": PRICE}

FILE = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: sk-of-the-file-0123456789}
deployments:
  - {name: weu, provider: openai, model: gpt-4o}
pools:
  - {name: spare, use: [weu]}
models:
  - {name: best, to: [weu]}
services:
  - name: search
    base_url: http://127.0.0.1:9000/search
    api_key: sk-of-the-service-0123456789
    proxy: http://user:password@proxy:3128
    max_duration: 5s
    price: {per_second: "0.5"}
"""


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Parts]:
    """A console over a configuration with a service, and one of everything whose name a service must not have."""
    config = load_text(FILE, "faregate.yaml", {}, tmp_path).config
    with parts(tmp_path, config=config) as made:
        yield made


@pytest.fixture
def admin(console: Parts) -> Api:
    return Api(console.app, console.admin_key())


def catalogue_of(console: Parts) -> Catalogue:
    """The catalogue that the gate is sent."""
    return console.console.compile_catalogue((), (), made_places(console.books))


def kept(console: Parts, name: str = "ocr") -> dict[str, Any]:
    (row,) = console.books.listing("service", name=name)
    return row


# -- made, shown, changed ----------------------------------------------------------------------------------------------


def test_a_service_is_shown_in_full_and_kept_as_it_was_sent(console: Parts, admin: Api) -> None:
    """What was not said is as usual, times have their units, prices are text, and what is shown can be sent again."""
    row = admin.post(PATH, OCR)

    assert row["id"].startswith("svc_")
    assert {name: value for name, value in row.items() if name not in ("id", "created_at", "updated_at")} == {
        "name": "ocr", "base_url": URL, "api_key": "ck-…24a8", "api_key_header": "authorization",
        "methods": ["GET", "POST"], "paths": [], "headers": [],
        "price": {
            "per_call": "0.0010", "per_second": None, "per_million_bytes_in": None, "per_million_bytes_out": None,
            "units": {"header": "x-pages", "price": "3", "per": 1, "max": 9, "name": None},
            "compute": None, "flops": None,
        },
        "max_duration": "30000ms", "max_request_bytes": None, "max_answer_bytes": None, "bill_errors": False,
        "connect_timeout": "5000ms", "connections_max": 2_000, "allow_http": False, "allow_private": False,
        "state": "active", "source": "api",
    }  # fmt: skip
    assert kept(console)["rule"].keys() == {"price", "max_duration"}
    shown = {name: row[name] for name in row.keys() - {"id", "state", "source", "created_at", "updated_at", "api_key"}}
    again = admin.post(PATH, {**shown, "name": "copy"})
    assert (again["price"], again["api_key"]) == (row["price"], None)


def test_a_service_is_found_by_id_and_by_name_and_listed_page_by_page(admin: Api) -> None:
    """The file's come first, on the first page; filters are for both kinds."""
    row = admin.post(PATH, OCR)
    admin.post(PATH, {**OCR, "name": "pages"})
    admin.send("PATCH", f"{PATH}/pages", {"state": "disabled"})

    first = admin.get(f"{PATH}?limit=1")
    second = admin.get(f"{PATH}?limit=1&cursor={first['next_cursor']}")
    assert [(each["name"], each["source"]) for each in first["data"]] == [("search", "file"), ("ocr", "api")]
    assert ([each["name"] for each in second["data"]], second["next_cursor"]) == (["pages"], None)
    assert [each["name"] for each in admin.get(f"{PATH}?state=active")["data"]] == ["search", "ocr"]
    assert [each["name"] for each in admin.get(f"{PATH}?state=disabled")["data"]] == ["pages"]
    assert [each["id"] for each in admin.get(f"{PATH}?name=ocr")["data"]] == [row["id"]]
    assert admin.get(f"{PATH}/{row['id']}") == admin.get(f"{PATH}/ocr") == row
    assert admin.get(f"{PATH}/nothing", status=404)["code"] == "not_found"
    assert admin.get(f"{PATH}?colour=red", status=400)["code"] == "filter_invalid"


def test_what_is_sent_takes_the_place_of_what_was_there(console: Parts, admin: Api) -> None:
    """What is not sent stays, its secret too; null goes back to what is as usual, and takes the secret away."""
    admin.post(PATH, {**OCR, "paths": ["/v1"], "max_answer_bytes": "1MiB", "max_request_bytes": 1024})
    sealed = kept(console)["secret"]
    changed = admin.send(
        "PATCH", f"{PATH}/ocr", {"price": {"per_second": "0.5"}, "max_answer_bytes": None, "methods": ["PUT"]}
    )

    assert (changed["price"]["per_call"], changed["price"]["units"], changed["price"]["per_second"]) == (
        None, None, "0.5",
    )  # fmt: skip
    assert (changed["max_answer_bytes"], changed["max_request_bytes"], changed["methods"]) == (None, 1024, ["PUT"])
    assert (changed["paths"], changed["max_duration"], changed["api_key"]) == (["/v1"], "30000ms", "ck-…24a8")
    assert kept(console)["secret"] == sealed
    assert admin.send("PATCH", f"{PATH}/ocr", {"api_key": None})["api_key"] is None
    assert (kept(console)["secret"], kept(console)["masked"]) == ("", "")


def test_what_must_not_be_null_is_told(admin: Api) -> None:
    """There is no service without its price, and nothing of it is unknown."""
    admin.post(PATH, OCR)
    usual = ("base_url", "price", "max_duration", "methods", "paths", "headers", "api_key_header", "bill_errors")
    for name in (*usual, "connect_timeout", "allow_http", "allow_private", "connections_max", "state"):
        problem = admin.send("PATCH", f"{PATH}/ocr", {name: None}, status=422)
        assert (problem["code"], problem["errors"][0]["field"]) == ("field_range", name)


def test_a_service_of_the_file_is_shown_and_not_changed(admin: Api) -> None:
    """Of its secret only a mask, of its proxy nothing; the way out is the file."""
    row = admin.get(f"{PATH}/search")
    assert (row["id"], row["source"], row["price"]["per_second"]) == ("file:search", "file", "0.5")
    assert (row["api_key"], "password" in str(row)) == ("sk-…6789", False)
    problem = admin.send("PATCH", f"{PATH}/search", {"max_duration": "6s"}, status=409)
    assert "configuration file" in problem["detail"]
    assert admin.send("DELETE", f"{PATH}/file:search", status=409)["code"] == "conflict"


def test_a_change_is_made_to_the_version_that_was_read(admin: Api) -> None:
    """Another one's change in between is not overwritten, nor is what changed since deleted."""
    admin.post(PATH, OCR)
    tag = admin.call("GET", f"{PATH}/ocr").headers["etag"]
    changed = admin.call("PATCH", f"{PATH}/ocr", json={"bill_errors": True}, headers={"if-match": tag})

    assert changed.headers["etag"] == admin.call("GET", f"{PATH}/ocr").headers["etag"] != tag
    stale = admin.call("PATCH", f"{PATH}/ocr", json={"bill_errors": False}, headers={"if-match": tag})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    assert admin.call("DELETE", f"{PATH}/ocr", headers={"if-match": tag}).status_code == 412
    assert admin.get(f"{PATH}/ocr")["bill_errors"] is True


def test_a_service_that_is_deleted_is_gone_and_what_names_it_stays(console: Parts, admin: Api) -> None:
    """Limits, own prices and keys that are restricted to it keep nobody from it, and wait for one of its name."""
    row = admin.post(PATH, OCR)
    key = admin.post("/api/v1/keys", {"name": "scanner", "operations": ["ocr"]})
    limit = {"select": {"service": "ocr"}, "unit": "usd", "amount": "5", "window": "month"}
    limit = admin.post("/api/v1/limits", limit)
    price = {"provider": "ocr", "model": "ocr", "unit": "requests", "per": 1, "price": "0.25"}
    admin.send("PUT", "/api/v1/prices", price)

    assert admin.send("DELETE", f"{PATH}/ocr") == {"id": row["id"], "name": "ocr", "deleted": True}
    assert admin.get(f"{PATH}/ocr", status=404)["code"] == "not_found"
    assert admin.get(f"/api/v1/keys/{key['id']}")["operations"] == ["ocr"]
    assert admin.get(f"/api/v1/limits/{limit['id']}")["select"] == {"service": "ocr"}
    assert [each.name for each in catalogue_of(console).providers] == ["openai", "search"]
    unknown = admin.post("/api/v1/keys", {"name": "late", "operations": ["ocr"]}, status=422)
    assert unknown["code"] == "field_enum"


# -- what the gate gets ------------------------------------------------------------------------------------------------


def test_a_made_service_is_what_the_gate_gets(console: Parts, admin: Api) -> None:
    """Its place with its credential and how far connections may lead, its terms and its rates."""
    admin.post(PATH, {**OCR, "api_key_header": "X-Key", "headers": ["X-Own"], "bill_errors": True})
    catalogue = catalogue_of(console)

    place = next(each for each in catalogue.providers if each.name == "ocr")
    assert (place.kind, place.base_url, place.credential, place.masked) == ("http", URL, {"x-key": SECRET}, (SECRET,))
    assert (place.reach, place.renewed, place.total_timeout_ms, place.ca_file) == ("public", False, 30_000, "")
    deployment = next(each for each in catalogue.deployments if each.name == "ocr")
    assert (deployment.provider, deployment.model, deployment.operations) == ("ocr", "ocr", ("ocr",))
    assert deployment.service == ServiceTerms(
        headers=("x-own",),
        duration_ms_max=30_000,
        request_bytes_max=10 * 1024**2,
        told=(Told("units", "", "x-pages", 9),),
        bill_errors=True,
    )
    assert {Rate("requests", 10**9, 1), Rate("units", 3 * 10**12, 1)} <= {*deployment.cards[0].tiers[0].rates}
    assert deployment.cards[0].source == "services of the API"
    # What the gate is sent is what it understands.
    asked = decode_ask(encode(Ask(1, Load(1, catalogue=catalogue)))).body
    assert isinstance(asked, Load)
    assert asked.catalogue == catalogue


def test_a_made_service_is_priced_as_one_of_the_file(console: Parts, admin: Api) -> None:
    """The same text of a price makes the same rates."""
    (entry,) = written(GOOD)["services"]
    admin.post(PATH, {**entry, "allow_http": True})
    made = next(each for each in catalogue_of(console).deployments if each.name == "ocr")
    (declared_one,) = compiled(GOOD).catalogue.deployments

    assert made.cards[0].tiers == declared_one.cards[0].tiers
    assert made.service == declared_one.service


def test_a_quote_and_a_charge_follow_from_a_made_price(admin: Api) -> None:
    """And from a new one at once."""
    admin.post(PATH, {**OCR, "price": {"per_call": "0.001"}})
    asked = {"endpoint": "/services/ocr/read", "request": {"bytes": 5}}
    before = admin.post("/api/v1/quote", asked, 200)["charge"]
    admin.send("PATCH", f"{PATH}/ocr", {"price": {"per_call": "0.002"}})
    after = admin.post("/api/v1/quote", asked, 200)["charge"]

    assert [Fraction(each["min"]) for each in (before, after)] == [Fraction("0.001"), Fraction("0.002")]


def test_a_disabled_service_is_as_if_it_were_not_there(console: Parts, admin: Api) -> None:
    """It is shown, and the gate does not have it until it is active again."""
    admin.post(PATH, OCR)
    assert admin.send("PATCH", f"{PATH}/ocr", {"state": "disabled"})["state"] == "disabled"
    assert "ocr" not in [each.name for each in catalogue_of(console).deployments]
    assert "ocr" not in str(admin.get("/api/v1/places"))
    admin.send("PATCH", f"{PATH}/ocr", {"state": "active"})
    assert "ocr" in [each.name for each in catalogue_of(console).deployments]


@pytest.mark.parametrize(
    "declares",
    [
        "services: [{name: ocr, base_url: 'http://127.0.0.1:1', max_duration: 1s, price: {per_call: 7}}]\n",
        "providers: [{name: ocr, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]\n",
        "deployments: [{name: ocr, provider: p, model: gpt-4o}]\n",
        "models: [{name: ocr, to: [p/gpt-4o]}]\n",
    ],
)
def test_what_a_file_comes_to_declare_acts_instead_of_a_made_service_of_its_name(
    tmp_path: Path, admin: Api, console: Parts, declares: str
) -> None:
    """Whatever it is; the made one is shown, and acts again when the file does not say so any more."""
    admin.post(PATH, OCR)
    provider = "  - {name: p, kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
    text = declares if declares.startswith("providers") else declares + "providers:\n" + provider
    catalogue = compiled_with(tmp_path, text, console)

    assert URL not in [each.base_url for each in catalogue.providers]
    assert URL in [each.base_url for each in compiled_with(tmp_path, "providers:\n" + provider, console).providers]


def compiled_with(tmp_path: Path, text: str, console: Parts) -> Catalogue:
    """The catalogue by another configuration over the same books."""
    folder = tmp_path / "other"
    folder.mkdir(exist_ok=True)
    with parts(folder, config=load_text(text.encode(), "faregate.yaml", {}, tmp_path).config) as other:
        return other.console.compile_catalogue((), (), made_places(console.books))


# -- what cannot be ----------------------------------------------------------------------------------------------------


def written(text: str) -> dict[str, Any]:
    """A configuration as JSON would have it, its references followed."""
    tree, findings = parse(text.encode(), "faregate.yaml", {"KEY": SECRET}, Path("/nowhere"))
    assert findings == []
    read: dict[str, Any] = json.loads(json.dumps(tree.root, default=str))
    return read


#: Of these the file says something beside its service, or what only a file says.
OF_THE_FILE = ("twice", "stage", "file")


@pytest.mark.parametrize("row", [row for row in ROWS if row.id not in OF_THE_FILE], ids=lambda row: row.id)
def test_every_rule_of_the_file_is_a_rule_here(console: Parts, admin: Api, row: Row) -> None:
    """What a file is refused for is refused here, at the same field; nothing is made, and a change is judged alike."""
    text = GOOD.replace(row.old, row.new, 1)
    with pytest.raises(Invalid) as told:
        compiled(text)
    (finding,) = told.value.findings
    field = re.sub(r"\[(\d+)\]", r".\1", finding.key.removeprefix("services[0].").removeprefix("providers[0]."))
    (entry,) = written(text)["services"]
    here = {} if field == "base_url" and row.id in ("in the clear", "private") else {"allow_http": True}
    problem = admin.call("POST", PATH, json={**entry, **here})

    assert problem.status_code in (400, 422), problem.text
    assert [each["field"] for each in problem.json()["errors"]] == [field]
    assert console.books.listing("service") == []
    (good,) = written(GOOD)["services"]
    admin.post(PATH, {**good, "allow_http": True})
    sent = {name: value for name, value in entry.items() if value != good.get(name)}
    if sent:
        changed = admin.call("PATCH", f"{PATH}/ocr", json={**sent, **here, "api_key": SECRET})
        assert changed.status_code in (400, 422), changed.text
        assert [each["field"] for each in changed.json()["errors"]] == [field]
        assert admin.get(f"{PATH}/ocr")["base_url"] == good["base_url"].rstrip("/")


@pytest.mark.parametrize(
    ("sent", "code", "field", "told"),
    [
        ({"name": "-x"}, "field_range", "name", "this is not a name"),
        ({"name": "a/b"}, "field_range", "name", "this is not a name"),
        ({"price": {"per_call": 0.001}}, "field_type", "price.per_call", "decimal text"),
        ({"price": {"per_call": "1e-3"}}, "field_range", "price.per_call", "decimal"),
        ({"price": {"per_cal": "1"}}, "field_unknown", "price.per_cal", "did you mean per_call?"),
        ({"price": None}, "field_type", "price", ""),
        ({"max_duration": 30}, "field_type", "max_duration", 'e.g. "60s"'),
        ({"max_duration": "soon"}, "field_type", "max_duration", "this is not a duration"),
        ({"methods": "GET"}, "field_type", "methods", "a valid list"),
        ({"bill_errors": "yes"}, "field_type", "bill_errors", "true or false"),
        ({"connections_max": 0}, "field_range", "connections_max", ""),
        ({"pathes": ["/v1"]}, "field_unknown", "pathes", "did you mean paths?"),
        ({"ca_file": "ca.pem"}, "field_unknown", "ca_file", ""),
        ({"proxy": "http://proxy:3128"}, "field_unknown", "proxy", ""),
        ({"source": "file"}, "field_forbidden", "source", "set by Faregate"),
        ({"reach": "private"}, "field_forbidden", "reach", "set by Faregate"),
        ({"api_key": ""}, "field_range", "api_key", "the secret alone"),
        ({"api_key": "two\nlines"}, "field_range", "api_key", "the secret alone"),
        ({"api_key": "sk-…6789"}, "field_range", "api_key", "masked"),
        ({"api_key": "changeme"}, "field_range", "api_key", "a placeholder"),
        ({"api_key": 7}, "field_type", "api_key", ""),
        ({"api_key": "s" * 9_000}, "field_range", "api_key", ""),
    ],
)
def test_a_service_that_cannot_be_names_its_field(
    console: Parts, admin: Api, sent: dict[str, Any], code: str, field: str, told: str
) -> None:
    """With what is expected; nothing is made."""
    problem = admin.post(PATH, {**OCR, **sent}, status=422)

    assert [(each["code"], each["field"]) for each in problem["errors"]] == [(code, field)]
    assert told in problem["detail"]
    assert console.books.listing("service") == []


def test_all_that_is_wrong_is_told_at_once(admin: Api) -> None:
    """Each at its field."""
    price = {"per_million_bytes_out": "1", "flops": {"price_per_teraflop": "1"}}
    problem = admin.post(PATH, {**OCR, "max_duration": "48h", "headers": ["cookie"], "price": price}, 422)

    assert [each["field"] for each in problem["errors"]] == [
        *("headers.0", "max_duration", "price.per_million_bytes_out", "price.flops"),
    ]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://8.8.4.4/", ("allow_http", "allow_private")),
        ("https://10.0.0.5/", ("allow_http",)),
        ("https://127.0.0.1:9000/", ()),
        ("http://127.0.0.1:9000/", ("allow_private",)),
        ("http://10.0.0.5/", ("allow_http",)),
        ("https://169.254.169.254/", ("allow_http", "allow_private")),
        ("https://[::ffff:169.254.169.254]/", ("allow_http", "allow_private")),
        ("https://2852039166/", ("allow_http", "allow_private")),
        ("https://user:password@8.8.4.4/", ()),
        ("https://8.8.4.4/?a=b", ()),
        ("https://8.8.4.4/a/../b", ()),
        ("https://8.8.4.4/a b", ()),
        ("ftp://8.8.4.4/", ()),
        ("${OCR_URL}", ()),
        ("file:/etc/passwd", ()),
        ("", ()),
        ("https://a..b/", ("allow_private",)),
    ],
)
def test_an_address_that_the_api_must_not_open_is_refused(
    console: Parts, admin: Api, url: str, allowed: tuple[str, ...]
) -> None:
    """Stricter than in the file, in every spelling, whether it is made there or moves there."""
    words = dict.fromkeys(allowed, True)
    problem = admin.post(PATH, {**OCR, "base_url": url, **words}, status=400)
    assert (problem["code"], problem["errors"][0]["field"]) == ("url_forbidden", "base_url")
    assert console.books.listing("service") == []

    admin.post(PATH, OCR)
    moved = admin.send("PATCH", f"{PATH}/ocr", {"base_url": url, "api_key": SECRET, **words}, status=400)
    assert moved["code"] == "url_forbidden"
    assert kept(console)["base_url"] == URL


@pytest.mark.parametrize("secret", ["${OCR_KEY}", "file:/etc/passwd", "vault:ocr"])
def test_a_secret_by_reference_is_refused(admin: Api, secret: str) -> None:
    """References are followed in the configuration file only."""
    problem = admin.post(PATH, {**OCR, "api_key": secret}, status=400)
    assert (problem["code"], problem["errors"][0]["field"]) == ("url_forbidden", "api_key")
    assert secret not in str(problem)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4000", "http://localhost:4001", "http://0x7f000001:4001/v1"])
def test_the_gate_and_the_console_are_no_service_behind_the_gate(admin: Api, url: str) -> None:
    """Nor under another spelling of this machine."""
    problem = admin.post(PATH, {**OCR, "base_url": url, "allow_http": True}, status=422)
    assert (problem["errors"][0]["field"], "of this installation itself" in problem["detail"]) == ("base_url", True)


def test_how_far_connections_may_lead_is_kept_and_judged_anew(console: Parts, admin: Api) -> None:
    """By its address and the words that allow it; what neither is sent for stays."""
    admin.post(PATH, {**OCR, "base_url": "https://10.0.0.5", "allow_private": True})
    assert kept(console)["reach"] == "private"
    assert admin.send("PATCH", f"{PATH}/ocr", {"allow_private": False}, status=400)["code"] == "url_forbidden"
    admin.send("PATCH", f"{PATH}/ocr", {"bill_errors": True})
    assert kept(console)["reach"] == "private"
    admin.send("PATCH", f"{PATH}/ocr", {"base_url": URL, "api_key": SECRET, "allow_private": False})
    assert kept(console)["reach"] == "public"


def test_no_two_things_that_reports_name_alike_have_one_name(admin: Api) -> None:
    """Neither a service the name of a provider, deployment or model, nor these its own; made or of the file."""
    admin.post(PATH, OCR)
    admin.post("/api/v1/providers", {"name": "mine", "kind": "openai", "base_url": "https://8.8.4.4/v1"})
    admin.post("/api/v1/deployments", {"name": "fast", "provider": "openai", "model": "gpt-4o"})
    admin.post("/api/v1/models", {"name": "house", "to": ["fast"]})
    for name in ("ocr", "search", "openai", "weu", "best", "mine", "fast", "house"):
        problem = admin.post(PATH, {**OCR, "name": name}, status=409)
        assert (problem["code"], problem["errors"][0]["field"]) == ("conflict", "name")
    for name in ("ocr", "search"):
        provider = {"name": name, "kind": "openai", "base_url": "https://8.8.4.4/v1"}
        admin.post("/api/v1/providers", provider, status=409)
        admin.post("/api/v1/models", {"name": name, "to": ["weu"]}, status=409)
        admin.post("/api/v1/deployments", {"name": name, "provider": "openai", "model": "gpt-4o"}, status=409)
    assert admin.post(PATH, {**OCR, "name": "spare"})["name"] == "spare"


def test_there_are_no_more_services_than_may_be(console: Parts, admin: Api) -> None:
    """Each is a part of what the gate works from."""
    rule = {"max_duration": "1s", "price": {"per_call": "1"}}
    many = range(declared.MOST["service"])
    rows = [{"id": f"svc_{at}", "name": f"s{at}", "base_url": URL, "rule": rule} for at in many]
    console.books.put_all("service", rows)

    assert "256 services already" in admin.post(PATH, OCR, status=409)["detail"]


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_secret_goes_in_and_comes_out_as_a_mask(console: Parts, admin: Api) -> None:
    """It is in no answer, no file of the books and no line of the trail."""
    shown = [admin.post(PATH, OCR), admin.get(f"{PATH}/ocr"), admin.get(PATH)]
    shown.append(admin.send("PATCH", f"{PATH}/ocr", {"api_key": f"{SECRET}-2"}))
    shown.append(admin.get("/api/v1/audit?kind=service"))

    assert shown[0]["api_key"] == "ck-…24a8"
    assert SECRET not in str(shown)
    lines = shown[-1]["data"]
    assert [(line["before"] or {}).get("masked") for line in lines] == ["ck-…24a8", None]
    assert ["secret" in (line["after"] or {}) for line in lines] == [False, False]
    row = kept(console)
    assert row["secret"].startswith(MARK)
    assert console.console.box is not None
    assert console.console.box.open(row["secret"], service_place(row["id"], URL)) == f"{SECRET}-2"
    for file in (console.folder / "data").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_sealed_secret_opens_nowhere_else(console: Parts, admin: Api) -> None:
    """Not for another host or service, and not for a provider, whatever its id; a provider's not for a service."""
    admin.post(PATH, OCR)
    row, box = kept(console), console.console.box
    assert box is not None
    elsewhere = [
        service_place(row["id"], "https://evil.example/ocr"),
        service_place(row["id"], "http://8.8.4.4/ocr"),
        service_place("svc_another", URL),
        provider_place(row["id"], URL),
    ]
    for place in elsewhere:
        with pytest.raises(Failed, match="does not open"):
            box.open(row["secret"], place)
    with pytest.raises(Failed, match="does not open"):
        box.open(box.seal(SECRET, provider_place(row["id"], URL)), service_place(row["id"], URL))


def test_another_address_wants_the_secret_again(console: Parts, admin: Api) -> None:
    """With it the service moves; so does one whose secret is taken away."""
    admin.post(PATH, OCR)
    before = kept(console)
    problem = admin.send("PATCH", f"{PATH}/ocr", {"base_url": "https://8.8.8.8/ocr"}, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("invariant", "base_url")
    assert "send api_key again" in problem["detail"]
    assert kept(console) == before

    moved = admin.send("PATCH", f"{PATH}/ocr", {"base_url": "https://8.8.8.8/ocr", "api_key": "ck-another-0123456789"})
    assert (moved["base_url"], moved["api_key"]) == ("https://8.8.8.8/ocr", "ck-…6789")
    assert kept(console)["secret"] != before["secret"]
    assert admin.send("PATCH", f"{PATH}/ocr", {"base_url": URL, "api_key": None})["api_key"] is None
    assert admin.send("PATCH", f"{PATH}/ocr", {"base_url": "https://8.8.8.8/ocr"})["base_url"] == "https://8.8.8.8/ocr"


def test_a_service_that_changed_meanwhile_is_not_changed(console: Parts, admin: Api) -> None:
    """A first secret came between the look and the change: it stays at the address that it was sent for."""
    row = admin.post(PATH, {**OCR, "api_key": None})

    def meanwhile() -> None:
        put(console.console, "service", {**kept(console), "secret": "sealed", "masked": "ck-…7"})

    async def change_it() -> None:
        moved = ServiceChange.model_validate({"base_url": "https://8.8.8.8/ocr"})
        await change(console.console, row["id"], moved, meanwhile)

    with pytest.raises(Conflict, match="at the same time"):
        asyncio.run(change_it())
    assert (kept(console)["base_url"], kept(console)["secret"]) == (URL, "sealed")


def test_a_rotated_key_seals_anew_what_the_older_one_sealed(console: Parts, admin: Api) -> None:
    """Both keys open meanwhile; afterwards the older one may go."""
    admin.post(PATH, OCR)
    newer = SecretBox("installation", [("e2", b"\x22" * 32), ("e1", b"\x11" * 32)], os.urandom)

    assert (seal_anew(console.books, newer), seal_anew(console.books, newer)) == (1, 0)

    row = kept(console)
    alone = SecretBox("installation", [("e2", b"\x22" * 32)], os.urandom)
    assert alone.open(row["secret"], service_place(row["id"], URL)) == SECRET


def test_a_service_whose_secret_does_not_open_is_never_called_without_it(console: Parts, admin: Api) -> None:
    """It waits for a credential that does not come: the gate refuses its calls."""
    admin.post(PATH, OCR)
    console.books.put("service", {**kept(console), "secret": MARK + "gone:AAAA"})

    place = next(each for each in catalogue_of(console).providers if each.name == "ocr")
    assert (place.credential, place.renewed) == ({}, True)


def test_a_secret_of_a_key_is_not_kept_and_not_repeated(console: Parts, admin: Api) -> None:
    """Where nobody means a secret, somebody may write one."""
    secret = admin.post("/api/v1/keys", {"name": "ci"})["secret"]
    for sent, field in (({"paths": [f"/{secret}"]}, "paths.0"), ({"base_url": f"{URL}/{secret}"}, "base_url")):
        problem = admin.post(PATH, {**OCR, **sent}, status=422)
        assert problem["errors"][0]["field"] == field
        assert secret not in str(problem)
    assert console.books.listing("service") == []


@pytest.mark.parametrize("name", ["chat.completions", "gpt-4o"])
def test_no_service_has_the_name_of_an_operation_or_of_a_model_on_offer(admin: Api, name: str) -> None:
    """A key that is restricted to the operation would have the service, too."""
    problem = admin.post(PATH, {**OCR, "name": name}, 409)
    assert (problem["code"], problem["errors"][0]["field"]) == ("conflict", "name")


def test_an_id_goes_before_a_name_that_looks_like_it(admin: Api) -> None:
    """What is asked for by its id is never another service that somebody named so."""
    made = admin.post(PATH, OCR)
    admin.post(PATH, {**OCR, "name": made["id"]})
    assert admin.get(f"{PATH}/{made['id']}")["name"] == "ocr"
    admin.send("DELETE", f"{PATH}/{made['id']}")
    assert [row["name"] for row in admin.get(PATH)["data"]] == ["search", made["id"]]


def test_another_secret_is_a_change_though_its_mask_is_the_same(admin: Api) -> None:
    """Whoever could choose the end of a secret could otherwise change it unseen."""
    made = admin.post(PATH, {**OCR, "api_key": "sk-abcA-0123456789-1234"})
    admin.send("PATCH", f"{PATH}/{made['id']}", {"api_key": "sk-abcB-0123456789-1234"})
    line = admin.get("/api/v1/audit?kind=service")["data"][0]
    assert line["before"]["masked"] == line["after"]["masked"]
    changed = {name for name in line["after"] if line["before"][name] != line["after"][name]}
    assert changed - {"updated_at"} <= {"details"}


def test_secrets_that_do_not_open_are_told_by_health(console: Parts, admin: Api) -> None:
    """Their calls are refused, and nobody should have to find that out by them."""
    assert "credentials" not in admin.get("/api/v1/health")
    admin.post(PATH, OCR)
    put(
        console.console,
        "service",
        kept(console)
        | {
            "secret": SecretBox("installation", [("e9", b"k" * 32)], os.urandom).seal(
                SECRET, service_place(kept(console)["id"], URL)
            )
        },
    )
    told = admin.get("/api/v1/health")
    assert (told["status"], told["credentials"]["unreadable"]) == ("degraded", ["service ocr"])
