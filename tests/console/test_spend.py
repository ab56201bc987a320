"""``/``: the spend view, signing in and out, and what the page may hold."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from console_parts import NOON, SECOND, WHO, Api, Parts, opened, parts, settled_call
from faregate.console.doors import trusted
from faregate.console.keys import NewKey, create, revoke
from faregate.console.limits import NewLimit
from faregate.console.limits import put as put_limit
from faregate.console.sessions import IDLE_NANOS, LIFE_NANOS, SESSIONS_MAX, Sessions


def sign_in(made: Parts, secret: str) -> dict[str, str]:
    """The cookie header of a new session."""
    answer = Api(made.app).call("POST", "/login", data={"key": secret})
    assert answer.status_code == 303, answer.text
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


def csrf_of(page: str) -> str:
    """The token in a page's form."""
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_stranger_sees_the_form_and_nothing_else(made: Parts) -> None:
    """No figure leaves without a session."""
    made.journal.add(opened(), *settled_call("req_1"))
    made.project()
    page = Api(made.app).call("GET", "/")
    assert page.status_code == 200
    assert 'type="password"' in page.text
    assert "research" not in page.text


def test_whoever_asks_for_the_heads_of_the_page_gets_them(made: Parts) -> None:
    """As `curl -I` and probes do: what GET answers, without the page."""
    got, head = (Api(made.app).call(method, "/") for method in ("GET", "HEAD"))

    assert (head.status_code, head.headers["content-type"]) == (200, got.headers["content-type"])


def test_an_admin_signs_in_and_sees_spend_limits_requests_and_health(made: Parts) -> None:
    """One page with this month's spend by team and model, bars, and the last calls."""
    secret = made.admin_key()
    put_limit(made.console, NewLimit(select={"team": "research"}, unit="usd", amount="0.0035", window="month"))
    made.journal.add(opened(), *settled_call("req_1"))
    made.project()
    page = Api(made.app).call("GET", "/", headers=sign_in(made, secret)).text
    for shown in ("$0.00175", "research", "gpt-4o", "req_1", 'value="50"', "2026-12-01T00:00:00Z", "Health"):
        assert shown in page
    assert secret not in page


def test_names_are_escaped(made: Parts) -> None:
    """A name that looks like a script is text on the page."""
    who = WHO._replace(team="<script>alert(1)</script>")
    made.journal.add(opened(), *settled_call("req_1", who=who))
    made.project()
    page = Api(made.app).call("GET", "/", headers=sign_in(made, made.admin_key())).text
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_page_needs_no_script_and_no_other_host(made: Parts) -> None:
    """Tables have captions and scoped headers; the only asset is our own style."""
    put_limit(made.console, NewLimit(each=["user"], unit="tokens", amount=5, window="day"))
    made.journal.add(opened(), *settled_call("req_1"))
    made.project()
    page = Api(made.app).call("GET", "/", headers=sign_in(made, made.admin_key())).text
    parser = Tags()
    parser.feed(page)
    assert not [tag for tag, _ in parser.tags if tag in ("script", "img", "iframe", "object")]
    assert [fields["href"] for tag, fields in parser.tags if tag == "link"] == ["/static/spend.css"]
    assert not [
        fields for _, fields in parser.tags if "style" in fields or any(name.startswith("on") for name in fields)
    ]
    tables = sum(tag == "table" for tag, _ in parser.tags)
    assert sum(tag == "caption" for tag, _ in parser.tags) == tables == 4
    assert all("scope" in fields for tag, fields in parser.tags if tag == "th")
    style = Api(made.app).call("GET", "/static/spend.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text


def test_the_session_cookie_is_opaque_and_guarded(tmp_path: Path) -> None:
    """HttpOnly and SameSite always; over TLS also Secure and bound to the host."""
    for tls, name, secure in ((False, "faregate_session", False), (True, "__Host-faregate_session", True)):
        (tmp_path / name).mkdir()
        with parts(tmp_path / name, tls=tls) as made:
            answer = Api(made.app).call("POST", "/login", data={"key": made.admin_key()})
            cookie = answer.headers["set-cookie"]
            assert re.match(rf"{name}=[0-9a-f]{{64}};", cookie)
            assert "HttpOnly" in cookie
            assert "samesite=lax" in cookie.lower()
            assert ("Secure" in cookie) is secure
            assert ("strict-transport-security" in answer.headers) is tls


@pytest.mark.parametrize("key", ["", "x", "sk-fg-" + "0" * 49, "y" * 3_000])
def test_a_wrong_key_is_told_in_one_way(made: Parts, key: str) -> None:
    """The page says nothing of what is wrong with it."""
    answer = Api(made.app).call("POST", "/login", data={"key": key})
    assert answer.status_code == 401
    assert "not a key that works here" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_callers_key_opens_no_session(made: Parts) -> None:
    """Only admins see the spend of all."""
    _, secret = create(made.console, NewKey(name="caller"))
    assert Api(made.app).call("POST", "/login", data={"key": secret}).status_code == 401


def test_each_sign_in_has_a_new_id_and_the_one_before_is_void(made: Parts) -> None:
    """A session id fixed before the login is worth nothing after it."""
    secret = made.admin_key()
    first = sign_in(made, secret)
    answer = Api(made.app).call("POST", "/login", data={"key": secret}, headers=first)
    second = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert first != second
    assert 'type="password"' in Api(made.app).call("GET", "/", headers=first).text
    assert 'type="password"' not in Api(made.app).call("GET", "/", headers=second).text


def test_signing_out_wants_the_token_and_ends_the_session(made: Parts) -> None:
    """A form of another site cannot sign anybody out."""
    cookie = sign_in(made, made.admin_key())
    api = Api(made.app)
    token = csrf_of(api.call("GET", "/", headers=cookie).text)
    assert api.call("POST", "/logout", data={"csrf": "0" * 64}, headers=cookie).json()["code"] == "csrf_failed"
    foreign = {**cookie, "origin": "https://evil.example"}
    assert api.call("POST", "/logout", data={"csrf": token}, headers=foreign).json()["code"] == "csrf_failed"
    assert api.call("POST", "/logout", data={"csrf": token}, headers={**cookie, "origin": "null"}).status_code == 403
    assert api.call("POST", "/logout", data={"csrf": token}, headers=cookie).status_code == 303
    assert 'type="password"' in api.call("GET", "/", headers=cookie).text


def test_a_browser_signs_in_and_out_by_the_origin_of_the_page(made: Parts) -> None:
    """The page lets browsers name its origin; a foreign one, and ``null``, sign nobody in or out."""
    secret, api = made.admin_key(), Api(made.app)
    ours = {"origin": "http://console.test"}
    page = api.call("GET", "/")
    refused = [
        api.call("POST", "/login", data={"key": secret}, headers={"origin": origin})
        for origin in ("null", "", "https://evil.example", "http://console.test.evil.example", "http://console.test:81")
    ]
    hostless = api.call("POST", "/login", data={"key": secret}, headers={"origin": "null", "host": ""})
    opened = api.call("POST", "/login", data={"key": secret}, headers=ours)
    cookie = {"cookie": opened.headers["set-cookie"].partition(";")[0]}
    token = csrf_of(api.call("GET", "/", headers=cookie).text)
    closed = api.call("POST", "/logout", data={"csrf": token}, headers={**cookie, **ours})

    assert page.headers["referrer-policy"] == "same-origin"
    assert {(each.status_code, each.json()["code"]) for each in (*refused, hostless)} == {(403, "csrf_failed")}
    assert (opened.status_code, closed.status_code) == (303, 303)
    assert 'type="password"' in api.call("GET", "/", headers=cookie).text


def test_the_last_requests_are_told_briefly(made: Parts) -> None:
    """A time to the second and the end of the id, with the whole id as its title, so that the charge stays in sight."""
    whole = "req_01KAJ5D3M0ABCDEFGHJKMNPQRS"
    made.journal.add(opened(), *settled_call(whole, at=NOON + 123_456_000))
    made.project()
    page = Api(trusted(made.app)).call("GET", "/").text

    assert f'<code title="{whole}">…GHJKMNPQRS</code>' in page
    assert ".123456Z" not in page


def test_a_session_reads_the_api_and_changes_it_only_with_its_token(made: Parts) -> None:
    """The cookie alone is not enough for anything that writes."""
    cookie = sign_in(made, made.admin_key())
    api = Api(made.app)
    assert api.call("GET", "/api/v1/keys", headers=cookie).status_code == 200
    refused = api.call("POST", "/api/v1/keys", json={"name": "a"}, headers=cookie)
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
    token = csrf_of(api.call("GET", "/", headers=cookie).text)
    assert (
        api.call("POST", "/api/v1/keys", json={"name": "a"}, headers={**cookie, "x-csrf-token": token}).status_code
        == 201
    )


def test_forged_and_doubled_cookies_open_nothing(made: Parts) -> None:
    """Two session cookies are as good as none."""
    cookie = sign_in(made, made.admin_key())["cookie"]
    api = Api(made.app)
    for each in ("faregate_session=" + "0" * 64, f"{cookie}; faregate_session={'0' * 64}", "faregate_session", "=;;;"):
        assert api.call("GET", "/api/v1/keys", headers={"cookie": each}).status_code == 401


def test_a_session_ends_idle_and_in_any_case_and_with_its_key(made: Parts) -> None:
    """Half an hour without use, twelve hours with it, at once when the key is revoked."""
    secret = made.admin_key()
    api = Api(made.app)
    idle = sign_in(made, secret)
    made.clock.now += IDLE_NANOS + 1
    assert api.call("GET", "/api/v1/keys", headers=idle).status_code == 401
    busy = sign_in(made, secret)
    began = made.clock.now
    while made.clock.now - began + IDLE_NANOS < LIFE_NANOS:
        made.clock.now += IDLE_NANOS
        assert api.call("GET", "/api/v1/keys", headers=busy).status_code == 200
    made.clock.now += IDLE_NANOS
    made.clock.now += 1
    assert api.call("GET", "/api/v1/keys", headers=busy).status_code == 401
    last = sign_in(made, secret)
    revoke(made.console, made.books.listing("key")[0]["id"], "")
    assert api.call("GET", "/api/v1/keys", headers=last).status_code == 401


def test_a_session_ends_with_the_secret_that_began_it(made: Parts) -> None:
    """A rotation without grace ends it at once, one with a grace when that is over; the new secret begins others."""
    secret, api = made.admin_key(), Api(made.app)
    path = f"/api/v1/keys/{made.books.listing('key')[0]['id']}/rotate"
    first = sign_in(made, secret)
    secret = Api(made.app, secret).post(path, {"grace_seconds": 60}, status=200)["secret"]
    assert api.call("GET", "/api/v1/keys", headers=first).status_code == 200
    made.clock.now += 60 * SECOND
    assert api.call("GET", "/api/v1/keys", headers=first).status_code == 401
    second = sign_in(made, secret)
    secret = Api(made.app, secret).post(path, {"grace_seconds": 0}, status=200)["secret"]
    assert api.call("GET", "/api/v1/keys", headers=second).status_code == 401
    assert api.call("GET", "/api/v1/keys", headers=sign_in(made, secret)).status_code == 200


def test_a_role_that_is_taken_away_opens_nothing_more(made: Parts) -> None:
    """Neither the key itself nor the session that it began, from the answer on."""
    root, path = Api(made.app, made.admin_key()), "/api/v1/keys"
    auditor = root.post(path, {"name": "auditor", "role": "auditor", "organization": "default"}, status=201)
    own, session = Api(made.app, auditor["secret"]), sign_in(made, auditor["secret"])
    before = own.call("GET", path), Api(made.app).call("GET", path, headers=session)
    version = {"if-match": root.call("GET", f"{path}/{auditor['id']}").headers["etag"]}
    changed = root.call("PATCH", f"{path}/{auditor['id']}", json={"role": "caller"}, headers=version)
    after = own.call("GET", path), Api(made.app).call("GET", path, headers=session)
    assert changed.status_code == 200, changed.text
    assert [answer.status_code for answer in (*before, *after)] == [200, 200, 403, 401]


def test_sessions_are_bounded() -> None:
    """The oldest goes when there are too many."""
    counter = iter(range(10**6))
    sessions = Sessions(lambda count: next(counter).to_bytes(count, "big"))
    ids = [sessions.begin("key_1", "digest", NOON + number)[0] for number in range(SESSIONS_MAX + 5)]
    assert sessions.find(ids[0], NOON) is None
    assert sessions.find(ids[-1], NOON) is not None


def test_the_owner_of_the_data_folder_sees_the_page_without_a_key(made: Parts) -> None:
    """Through the socket there is nothing to sign in to."""
    assert "Spend since" in Api(trusted(made.app)).call("GET", "/").text


def test_a_login_that_is_no_form_is_refused(made: Parts) -> None:
    """JSON, a huge form and an odd method each have their answer."""
    api = Api(made.app)
    assert api.call("POST", "/login", json={"key": "x"}).json()["code"] == "media_unsupported"
    assert api.call("POST", "/login", data={"key": "x" * 5000}).json()["code"] == "body_too_large"
    assert api.call("GET", "/login").json()["code"] == "method_not_allowed"
