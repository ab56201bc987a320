"""Calls that try to be free or to cost more than is held, through a whole gate: refused, or booked as served."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import pytest

from dialects import recordings
from dialects.exchanges import LINE, form
from installation import TWO_PROVIDERS, Installation, nanos
from system import natives
from system.calls import CALL_SECONDS, new_key, new_limit, record, record_count

CONFIG = natives.CONFIG.replace(
    "models:\n",
    TWO_PROVIDERS
    + """\
    lookup: {{path: "{lookup}"}}
deployments:
  - {{name: azure-cheap, provider: sim-azure, deployment: sim-1, model: sim-1}}
models:
  - {{name: cheap, to: [sim/sim-1], max_output_tokens: 4096}}
  - {{name: dear, to: [sim/sim-large], max_output_tokens: 4096}}
  - {{name: whisper, to: [sim/whisper-1]}}
  - {{name: painter, to: [sim/dall-e-3]}}
  - {{name: ranker, to: [sim/jina-reranker]}}
""",
).replace(
    "  overrides:\n",
    "  overrides:\n"
    + "".join(
        f'    - {{{{provider: {provider}, model: {model}, unit: {unit}, per: {per}, price: "{price}"}}}}\n'
        for provider, model, unit, per, price in (
            *((provider, "sim-1", "input_tokens", 1_000_000, "1") for provider in ("sim", "sim-azure")),
            *((provider, "sim-1", "output_tokens", 1_000_000, "2") for provider in ("sim", "sim-azure")),
            ("sim", "sim-large", "input_tokens", 1_000_000, "100"),
            ("sim", "sim-large", "output_tokens", 1_000_000, "200"),
            ("sim", "whisper-1", "seconds", 1, "0.0001"),
            ("sim", "jina-reranker", "input_tokens", 1_000_000, "1"),
        )
    )
    + '    - {{provider: sim, model: dall-e-3, unit: images, per: 1, price: "0.04", variant: 1024x1024}}\n',
)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with cheap and dear models of every kind."""
    with Installation(tmp_path_factory.mktemp("hostile"), config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def key(gate: Installation) -> dict[str, Any]:
    """A key with a hard limit, so that everything is held."""
    made = new_key(gate, "attacker")
    new_limit(gate, {"key": made["id"]}, "usd", "40")
    return made


class Attack(NamedTuple):
    """A call, and the code that refuses it; without one it is let through, at no more than it is held for."""

    path: str
    body: bytes
    code: str = ""
    content_type: str = "application/json"


HELLO = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
AUDIO = "/v1/audio/transcriptions"
GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"
WAV = recordings.wav(16_000 * 9)[0]
LIAR = recordings.wav(16_000 * 60, claimed=2)[0]
PART = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}


def chat(code: str = "", **fields: Any) -> Attack:
    return Attack(CHAT, json.dumps({"model": "cheap", "messages": HELLO, "max_tokens": 5, **fields}).encode(), code)


def claude(code: str = "", content: Any = "hello", **fields: Any) -> Attack:
    body = {"model": "claude", "messages": [{"role": "user", "content": content}], "max_tokens": 9, **fields}
    return Attack("/v1/messages", json.dumps(body).encode(), code)


def gemini(code: str = "", part: Any = None, **fields: Any) -> Attack:
    parts = [*([part] if part else []), {"text": "hello"}]
    body = {"contents": [{"role": "user", "parts": parts}], **fields}
    return Attack(GEMINI, json.dumps(body).encode(), code)


def heard(code: str = "", body: bytes = b"", boundary: bytes | None = None, data: bytes = WAV, **fields: str) -> Attack:
    made = body or form(("file", "a.wav", data), **{"model": "whisper", "response_format": "text", **fields})
    named = made[2 : made.index(b"\r\n")] if boundary is None else boundary
    return Attack(AUDIO, made, code, "multipart/form-data; boundary=" + named.decode())


#: A form in which another form stands, with other words for what is paid.
INSIDE = form(("file", "long.wav", recordings.wav(16_000 * 90)[0]), model="whisper", response_format="text")
OUTSIDE = form(("note", "n", b"\r\n" + INSIDE.replace(b"------------------------d7", b"--other-d7")), model="whisper")
TWICE = form(("file", "a.wav", WAV), model="whisper").replace(
    LINE + b"--", LINE + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\ndear\r\n' + LINE + b"--"
)

ATTACKS = {
    "choices_elsewhere": chat("field_forbidden", extra_body={"n": 100}),
    "model_elsewhere": chat("field_forbidden", extra_body={"model": "sim-large"}),
    "choices_as_text": chat("field_type", n="100"),
    "choices_as_fraction": chat("field_type", n=1.5),
    "tier_in_capitals": chat("feature_unbounded", service_tier="PRIORITY"),
    "tier_without_price": chat("price_unknown", service_tier="priority"),
    "batch_tier": chat("feature_unbounded", service_tier="batch"),
    "search": chat("price_unknown", web_search_options={}),
    "template": chat("feature_unbounded", chat_template="{{ messages * 1000 }}"),
    "no_cap_below_zero": chat("field_range", max_tokens=-1),
    "picture_of_a_tool": chat(messages=[*HELLO, {"role": "tool", "tool_call_id": "x", "content": [PART]}]),
    "film_of_a_tool": chat(
        "feature_unbounded",
        messages=[*HELLO, {"role": "tool", "tool_call_id": "x", "content": [{"type": "video_url", "video_url": {}}]}],
    ),
    "model_twice": Attack(CHAT, b'{"model":"cheap","mod\\u0065l":"dear","messages":[],"max_tokens":5}', "json_dup_key"),
    "cap_twice": Attack(
        CHAT, b'{"model":"cheap","max_tokens":5,"max_tokens":4000,"messages":[{"role":"user"}]}', "json_dup_key"
    ),
    "cap_out_of_reach": Attack(
        CHAT, b'{"model":"cheap","max_tokens":1e999,"messages":[{"role":"user"}]}', "json_number"
    ),
    "another_body_after_it": Attack(CHAT, chat().body + b'{"n":100}', "json_invalid"),
    "another_encoding": Attack(CHAT, chat().body, "media_unsupported", "application/json; charset=utf-16"),
    "a_form_for_json": Attack(CHAT, chat().body, "media_unsupported", "multipart/form-data; boundary=x"),
    "azure_with_another_model": Attack("/openai/deployments/azure-cheap/chat/completions", chat(model="dear").body),
    "path_with_another_model": Attack("/openai/deployments/cheap/chat/completions", chat(model="dear").body),
    "thinking_beyond_the_cap": claude(thinking={"type": "enabled", "budget_tokens": 100_000}),
    "search_without_end": claude("feature_unbounded", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
    "tools_elsewhere": claude(
        "feature_unbounded", mcp_servers=[{"type": "url", "url": "https://a.example", "name": "a"}]
    ),
    "fast_answers": claude("feature_unbounded", speed="fast"),
    "a_stored_file": claude("feature_unbounded", content=[{"type": "container_upload", "file_id": "file_1"}]),
    "claude_by_openais_path": Attack(CHAT, chat(model="claude").body, "model_not_found"),
    "picture_in_a_result": claude(
        content=[
            {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}],
            }
        ]
    ),
    "candidates_as_text": gemini("", generationConfig={"candidateCount": "8"})._replace(code="field_type"),
    "candidates_spelt_twice": gemini("field_conflict", generationConfig={"candidateCount": 1, "candidate_count": 8}),
    "config_spelt_twice": gemini("field_conflict", generationConfig={"maxOutputTokens": 5}, generation_config={}),
    "thoughts_beyond_the_cap": gemini(
        generationConfig={"maxOutputTokens": 9, "thinkingConfig": {"thinkingBudget": 90_000}}
    ),
    "another_model_in_the_body": gemini("field_conflict", model="models/gemini-3-pro"),
    "code": gemini("feature_unbounded", tools=[{"code_execution": {}}]),
    "words_dressed_as_a_picture": gemini(
        "",
        {
            "functionResponse": {
                "name": "f",
                "response": {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(bytes(90_000)).decode()}},
            }
        },
        generationConfig={"maxOutputTokens": 9},
    ),
    "one_image": Attack("/v1/images/generations", b'{"model":"painter","prompt":"x"}'),
    "quality_without_price": Attack(
        "/v1/images/generations", b'{"model":"painter","prompt":"x","quality":"HD"}', "price_unknown"
    ),
    "eleven_images": Attack("/v1/images/generations", b'{"model":"painter","prompt":"x","n":11}', "field_range"),
    "two_models_in_a_form": heard("field_conflict", TWICE),
    "a_form_in_a_form": heard("form_invalid", OUTSIDE, b"--other-d74496d66958873e"),
    "no_boundary_of_its_own": heard("form_invalid", boundary=b"x"),
    "two_boundaries": heard("form_invalid", boundary=LINE[2:] + b"; boundary=x"),
    "json_for_a_form": Attack(AUDIO, heard().body, "media_unsupported"),
    "a_recording_elsewhere": heard("feature_unbounded", url="https://a.example/long.mp3"),
    "a_header_that_lies": heard(data=LIAR),
    "pictures_among_documents": Attack(
        "/v1/rerank",
        json.dumps({"model": "ranker", "query": "q", "documents": [{"content": [PART]}]}).encode(),
        "feature_unbounded",
    ),
    "verdicts_without_usage": Attack("/v1/moderations", b'{"model":"cheap","input":"some words to judge"}'),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_free_and_nothing_exceeds_its_hold(gate: Installation, key: dict[str, Any], name: str) -> None:
    """A refused call costs nothing and has its code; any other costs something, and no more than was held for it."""
    attack = ATTACKS[name]
    secret = key["secret"]
    headers = {"content-type": attack.content_type, "authorization": f"Bearer {secret}"}
    with httpx2.Client(trust_env=False, timeout=CALL_SECONDS) as http:
        got = http.post(gate.gateway_url + attack.path, content=attack.body, headers=headers)

    request_id = got.headers["x-faregate-request-id"]
    if attack.code:
        assert got.status_code >= 400, got.text
        assert record(gate, request_id)["code"] == attack.code
        assert nanos(record(gate, request_id)["charge"]) == 0
        return
    assert got.status_code == 200, got.text
    row = record(gate, request_id)
    assert 0 < nanos(row["cost"]) <= nanos(row["held"])
    assert nanos(row["overrun"]) == 0
    assert row["model"] in ("sim-1", "dall-e-3", "whisper-1")


def test_a_lie_about_the_length_costs_what_is_played(gate: Installation, key: dict[str, Any]) -> None:
    """A minute is a minute, whatever a header says of it, and an answer of plain text tells nothing."""
    attack = heard(data=LIAR)
    headers = {"content-type": attack.content_type, "authorization": f"Bearer {key['secret']}"}
    with httpx2.Client(trust_env=False, timeout=CALL_SECONDS) as http:
        got = http.post(gate.gateway_url + attack.path, content=attack.body, headers=headers)
    assert nanos(record(gate, got.headers["x-faregate-request-id"])["cost"]) == 60 * 100_000


def test_the_books_agree_after_all_of_it(gate: Installation, key: dict[str, Any]) -> None:
    """Nothing is held any more, and every posting has its counterpart."""
    assert len(record_count(gate, 1, key=key["id"])) >= 1
    found = gate.settled()
    assert (found["ok"], nanos(found["held"]), nanos(found["unknown"])) == (True, 0, 0)


def test_every_format_is_attacked() -> None:
    """Chats, messages, contents, images, recordings, reranking and verdicts have at least one attack each."""
    paths = {attack.path for attack in ATTACKS.values()}
    assert paths >= {CHAT, GEMINI, AUDIO, "/v1/messages", "/v1/images/generations", "/v1/rerank", "/v1/moderations"}
