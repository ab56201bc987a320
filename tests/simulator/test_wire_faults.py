"""Every wire fault puts exactly its bytes on the connection, and the truth log says whether the call is billed."""

import gzip

import pytest

from faregate.simulator.faults import FAULTS, Where
from simulated import Heard, Provider, chat, hear, post, unchunk

WIRE = sorted(name for name, fault in FAULTS.items() if fault.where is Where.WIRE)


def fields(heard: Heard) -> list[bytes]:
    """The header lines of an answer."""
    return heard.head.split(b"\r\n")[1:]


def length(heard: Heard) -> int:
    """What Content-Length announces."""
    (line,) = [line for line in fields(heard) if line.startswith(b"content-length: ")]
    return int(line.split(b": ")[1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WIRE)
def test_truth_says_whether_a_broken_answer_is_billed(provider: Provider, name: str, stream: bool) -> None:
    """The record of every wire fault agrees with the table of faults, streamed or not."""
    request_id = f"req_{name}_{stream}"

    provider.steer({"fault": name, "count": 10}, stream=stream, seconds=0.3, request_id=request_id)

    record = provider.record(request_id)
    assert (record["served"], record["complete"], record["fault"]) == (
        FAULTS[name].served,
        FAULTS[name].complete,
        name,
    )
    assert (record["usage"] is not None) == record["served"]


@pytest.mark.parametrize("name", ["reset_after_head", "reset_mid_upload"])
def test_reset(provider: Provider, name: str) -> None:
    """F03 and F04 end the connection with a reset and not a byte."""
    heard = provider.steer({"fault": name})

    assert heard == (b"", "reset")


@pytest.mark.parametrize("name", ["reset_mid_upload", "early_answer"])
def test_upload_is_broken_before_its_end(provider: Provider, name: str) -> None:
    """F04 and F16 strike while half of the body is still to come."""
    whole = post(chat({"fault": name}, user="u" * 200_000))
    with provider.connect() as connection:
        connection.sendall(whole[:100_000])
        connection.settimeout(10)
        if name == "reset_mid_upload":
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        else:
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            connection.sendall(whole[100_000:])
            assert hear(connection, 10).end == "closed"


def test_script_strikes_at_the_head(provider: Provider) -> None:
    """A rule without a model resets the connection before any of the body is sent, once."""
    provider.door("POST", "script", [{"path": "*/chat/*", "nth": 1, "steer": {"fault": "reset_after_head"}}])
    whole = post(chat())
    with provider.connect() as connection:
        connection.sendall(whole[: whole.index(b"\r\n\r\n") + 4])

        assert hear(connection, 10) == (b"", "reset")
    assert provider.ask(chat()).status == 200
    provider.door("POST", "script", [])


def test_never_answer(provider: Provider) -> None:
    """F05 reads everything and stays silent."""
    assert provider.steer({"fault": "never_answer"}, seconds=0.3) == (b"", "silent")


def test_status_line_only(provider: Provider) -> None:
    """F06 sends the status line and stays silent."""
    assert provider.steer({"fault": "status_line_only"}, seconds=0.3) == (b"HTTP/1.1 200 OK\r\n", "silent")


def test_dribble_headers(provider: Provider) -> None:
    """F07 sends the head byte after byte."""
    heard = provider.steer({"fault": "dribble_headers", "delay_ms": 20}, seconds=0.4)

    assert heard.end == "silent"
    assert b"HTTP/1.1 200 OK\r\n".startswith(heard.data[:10])
    assert 1 <= len(heard.data) <= 21


def test_empty_body(provider: Provider) -> None:
    """F08 says 200 and that there is nothing."""
    heard = provider.steer({"fault": "empty_body"})

    assert (heard.status, length(heard), heard.body) == (200, 0, b"")


def test_short_length(provider: Provider) -> None:
    """F09 sends more than it announces."""
    heard = provider.steer({"fault": "short_length"})

    assert heard.body.endswith(b"}")
    assert length(heard) == len(heard.body) // 2


def test_long_length(provider: Provider) -> None:
    """F10 announces more than it sends, and closes."""
    heard = provider.steer({"fault": "long_length"})

    assert heard.end == "closed"
    assert length(heard) == len(heard.body) + 100


def test_both_framings(provider: Provider) -> None:
    """F11 announces a length and chunks."""
    heard = provider.steer({"fault": "cl_and_te"})

    assert b"transfer-encoding: chunked" in fields(heard)
    assert length(heard) == len(unchunk(heard.body))


def test_bad_chunk(provider: Provider) -> None:
    """F12 begins a chunk with a size that is no number."""
    heard = provider.steer({"fault": "bad_chunk"})

    size, _, rest = heard.body.partition(b"\r\n")
    assert rest[int(size, 16) :].startswith(b"\r\nzz\r\n")


def test_missing_last_chunk(provider: Provider) -> None:
    """F13 closes where the last chunk should be."""
    heard = provider.steer({"fault": "missing_last_chunk"})

    size, _, rest = heard.body.partition(b"\r\n")
    assert (rest[int(size, 16) :], heard.end) == (b"\r\n", "closed")


def test_bytes_after_end(provider: Provider) -> None:
    """F14 goes on after the end of the answer."""
    heard = provider.steer({"fault": "bytes_after_end"})

    assert heard.body[length(heard) :].startswith(b"HTTP/1.1 200 OK\r\n")


def test_continue_storm(provider: Provider) -> None:
    """F15 sends as many interim answers as steered, then the answer."""
    heard = provider.steer({"fault": "continue_storm", "count": 2500})

    storm = b"HTTP/1.1 100 Continue\r\n\r\n" * 2500
    assert heard.data.startswith(storm + b"HTTP/1.1 200 OK\r\n")


def test_html(provider: Provider) -> None:
    """F31 says 200 and sends a page."""
    heard = provider.steer({"fault": "html"})

    assert heard.body.startswith(b"<!doctype html>")
    assert heard.status == 200


def test_gzip_bomb(provider: Provider) -> None:
    """F32 unpacks to about a thousand times its size."""
    heard = provider.steer({"fault": "gzip_bomb"})

    assert b"content-encoding: gzip" in fields(heard)
    assert len(gzip.decompress(heard.body)) > 900 * len(heard.body)


def test_odd_retry_after_takes_turns(provider: Provider) -> None:
    """F33 goes through a negative number, a huge one and a date."""
    heard = [provider.steer({"fault": "rate_limited_odd"}) for _ in range(3)]

    assert {one.status for one in heard} == {429}
    said = {line for one in heard for line in fields(one) if line.startswith(b"retry-after")}
    assert said == {
        b"retry-after: -1",
        b"retry-after: 1000000000",
        b"retry-after: Wed, 21 Oct 2099 07:28:00 GMT",
    }


def test_redirect(provider: Provider) -> None:
    """F34 points at the address where clouds keep credentials."""
    heard = provider.steer({"fault": "redirect"})

    assert b"location: http://169.254.169.254/latest/meta-data/" in fields(heard)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("bad_header", b"\r\nx-sim-odd: a\x00b\r\n"),
        ("header_cr", b"\r\nx-sim-odd: a\rb\r\n"),
        ("header_lf", b"\r\nx-sim-odd: a\nx-sim-split: b\r\n"),
        ("huge_header", b"\r\nx-sim-odd: " + b"h" * 1024 * 1024 + b"\r\n"),
    ],
)
def test_bad_headers(provider: Provider, name: str, line: bytes) -> None:
    """F35 puts bytes into the head that no header may hold, or far too many."""
    heard = provider.steer({"fault": name})

    assert line in heard.data
    assert heard.body.endswith(b"}")


def test_tracking_headers(provider: Provider) -> None:
    """F36 sends what must not reach a caller, with a good answer."""
    heard = provider.steer({"fault": "tracking_headers"})

    names = {line.partition(b":")[0] for line in fields(heard)}
    assert {b"set-cookie", b"server", b"openai-organization", b"openai-project"} <= names


def test_code_names_the_fault(provider: Provider) -> None:
    """A fault can be asked for by its code."""
    assert provider.steer({"fault": "F31"}).body.startswith(b"<!doctype html>")


def test_silent_call_ends_with_its_caller(provider: Provider) -> None:
    """A call that is never answered leaves nothing in flight once its caller has gone."""
    provider.steer({"fault": "never_answer"}, seconds=0.1)

    provider.until(in_flight=0)
