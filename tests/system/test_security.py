"""Secrets and prompts stay where they belong, and every door is closed until somebody shows a credential."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from installation import CONFIG, UPSTREAM_SECRET, Installation
from loopback import NO_TLS
from system.calls import Answer, ask, body, new_key, record_count, records, truth_of

PROMPT = "PROMPT-CANARY-5d0c7be1"
HEADER = "HEADER-CANARY-91ab4e77"
ANSWER = "ANSWER-CANARY-c2604bd9"

#: A token of an end user, which is looked into and kept nowhere; its last part is a signature in name only.
SIGNATURE = "VE9LRU4tQ0FOQVJZLTdhMTljM2Zl"
TOKEN = f"eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJqYW5lIn0.{SIGNATURE}"

#: Each makes the gateway, the provider or both say something unpleasant.
FAULTS = (
    {"status": 401}, {"status": 500}, {"status": 429}, {"fault": "reset_after_head"}, {"fault": "html"},
    {"fault": "empty_body"}, {"fault": "bad_chunk"}, {"fault": "not_json"}, {"fault": "usage_text"},
    {"fault": "redirect"},
)  # fmt: skip

#: What a caller may send and no provider may see.
KEPT_BACK = (
    "x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "cookie", "openai-organization", "openai-project",
    "x-faregate-tags", "x-faregate-run", "x-faregate-user", "proxy-authorization", "x-internal-token",
)  # fmt: skip


class Told(NamedTuple):
    """An installation that was used and misused, and all that it answered."""

    running: Installation
    key: dict[str, Any]
    admin: dict[str, Any]
    answers: list[Answer]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Calls that work and calls that fail in every way, each with the canary in its prompt."""
    with Installation(tmp_path_factory.mktemp("security")) as running:
        key = new_key(running, "canary", may_set=["user", "tags", "run"])
        admin = new_key(running, "admin", role="admin")
        secret = key["secret"]
        context = {"x-apim-end-user-jwt": TOKEN}
        said: dict[str, Any] = {"content": f"{ANSWER} and no more", "output_tokens": 4}
        answers = [
            ask(running, secret, body(PROMPT, stream=stream, **said), headers=context) for stream in (False, True)
        ]
        for steer in FAULTS:
            answers += [ask(running, secret, body(PROMPT, stream=stream, **steer)) for stream in (False, True)]
        broken = [
            {"messages": PROMPT, "model": "sim-1"},
            {**body(PROMPT), "max_tokens": PROMPT},
            {**body(PROMPT), "temperature": PROMPT},
            {**body(PROMPT), "model": "no-such-model"},
        ]
        answers += [ask(running, secret, each) for each in broken]
        answers += [
            ask(running, wrong, body(PROMPT)) for wrong in (secret[:-1] + "!", secret[:-6] + "000000", "x" * 80)
        ]
        answers.append(ask(running, secret, body(PROMPT), path="/v1/images/generations"))
        answers.append(ask(running, secret, body(PROMPT), path=f"/v1/chat/completions?subscription-key={secret}"))
        record_count(running, 20)
        yield Told(running, key, admin, answers)


def _secrets(told: Told) -> tuple[str, ...]:
    return (UPSTREAM_SECRET, told.key["secret"], told.admin["secret"], SIGNATURE)


#: What was said, by whoever.
TEXTS = (PROMPT, ANSWER)


def _get(told: Told, path: str, secret: str | None = None) -> httpx2.Response:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    return httpx2.get(told.running.console_url + path, headers=headers, trust_env=False, verify=NO_TLS)


def test_no_answer_of_the_gateway_holds_a_secret_or_a_prompt(told: Told) -> None:
    """Answers and errors repeat neither the provider's key, nor the caller's, nor the prompt, nor a traceback."""
    told_texts = [answer.text + repr(answer.headers) for answer in told.answers]
    found = [text for text in told_texts for word in (*_secrets(told), PROMPT, "Traceback") if word in text]
    assert len(told.answers) > 2 * len(FAULTS)
    assert found == []


def test_no_log_holds_a_secret_or_a_prompt(told: Told) -> None:
    """What ``serve`` and its processes log holds no key and no text of a caller."""
    log = told.running.log()
    assert "process_listens" in log
    assert [word for word in (*_secrets(told), *TEXTS, "Traceback") if word in log] == []


def test_no_admin_answer_holds_a_secret_or_a_prompt(told: Told) -> None:
    """Every list of the API, every single record, health, the spend page and the metrics are free of them."""
    paths = [path for path, methods in _api(told).items() if "get" in methods and "{" not in path]
    asked = {"/api/tokenize": "?input=x", "/api/v1/route": "?model=sim-1"}
    texts = {path: _get(told, path + asked.get(path, ""), told.admin["secret"]) for path in [*paths, "/metrics"]}
    rows = records(told.running)
    texts |= {row["id"]: _get(told, f"/api/v1/requests/{row['id']}", told.admin["secret"]) for row in rows[:5]}

    assert {path: got.status_code for path, got in texts.items() if got.status_code != 200} == {}
    assert [path for path, got in texts.items() for word in (*_secrets(told), *TEXTS) if word in got.text] == []


def test_no_file_of_the_data_folder_holds_a_secret_or_a_prompt(told: Told) -> None:
    """Journal, books and all else on disk hold digests of keys, no keys, and no prompt."""
    files = [path for path in told.running.data.rglob("*") if path.is_file()]
    found = [
        path.name for path in files for word in (*_secrets(told), *TEXTS) if word.encode() in path.read_bytes()
    ]  # fmt: skip
    assert any(path.name == "books.sqlite3" for path in files)
    assert found == []


def test_no_process_shows_a_secret_in_its_command_line(told: Told) -> None:
    """``ps`` shows nobody's key."""
    pids = [told.running.gate_pid(), told.running.console_pid()]
    shown = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)
    assert [word for word in _secrets(told) if word in shown] == []


def test_the_provider_gets_its_own_key_and_nothing_that_callers_keep(told: Told) -> None:
    """Upstream goes the provider's credential; inbound credentials and forwarding headers stay behind."""
    canaries = dict.fromkeys(KEPT_BACK, HEADER) | {"x-faregate-tags": f"a={HEADER}"}
    answer = ask(told.running, told.key["secret"], headers=canaries)

    truth = truth_of(told.running, answer.id)
    assert truth["credential"]["sha256"] == sha256(UPSTREAM_SECRET.encode()).hexdigest()
    assert HEADER not in json.dumps(truth)
    assert {name for name, _ in truth["headers"]} & set(KEPT_BACK) == set()
    assert told.key["secret"] not in told.running.truth_file.read_text()


@pytest.mark.parametrize(
    "show",
    [
        lambda secret: {"headers": {"authorization": f"Bearer {secret}"}},
        lambda secret: {"headers": {"authorization": secret}},
        lambda secret: {"headers": {"api-key": secret}},
        lambda secret: {"headers": {"x-api-key": secret}},
        lambda secret: {"headers": {"Ocp-Apim-Subscription-Key": secret}},
        lambda secret: {"params": {"subscription-key": secret}},
    ],
    ids=["bearer", "raw", "api-key", "x-api-key", "ocp", "query"],
)
def test_every_form_of_the_key_opens_and_never_reaches_the_provider(told: Told, show: Any) -> None:
    """All documented forms of the credential work, and the provider sees none of them."""
    url = told.running.gateway_url + "/v1/chat/completions"
    got = httpx2.post(url, json=body(), trust_env=False, verify=NO_TLS, **show(told.key["secret"]))

    truth = truth_of(told.running, got.headers["x-faregate-request-id"])
    assert got.status_code == 200
    assert told.key["secret"][-4:] not in [value[-4:] for _, value in truth["headers"]]
    assert truth["path"] == "/v1/chat/completions"


def test_a_providers_private_headers_do_not_reach_callers(told: Told) -> None:
    """Cookies, server names and organization ids of the provider are dropped."""
    answer = ask(told.running, told.key["secret"], body(fault="tracking_headers"))

    assert answer.status == 200
    assert {"set-cookie", "server", "openai-organization", "openai-project"} & set(answer.headers) == set()


def _api(told: Told) -> dict[str, dict[str, Any]]:
    """Every path of the admin API with its methods, as it is published."""
    paths: dict[str, dict[str, Any]] = _get(told, "/api/openapi.json").json()["paths"]
    return paths


@pytest.mark.parametrize("who", ["nobody", "a stranger", "a caller"])
def test_every_path_of_the_admin_api_is_closed(told: Told, who: str) -> None:
    """Without an admin key every method of every path is 401 (or 403 for a caller's key), never anything else."""
    headers = {
        "nobody": {},
        "a stranger": {"authorization": "Bearer sk-fg-nobody"},
        "a caller": {"authorization": f"Bearer {told.key['secret']}"},
    }[who]
    expected = {401, 403} if who == "a caller" else {401}
    # Its door is not there without a secret of its own, which no key takes the place of.
    absent = {"/webhooks/azure-budget"}
    doors = [(method, path) for path, methods in _api(told).items() if path not in absent for method in methods]
    doors += [("get", "/api/v1/no-such-thing"), ("get", "/api/"), ("get", "/metrics")]
    # Asked from this machine for this machine, metrics are open; that is what the other Host is for.
    headers = {**headers, "host": "faregate.example"}

    with httpx2.Client(base_url=told.running.console_url, headers=headers, trust_env=False) as client:
        statuses = {
            (method, path): client.request(method, re.sub(r"\{\w+\}", "x", path)).status_code for method, path in doors
        }

    assert len(doors) > 20
    assert {door: status for door, status in statuses.items() if status not in expected} == {}


def test_the_spend_page_asks_for_a_key_and_opens_with_it(told: Told) -> None:
    """Without a session ``/`` shows the login form and no figure; with an admin key it shows the spend."""
    closed = _get(told, "/")
    with httpx2.Client(base_url=told.running.console_url, trust_env=False, follow_redirects=True) as client:
        wrong = client.post("/login", data={"key": told.key["secret"]})
        opened = client.post("/login", data={"key": told.admin["secret"]})

    assert 'type="password"' in closed.text
    assert "canary" not in closed.text
    assert wrong.status_code == 401
    assert opened.status_code == 200
    assert "canary" in opened.text or "sim-1" in opened.text
    assert [word for word in (*_secrets(told), *TEXTS) if word in opened.text] == []


def _session_cookie(url: str, secret: str, proto: str) -> str:
    """The cookie of a sign-in that a proxy on this machine passed on, and that opens the page."""
    passed = {"x-forwarded-proto": proto}
    opened = httpx2.post(f"{url}/login", data={"key": secret}, headers=passed, trust_env=False)
    cookie = opened.headers["set-cookie"]
    session = {"cookie": cookie.partition(";")[0]}
    page = httpx2.get(url, headers={**passed, **session}, trust_env=False)
    assert 'type="password"' not in page.text
    token = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    closed = httpx2.post(f"{url}/logout", data={"csrf": token}, headers={**passed, **session}, trust_env=False)
    assert closed.headers["set-cookie"].startswith(cookie.partition("=")[0] + "=")
    return cookie


def test_the_session_cookie_is_secure_where_the_proxy_in_front_was_asked_by_https(tmp_path: Path) -> None:
    """Its word decides request by request; one that says http, or something else, gets a cookie that it can use."""
    with Installation(tmp_path, config=CONFIG + "console: {{behind_proxy: true}}\n") as running:
        secret = new_key(running, "admin", role="admin")["secret"]
        cookies = [_session_cookie(running.console_url, secret, proto) for proto in ("https", "http", "gopher")]

    assert [("; Secure" in cookie, cookie.startswith("__Host-")) for cookie in cookies] == [
        (True, True),
        (False, False),
        (False, False),
    ]


def test_nobodys_word_about_https_is_taken_where_no_proxy_is_configured(told: Told) -> None:
    """``X-Forwarded-Proto`` is then what anybody may send."""
    cookie = _session_cookie(told.running.console_url, told.admin["secret"], "https")

    assert cookie.startswith("faregate_session=")
    assert "; Secure" not in cookie


def test_sockets_and_secrets_are_for_their_owner_only(told: Told) -> None:
    """The data folder is 0700; its sockets and every file in it are closed to everybody else."""
    data = told.running.data
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [data, *data.rglob("*")]}

    assert modes["data"] == 0o700
    assert (modes["gate.sock"], modes["console.sock"], modes["secrets.json"]) == (0o600, 0o600, 0o600)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
