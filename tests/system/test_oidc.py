"""Tokens of a real OpenID provider at a whole installation: discovery, calls, records, rotation, and an outage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx2
import pytest

from installation import CONFIG, Installation, free_port
from oidc import OidcProvider
from system.calls import ask, headers_of, new_key, new_limit, record

IDENTITY = """\
identity:
  accounting: {header: app-key}
  issuers:
    - name: idp
      issuer: ISSUER
      audiences: [my-app, other-app]
      claims: {client: [aud]}
      team: research
      project: search
    - name: dead
      issuer: http://127.0.0.1:9
      audiences: [my-app]
"""


class Running(NamedTuple):
    """An installation and the provider that it trusts."""

    installation: Installation
    provider: OidcProvider


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Both, each in processes of its own."""
    folder = tmp_path_factory.mktemp("oidc")
    with OidcProvider(folder / "provider", free_port()) as provider:
        identity = IDENTITY.replace("{", "{{").replace("}", "}}").replace("ISSUER", provider.issuer)
        with Installation(folder / "installation", config=CONFIG + identity) as installation:
            yield Running(installation, provider)


def test_a_token_opens_the_gate_and_its_call_is_on_record(running: Running) -> None:
    """The keys came by discovery; the application is the key, its user the end user, and usage is summed by both."""
    installation, provider = running
    answer = ask(installation, provider.token("ada", "my-app"))
    row = record(installation, answer.id)
    usage = installation.admin("GET", "/api/v1/usage?by=key,end_user,tag.application&end_user=ada")["data"]

    assert answer.status == 200
    assert (row["key"], row["end_user"], row["identity_source"]) == ("tok_idp:my-app", "ada", "jwt")
    assert (row["team"], row["project"], row["tags"]) == ("research", "search", {"application": "my-app"})
    assert [(each["key"], each["end_user"], each["requests"]) for each in usage] == [("tok_idp:my-app", "ada", 1)]
    assert usage[0]["tag.application"] == "my-app"


def test_limits_hold_for_an_application_before_its_first_call(running: Running) -> None:
    """Its id is known beforehand, so a limit can be set on it like on a key."""
    installation, provider = running
    new_limit(installation, {"key": "tok_idp:other-app"}, "requests", 1, window="lifetime")
    token = provider.token("bob", "other-app")
    answers = [ask(installation, token) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 429]


def test_whom_a_key_acts_for_is_on_record_and_who_is_charged(running: Running) -> None:
    """Headers of an application behind API Management, and the accounting header; all of it can be reported."""
    installation, provider = running
    key = new_key(installation, "apim")
    context = {"x-apim-end-user-id": "u-1", "x-apim-end-user-tenant-id": "t-1", "app-key": "unit-7"}
    context["x-apim-client-application-id"] = "a-1"
    answer = ask(installation, key["secret"], headers=context)
    by_token = ask(installation, key["secret"], headers={"x-apim-end-user-jwt": provider.token("carl", "my-app")})
    row, other = record(installation, answer.id), record(installation, by_token.id)
    usage = installation.admin("GET", "/api/v1/usage?by=user,tag.tenant&tag.application=a-1")["data"]

    assert (row["end_user"], row["identity_source"], row["user"]) == ("u-1", "header", "unit-7")
    assert row["tags"] == {"application": "a-1", "tenant": "t-1"}
    assert (other["end_user"], other["identity_source"]) == ("carl", "jwt")
    assert [(each["user"], each["tag.tenant"], each["requests"]) for each in usage] == [("unit-7", "t-1", 1)]
    assert not any("apim" in str(each).lower() for each in installation.simulator("GET", "truth")["data"])


def test_another_proxy_is_told_who_a_token_names(running: Running) -> None:
    """Forward-auth knows tokens as it knows keys."""
    installation, provider = running
    headers = headers_of(provider.token("ada", "my-app")) | {"x-forwarded-uri": "/grafana/d/1"}
    answer = ask(installation, "", path="/auth/verify", headers=headers)

    assert (answer.status, answer.headers["x-faregate-key-id"]) == (200, "tok_idp:my-app")
    assert (answer.headers["x-faregate-end-user"], answer.headers["x-faregate-service"]) == ("ada", "grafana")


def test_an_abrupt_change_of_keys_loses_nobody(running: Running) -> None:
    """The provider comes back with other keys: the first call with a new token waits for them, old tokens are over.

    It stands before the tests that send bad tokens: those make the look that is allowed in ten seconds.
    """
    installation, provider = running
    old = provider.token("dora", "my-app")
    before = ask(installation, old)
    provider.stop()
    without = ask(installation, old)
    provider.start()
    first = ask(installation, provider.token("dora", "my-app"))
    second, stale = ask(installation, provider.token("dora", "my-app")), ask(installation, old)

    assert [answer.status for answer in (before, without, first, second)] == [200, 200, 200, 200]
    assert (stale.status, stale.code) == (401, "jwt_invalid")


def test_tokens_for_others_are_refused(running: Running) -> None:
    """For another application, or changed on the way; nothing of them is logged."""
    installation, provider = running
    good = provider.token("eve", "my-app")
    head, claims, signature = good.split(".")
    wrong = ask(installation, provider.token("eve", "another-app"))
    changed = ask(installation, f"{head}.{claims}.{signature[::-1]}")

    assert (wrong.status, wrong.json["error"]["message"]) == (401, "Token refused: aud.")
    assert (changed.status, changed.code) == (401, "jwt_invalid")
    assert claims not in installation.log()


def test_a_new_gate_and_a_new_console_know_the_keys(running: Running) -> None:
    """Whichever of the two dies, tokens open the gate again as soon as it is back."""
    installation, provider = running
    for kill in (installation.kill_gate, installation.kill_console):
        pid = kill()
        deadline = time.monotonic() + 40
        token = provider.token("ada", "my-app")
        status = 0
        while status != 200:
            assert time.monotonic() < deadline, f"{status} after {pid} was killed"
            try:
                status = ask(installation, token).status
            except (OSError, httpx2.HTTPError):
                status = 0
            time.sleep(0.1)

        assert status == 200
