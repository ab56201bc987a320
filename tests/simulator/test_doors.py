"""What the simulator tells and does when it is asked itself."""

import json
import socket
from contextlib import ExitStack

import pytest

from simulated import KEY, Provider, chat, hear, post, sse

RELEASED = {"released": 1}


def send(stack: ExitStack, provider: Provider, data: bytes) -> socket.socket:
    """Send a request and do not wait for its answer."""
    connection = stack.enter_context(provider.connect())
    connection.sendall(data)
    return connection


@pytest.fixture(autouse=True)
def fresh(provider: Provider) -> None:
    """Every test begins with counters at zero."""
    provider.door("POST", "reset")


def test_hold_everything_until_release(provider: Provider) -> None:
    """Held calls count as dispatched, get not a byte, and are answered in order of arrival when released."""
    provider.door("POST", "hold")
    with ExitStack() as stack:
        calls = [send(stack, provider, post(chat(stream=number % 2 == 0))) for number in range(10)]
        provider.until(dispatched=10, in_flight=10, held=10)
        assert hear(calls[0], 0.05) == (b"", "silent")

        assert provider.door("POST", "release", {"count": 1}) == (200, RELEASED)
        provider.until(in_flight=9, held=9)
        assert provider.door("POST", "release") == (200, {"released": 9})

        assert {hear(call, 10).status for call in calls} == {200}
        provider.until(in_flight=0, held=0)
    assert provider.ask(chat()).status == 200


def test_hold_by_steering(provider: Provider) -> None:
    """One call is held while others are answered; a stream can be held in its middle."""
    with ExitStack() as stack:
        before = send(stack, provider, post(chat({"hold": True})))
        middle = send(stack, provider, post(chat({"hold_after": 3}, stream=True)))
        provider.until(held=2)
        assert provider.ask(chat()).status == 200
        assert hear(middle, 0.1).body.count(b"delta") == 1 + 3

        assert provider.door("POST", "release") == (200, {"released": 2})

        assert hear(before, 10).status == 200
        assert hear(middle, 10).data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_held_call_whose_caller_leaves_is_not_billed(provider: Provider) -> None:
    """A caller who leaves before the answer began owes nothing."""
    with provider.connect() as connection:
        connection.sendall(post(chat({"hold": True}), request_id="req_left"))
        provider.until(held=1)
        assert provider.door("GET", "truth/req_left")[0] == 503

    record = provider.record("req_left")
    assert (record["served"], record["complete"], record["usage"]) == (False, False, None)
    provider.until(held=0, in_flight=0)
    assert provider.door("GET", "truth/req_left")[1]["served"] is False


def test_caller_who_leaves_a_stream_owes_what_was_delivered(provider: Provider) -> None:
    """The record of a stream cut by its caller bills the tokens sent so far."""
    with provider.connect() as connection:
        connection.sendall(post(chat({"hold_after": 4}, stream=True), request_id="req_cut"))
        provider.until(held=1)

    record = provider.record("req_cut")
    assert (record["served"], record["complete"], record["delivered_tokens"]) == (True, False, 4)
    assert record["usage"]["completion_tokens"] == 4


def test_lookup(provider: Provider) -> None:
    """A provider can be asked by request id what became of a call."""
    usage = json.loads(provider.ask(chat(), request_id="req_asked").body)["usage"]
    provider.steer({"status": 500}, request_id="req_failed")

    assert provider.door("GET", "truth/req_asked") == (
        200,
        {
            "served": True, "ended": True, "complete": True, "usage": usage, "model": "sim-1", "status": 200,
            "records": 1,
        },
    )  # fmt: skip
    failed = provider.door("GET", "truth/req_failed")[1]
    assert (failed["served"], failed["ended"]) == (False, True)
    assert provider.door("GET", "truth/req_none")[0] == 404


def test_lookup_of_a_call_made_twice(provider: Provider) -> None:
    """Two served calls with one id add up, so that a double dispatch cannot hide."""
    for _ in range(2):
        provider.ask(chat(), request_id="req_twice")
    status, told = provider.door("GET", "truth/req_twice")

    assert (status, told["records"], told["usage"]["completion_tokens"]) == (200, 2, 32)


def test_truth_is_listed_in_pages(provider: Provider) -> None:
    """Records come in order, from any number on."""
    for number in range(5):
        provider.ask(chat(), request_id=f"req_{number}")
    first = provider.door("GET", "truth?limit=3")[1]
    rest = provider.door("GET", f"truth?since={first['data'][-1]['seq']}")[1]

    ids = [record["request_id"] for record in first["data"] + rest["data"]]
    assert ids == ["req_0", "req_1", "req_2", "req_3", "req_4"]
    assert rest["last_seq"] == rest["data"][-1]["seq"]


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "since=-1"])
def test_wrong_pages_are_refused(provider: Provider, query: str) -> None:
    """Bounds of the listing are told, not bent."""
    assert provider.door("GET", f"truth?{query}")[0] == 400


def test_record_shows_headers_but_no_credential(provider: Provider) -> None:
    """All header names and values are there to look at; of the credential only a digest and its end."""
    lines = post(chat(), request_id="req_seen").replace(b"\r\n\r\n", b"\r\nX-Canary: abc\r\n\r\n", 1)
    provider.talk(lines)
    record = provider.record("req_seen")

    assert ["x-canary", "abc"] in record["headers"]
    assert (record["credential"]["header"], record["credential"]["last4"]) == ("authorization", KEY[-4:])
    assert KEY not in json.dumps(record)


def test_script_is_replaced(provider: Provider) -> None:
    """A script posted while it runs steers the calls after it; a wrong one changes nothing."""
    rules = [{"model": "gpt-*", "nth": 2, "steer": {"output_tokens": 3}}]
    assert provider.door("POST", "script", rules)[0] == 200
    assert provider.door("POST", "script", [{"steer": {"fault": "none"}}])[0] == 400

    tokens = [json.loads(provider.ask({**chat(), "model": "gpt-4o"}).body)["usage"] for _ in range(3)]

    assert [usage["completion_tokens"] for usage in tokens] == [16, 3, 16]
    provider.door("POST", "script", [])


def test_reset_forgets(provider: Provider) -> None:
    """After a reset nothing before it is shown; the numbers go on."""
    provider.ask(chat(), request_id="req_old")
    before = provider.door("GET", "state")[1]["last_seq"]
    state = provider.door("POST", "reset")[1]

    assert (state["dispatched"], state["last_seq"]) == (0, before)
    assert provider.door("GET", "truth")[1]["data"] == []
    assert provider.door("GET", "truth/req_old")[0] == 404


@pytest.mark.parametrize(
    ("method", "name"), [("GET", "nothing"), ("POST", "state"), ("GET", "release"), ("PUT", "truth")]
)
def test_other_doors_do_not_exist(provider: Provider, method: str, name: str) -> None:
    """What is not listed is not there."""
    assert provider.door(method, name)[0] == 404


def test_steered_body_bills_the_usage_it_tells(provider: Provider) -> None:
    """An answer of the test's own making is billed by its own usage, and not at all without one."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    heard = provider.steer({"body": {"usage": usage}}, request_id="req_own")
    provider.steer({"status": 200, "body": "text"}, request_id="req_text")

    assert json.loads(heard.body) == {"usage": usage}
    assert provider.record("req_own")["usage"] == usage
    assert provider.record("req_text")["served"] is False


def test_events_can_be_cut_anywhere(provider: Provider) -> None:
    """``split_bytes`` frames the same bytes anew."""
    whole = provider.ask(chat({}, stream=True), request_id="req_same")
    split = provider.ask(chat({"split_bytes": 1}, stream=True), request_id="req_same")

    assert split.body.startswith(b"1\r\nd\r\n1\r\na\r\n1\r\nt\r\n1\r\na\r\n")
    assert sse(split) == sse(whole)
