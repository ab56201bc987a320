"""What is kept of calls, what is looked for in them, and by what they are found (CAPABILITIES F5, F6, F8)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from faregate.config.settings import ContentRuleSettings, ContentSettings
from faregate.control import Route
from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.core.redaction import BUILT_IN
from faregate.journal.contents import SpooledContents
from faregate.ports import ContentRecord
from faregate.proxy.contents import WAITING_BYTES_MAX, ContentLog
from faregate.proxy.metrics import Metrics
from gates import RunningGate, deployment, key, money, provider, running_gate, scenario, secret, steered, truth

FULL = ContentSettings("full", retention_ms=60_000)
MAIL, CARD = "jane.doe@example.com", "4111 1111 1111 1111"


def rule(name: str, action: str, apply: str = "both", pattern: str = "") -> ContentRuleSettings:
    """A rule that ships, or one with a pattern."""
    known = BUILT_IN.get(name)
    if known is None or pattern:
        return ContentRuleSettings(name, pattern, action, apply)
    return ContentRuleSettings(name, known.pattern, action, apply, known.check)


def ruled(*rules: ContentRuleSettings, default: str = "full") -> ContentSettings:
    return ContentSettings(default, 32_768, 60_000, rules)


async def kept(running: RunningGate, count: int = 1) -> list[ContentRecord]:
    """What the gate left for the console, once there is so much."""
    spool, found = SpooledContents(running.folder / "contents"), list[ContentRecord]()

    def left() -> bool:
        found[:] = [record for file in spool.files() for record in spool.read(file)]
        return len(found) >= count

    await running.until(left)
    return found


async def nothing_kept(running: RunningGate) -> bool:
    """Whether nothing was left, when everything that was to be is written."""
    log = running.gate._content_log
    assert log is not None
    await asyncio.to_thread(log.close)
    return not SpooledContents(running.folder / "contents").files()


@contextlib.asynccontextmanager
async def listener(answer: dict[str, Any]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A provider that answers everything the same, and the whole requests that it got."""
    got: list[bytes] = []
    body = json.dumps(answer).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                got.append(head + await reader.readexactly(length))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                    + body
                )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", got
    finally:
        server.close()


def said(text: str) -> dict[str, Any]:
    """A whole answer of one choice."""
    return {
        "id": "x",
        "model": "sim-1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


# -- what is kept ------------------------------------------------------------------------------------------------------


@scenario
async def test_nothing_is_kept_where_nothing_says_so(tmp_path: Path) -> None:
    """A gate without settings for contents has no desk for them, and one whose default is off keeps none."""
    async with running_gate(tmp_path / "plain") as running:
        await running.chat()
        assert running.gate.contents is None
        assert await nothing_kept(running)
    async with running_gate(tmp_path / "off", content=ContentSettings(retention_ms=1)) as running:
        await running.chat()
        assert await nothing_kept(running)


@scenario
async def test_a_whole_answer_is_kept_with_its_prompt(tmp_path: Path) -> None:
    """Readable texts of both sides under the request's id, with their lengths."""
    async with running_gate(tmp_path, content=FULL) as running:
        prompt = steered("Say hello.", content="Hello there.", output_tokens=3)
        answer = await running.chat(prompt)
        (record,) = await kept(running)

    assert record.id == answer.headers["x-faregate-request-id"]
    assert (record.kept, record.stream, record.http_status, record.code) == ("full", False, 200, "")
    assert record.prompt.text == f"user: {prompt}"
    assert record.answer.text == "Hello there."
    assert (record.answer.characters, record.answer.bytes) == (12, len(answer.content))
    assert not record.prompt.truncated
    assert not record.answer.truncated


@scenario
async def test_a_stream_is_kept_as_the_text_that_it_brought(tmp_path: Path) -> None:
    """However many events it came in; the caller gets the same bytes as ever."""
    prompt = steered(content="one two three four five six", output_tokens=6, chunk_tokens=1)
    async with running_gate(tmp_path / "kept", content=FULL) as running:
        answer = await running.chat(prompt, stream=True)
        (record,) = await kept(running)
    async with running_gate(tmp_path / "plain") as running:
        plain = await running.chat(prompt, stream=True)

    assert (record.stream, record.answer.text) == (True, "one two three four five six")
    assert answer.text.count("data:") == plain.text.count("data:")


@scenario
async def test_the_choices_of_a_stream_are_kept_apart(tmp_path: Path) -> None:
    """Their events come mixed; each text is whole."""
    async with running_gate(tmp_path, content=FULL) as running:
        prompt = steered(content="one two three four", output_tokens=4, chunk_tokens=1)
        await running.chat(prompt, stream=True, n=2)
        (record,) = await kept(running)

    assert record.answer.text == "one two three four\n\none two three four"


@scenario
async def test_a_megabyte_is_accounted_whole_and_kept_in_part(tmp_path: Path) -> None:
    """The text is cut at the bound, says so, and tells how long it was; the record has the true usage."""
    async with running_gate(tmp_path, content=FULL) as running:
        await running.chat("x" * 1_000_000)
        (record,) = await kept(running)
        (settled,) = running.of(Settled)

    assert (len(record.prompt.text), record.prompt.truncated) == (32_768, True)
    assert record.prompt.characters == 1_000_000 + len("user: ")
    assert record.prompt.bytes > 1_000_000
    assert settled.usage_source == "provider"


@scenario
async def test_a_key_decides_for_itself(tmp_path: Path) -> None:
    """Its own word goes before the default; metadata are lengths without a text."""
    keys = (key("off", content="off"), key("some", content="metadata"), key("plain"))
    async with running_gate(tmp_path, keys=keys, content=FULL) as running:
        for each in keys:
            await running.chat(name=each.name)
        records = await kept(running, 2)
        assert len(records) == 2

    some, plain = records
    assert (some.kept, some.prompt.text, some.answer.text) == ("metadata", "", "")
    assert some.prompt.characters == plain.prompt.characters > 0
    assert (plain.kept, bool(plain.prompt.text)) == ("full", True)


@scenario
async def test_no_text_is_kept_without_an_end(tmp_path: Path) -> None:
    """A key that wants everything gets metadata where the configuration names no retention."""
    async with running_gate(tmp_path, keys=(key(content="full"),), content=ContentSettings("metadata")) as running:
        await running.chat()
        (record,) = await kept(running)

    assert (record.kept, record.prompt.text) == ("metadata", "")


@scenario
async def test_a_refused_call_is_kept_with_why(tmp_path: Path) -> None:
    """What a limit refused was asked all the same."""
    async with running_gate(tmp_path, limits=(money(1),), content=FULL) as running:
        answer = await running.chat("May I?")
        (record,) = await kept(running)

    assert answer.status_code == 429
    assert (record.http_status, record.code, record.prompt.text) == (429, "budget_exhausted", "user: May I?")


@scenario
async def test_a_stream_that_breaks_off_is_kept_as_far_as_it_came(tmp_path: Path) -> None:
    """With the code of its end and the text until then."""
    async with running_gate(tmp_path, content=FULL) as running:
        await running.chat(
            steered(content="one two three four", output_tokens=4, chunk_tokens=1, fault="reset_mid_stream"),
            stream=True,
        )
        (record,) = await kept(running)

    assert record.code.startswith("upstream_")
    assert record.answer.text
    assert "one two three four".startswith(record.answer.text)


# -- rules -------------------------------------------------------------------------------------------------------------


@scenario
async def test_what_a_rule_redacts_no_provider_sees_and_nobody_keeps(tmp_path: Path) -> None:
    """The texts are other texts, all other bytes are the caller's; header and record say what was done."""
    content = ruled(rule("email", "redact"), rule("card", "redact"))
    async with listener(said(f"Write to {MAIL}.")) as (url, got):
        providers = (provider(url),)
        async with running_gate(tmp_path, providers=providers, content=content) as running:
            answer = await running.chat(f"I am {MAIL} and pay with {CARD}.", metadata={"id": "4111"})
            (record,) = await kept(running)
            (intended,) = running.of(Intended)

    sent = json.loads(got[0].partition(b"\r\n\r\n")[2])
    assert sent["messages"] == [{"role": "user", "content": "I am [email] and pay with [card]."}]
    assert sent["metadata"] == {"id": "4111"}
    assert answer.headers["x-faregate-content"] == "email=redacted, card=redacted"
    assert answer.json()["choices"][0]["message"]["content"] == f"Write to {MAIL}."
    assert record.prompt.text == "user: I am [email] and pay with [card]."
    assert record.answer.text == "Write to [email]."
    assert ("email", "redact", "request", 1) in record.found
    assert ("email", "redact", "answer", 1) in record.found
    assert json.loads(intended.notes)["content"][0] == {"rule": "email", "action": "redact", "times": 1}


@scenario
async def test_what_a_rule_blocks_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """A clear code that names the rule and not the text, nothing held, charged or kept of it."""
    async with running_gate(tmp_path, limits=(money(10**9),), content=ruled(rule("card", "block"))) as running:
        answer = await running.chat(f"Pay with {CARD}.")
        (record,) = await kept(running)
        (refused,) = running.of(Refused)
        served = await truth(running)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["faregate"]["rule"]) == (400, "content_blocked", "card")
    assert CARD not in answer.text
    assert served == []
    assert refused.code == "content_blocked"
    assert (record.prompt.text, record.prompt.truncated) == ("", True)


@scenario
async def test_a_warning_lets_the_call_through_and_says_so(tmp_path: Path) -> None:
    """The provider gets the very bytes; header and record carry the rule's name."""
    content = ruled(rule("badge", "warn", "provider", r"\bB-\d{4}\b"), default="off")
    async with (
        listener(said("ok")) as (url, got),
        running_gate(tmp_path, providers=(provider(url),), content=content) as running,
    ):
        answer = await running.chat("I am B-1234.")
        assert await nothing_kept(running)
        (intended,) = running.of(Intended)

    assert b"I am B-1234." in got[0]
    assert answer.headers["x-faregate-content"] == "badge=warned"
    assert json.loads(intended.notes) == {"content": [{"rule": "badge", "action": "warn", "times": 1}]}


@scenario
async def test_rules_of_the_log_leave_requests_alone(tmp_path: Path) -> None:
    """The provider sees the text, the log does not."""
    async with listener(said("ok")) as (url, got):
        content = ruled(rule("email", "redact", "log"))
        async with running_gate(tmp_path, providers=(provider(url),), content=content) as running:
            answer = await running.chat(f"I am {MAIL}.")
            (record,) = await kept(running)

    assert MAIL.encode() in got[0]
    assert "x-faregate-content" not in answer.headers
    assert record.prompt.text == "user: I am [email]."


@scenario
async def test_large_requests_are_searched_off_the_loop_to_the_same_end(tmp_path: Path) -> None:
    """A text at the end of a large body is found; one that is blocked is refused."""
    padding = "all is well. " * 10_000
    async with listener(said("ok")) as (url, got):
        content = ruled(rule("email", "redact"), rule("card", "block"))
        async with running_gate(tmp_path, providers=(provider(url),), content=content) as running:
            passed = await running.chat(padding + MAIL)
            refused = await running.chat(padding + CARD)

    assert (passed.status_code, refused.status_code) == (200, 400)
    assert MAIL.encode() not in got[0]
    assert got[0].endswith(b'[email]"}],"max_tokens":50}') or b"[email]" in got[0]
    assert len(got) == 1


@scenario
async def test_a_form_is_refused_where_something_would_have_to_be_taken_out(tmp_path: Path) -> None:
    """Forms pass as they are or not at all."""
    places = (deployment(operations=("audio.transcriptions",)),)
    async with running_gate(
        tmp_path, deployments=places, routes=(Route("sim-1", ("sim/sim-1",)),), content=ruled(rule("email", "redact"))
    ) as running:
        answer = await running.client.post(
            "/v1/audio/transcriptions",
            data={"model": "sim-1", "prompt": f"Jane is {MAIL}."},
            files={"file": ("a.wav", b"RIFF" + bytes(100), "audio/wav")},
            headers={"authorization": f"Bearer {secret('caller')}"},
        )

    assert answer.json()["error"]["code"] in ("content_blocked", "field_range", "form_invalid", "feature_unbounded")
    assert answer.status_code == 400


def anchored(action: str, apply: str = "both") -> ContentSettings:
    """A rule of each kind that matches by where a text begins or ends."""
    patterns = {"begins": "^INTERNAL", "first": r"\AINTERN:", "ends": "secret$", "last": r"hidden\z"}
    return ruled(*(rule(name, action, apply, pattern) for name, pattern in patterns.items()))


def second(text: str) -> list[dict[str, Any]]:
    """Messages of which neither the first nor the last is what is looked for."""
    return [{"role": "user", "content": each} for each in ("One.", text, "Three.")]


@scenario
async def test_a_rule_by_where_a_text_begins_or_ends_holds_for_each_text(tmp_path: Path) -> None:
    """A message amid others is blocked by each kind of anchor, in a small body and in a large one, and is not kept."""
    texts = {"begins": "INTERNAL plan", "first": "INTERN: a plan", "ends": "a secret", "last": "a plan hidden"}
    async with running_gate(tmp_path, content=anchored("block")) as running:
        told = []
        for padding in ("", "all is well. " * 5_000):
            for name, text in texts.items():
                messages = second(text)
                messages[0]["content"] += padding
                error = (await running.chat(messages=messages)).json()["error"]
                told.append((error["code"], error["faregate"]["rule"] == name))
        inside = await running.chat(messages=second("It is INTERNAL, a secret of ours"))
        records = await kept(running, 9)

    assert told == [("content_blocked", True)] * 8
    assert inside.status_code == 200
    assert [record.prompt.text for record in records[:8]] == [""] * 8
    assert records[8].prompt.text == "user: One.\n\nuser: It is INTERNAL, a secret of ours\n\nuser: Three."


@scenario
async def test_what_is_kept_is_searched_text_by_text_where_a_rule_asks_where_one_begins(tmp_path: Path) -> None:
    """Neither who speaks nor what stands before is taken for the beginning: of whole answers, and of streams."""
    content = ruled(rule("begins", "redact", "log", "^INTERNAL"), rule("ends", "warn", "log", "secret$"))
    async with (
        listener(said("INTERNAL too")) as (url, _),
        running_gate(tmp_path / "a", providers=(provider(url),), content=content) as running,
    ):
        await running.chat(messages=second("INTERNAL secret"))
        (record,) = await kept(running)
    async with running_gate(tmp_path / "b", content=content) as running:
        await running.chat(steered(content="INTERNAL words", output_tokens=2), stream=True, n=2)
        (streamed,) = await kept(running)

    assert record.prompt.text == "user: One.\n\nuser: [begins] secret\n\nuser: Three."
    assert record.answer.text == "[begins] too"
    assert record.found == (
        ("begins", "redact", "prompt", 1), ("ends", "warn", "prompt", 1), ("begins", "redact", "answer", 1),
    )  # fmt: skip
    assert streamed.answer.text == "[begins] words\n\n[begins] words"


@scenario
async def test_the_same_head_again_is_looked_at_again(tmp_path: Path) -> None:
    """What is remembered of a connection's head says nothing about the next body."""
    async with running_gate(tmp_path, content=ruled(rule("card", "block"))) as running:
        statuses = [(await running.chat(text)).status_code for text in ("one", CARD, "two", CARD)]

    assert statuses == [200, 400, 200, 400]


# -- the log ----------------------------------------------------------------------------------------------------------


@scenario
async def test_a_disk_that_takes_nothing_costs_contents_and_no_calls(tmp_path: Path) -> None:
    """What could not be written is counted as lost."""
    async with running_gate(tmp_path, content=FULL) as running:
        (tmp_path / "contents").write_text("in the way")
        answer = await running.chat()
        await running.until(lambda: running.gate.metrics.contents.get("lost") == 1)
        (tmp_path / "contents").unlink()

    assert answer.status_code == 200
    assert Metrics().contents == {}


class _Takes:
    """A writer that takes everything."""

    def append(self, record: ContentRecord) -> bool:
        return True

    def hand_over(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_became_of_contents_can_be_counted_while_it_is_read() -> None:
    """No outcome is new to whoever goes through them in another thread."""
    log = ContentLog(_Takes())
    reading = iter(log.outcomes.items())
    next(reading)
    log.put(lambda: ContentRecord("req_1", 0, "full", False, 200, ""), 1)
    log.put(lambda: ContentRecord("req_2", 0, "full", False, 200, ""), WAITING_BYTES_MAX + 1)
    log.close()

    assert [name for name, _ in reading] == ["dropped", "lost"]
    assert log.outcomes == {"kept": 1, "dropped": 1, "lost": 0}


# -- what callers have calls found by ------------------------------------------------------------------------------


@scenario
async def test_an_event_id_and_metadata_are_kept_with_the_call_and_go_no_further(tmp_path: Path) -> None:
    """They are tags with names of their own; the provider sees neither header."""
    facts = {"X-CUSTOM-EVENT-ID": "order-17", "X-METADATA": '{"step": 3, "who": "caf\\u00e9", "last": true}'}
    async with listener(said("ok")) as (url, got), running_gate(tmp_path, providers=(provider(url),)) as running:
        answer = await running.chat(headers={**facts, "x-faregate-tags": "env=test"})
        (intended,) = running.of(Intended)

    assert answer.status_code == 200
    assert intended.who.tags == (
        ("env", "test"),
        ("event_id", "order-17"),
        ("metadata.last", "true"),
        ("metadata.step", "3"),
        ("metadata.who", "café"),
    )
    head = got[0].partition(b"\r\n\r\n")[0].lower()
    assert b"x-custom-event-id" not in head
    assert b"x-metadata" not in head
    assert b"order-17" not in head


@pytest.mark.parametrize(
    "headers",
    [
        {"X-METADATA": json.dumps({"a": "x" * 17 * 1024})},
        {"X-METADATA": json.dumps({f"k{n}": n for n in range(65)})},
        {"X-METADATA": '{"a": {"b": 1}}'},
        {"X-METADATA": '{"a": [1]}'},
        {"X-METADATA": "[]"},
        {"X-METADATA": "{"},
        {"X-METADATA": '{"": 1}'},
    ],
    ids=["17 KiB", "65 keys", "nested", "list", "no object", "broken", "no name"],
)
@scenario
async def test_metadata_that_are_not_flat_and_small_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    """BAD-INPUT A84."""
    async with running_gate(tmp_path) as running:
        answer = await running.chat(headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "field_range")
    assert answer.json()["error"]["param"] == "X-METADATA"


@scenario
async def test_a_key_without_the_right_to_tags_may_not_describe_its_calls(tmp_path: Path) -> None:
    """Neither header is taken from it."""
    async with running_gate(tmp_path, keys=(key(may_set=("user",)),)) as running:
        answers = [await running.chat(headers={name: "{}"}) for name in ("X-METADATA", "X-CUSTOM-EVENT-ID")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert {answer.json()["error"]["code"] for answer in answers} == {"field_forbidden"}
