"""The catalogue of bad inputs on the gateway port: what is sent, byte for byte, and how it must be refused.

One row per variant; ids are those of the catalogue (P01 to P96), a letter tells variants apart. ``asked`` rows reach
the provider and are charged what it served; all others must cost nothing. ``codes`` is empty where the answer is the
provider's own, passed on unchanged.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from faregate.core.keys import make
from wire import CHAT, request

#: Stands in every prompt, and in what must not be echoed: neither may be seen in an error or in a log.
PROMPT_CANARY = "PROMPT-CANARY-d41d8cd9"
VALUE_CANARY = "VALUE-CANARY-8f00b204"

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": f"Say hello. {PROMPT_CANARY}"}]
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
AZURE = "/openai/deployments/azure-sim/chat/completions?api-version=2024-10-21"
MIB = 1 << 20
#: A refusal is given within 1 s by promise; tests allow three times as much.
PROMPT_SECONDS = 3.0


class Keys(NamedTuple):
    """The secrets of the keys that rows use."""

    good: str
    expired: str
    revoked: str
    disabled: str
    #: May use ``sim-fast`` only.
    picky: str
    #: Has a lifetime budget that no call fits into.
    poor: str


Build = Callable[[Keys], bytes]


class Row(NamedTuple):
    """One bad input and the answer it must get."""

    id: str
    build: Build
    status: int
    codes: tuple[str, ...] = ()
    has: str = ""
    hasnt: str = ""
    #: Upper bound of the time to the answer.
    seconds: float = PROMPT_SECONDS
    #: The provider sees this call.
    asked: bool = False
    #: The server must not go on with this connection.
    closes: bool = False


def raw(body: bytes, **more: Any) -> Build:
    """A request with this body and a good key."""
    return lambda keys: request(body, **{"secret": keys.good, **more})


def chat(
    changed: dict[str, Any] | None = None, *, drop: Iterable[str] = (), wire: dict[str, Any] | None = None, **more: Any
) -> Build:
    """A chat call with some fields changed or dropped; ``wire`` goes to ``request``."""
    body = {"model": "sim-1", "messages": MESSAGES, "max_tokens": 16, **(changed or {}), **more}
    for name in drop:
        del body[name]
    return raw(json.dumps(body).encode(), **(wire or {}))


def members(text: str) -> Build:
    """A chat call whose JSON is good up to these members, written as they stand."""
    return raw(f'{{"messages": {json.dumps(MESSAGES)}, {text}}}'.encode())


def image(url: str) -> Build:
    """A chat call that shows an image."""
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return chat(messages=[{"role": "user", "content": parts}])


def head(*lines: str, body: bytes = b"", target: str = CHAT, host: str = "Host: 127.0.0.1") -> Build:
    """A head line by line after the request line, with a good key; nothing is added."""

    def build(keys: Keys) -> bytes:
        first = [f"POST {target} HTTP/1.1", *([host] if host else []), f"Authorization: Bearer {keys.good}"]
        return "\r\n".join([*first, "Content-Type: application/json", *lines, "", ""]).encode("latin-1") + body

    return build


def own(value: str, name: str = "Authorization", **more: Any) -> Build:
    """A good call with a credential of its own."""
    return lambda keys: request(GOOD_BODY, headers=[(name, value)], **more)


def good(**wire: Any) -> Build:
    """A call with nothing wrong in its body."""
    return raw(GOOD_BODY, **wire)


def key_of(name: str, model: str = "sim-1") -> Build:
    """A good call with another of the keys."""
    body = json.dumps({"model": model, "messages": MESSAGES, "max_tokens": 16}).encode()
    return lambda keys: request(body, secret=getattr(keys, name))


GOOD_BODY = json.dumps({"model": "sim-1", "messages": MESSAGES, "max_tokens": 16}).encode()
CHUNKED = "Transfer-Encoding: chunked"
#: Well-formed, with the right check characters, and made by nobody.
UNKNOWN_KEY = make(b"\x01" * 32)


def _jwt(header: dict[str, Any], payload: dict[str, Any] | None = None, pad: int = 0) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return ".".join((part(header), part({"sub": "x" * (8 + pad), **(payload or {})}), "c2lnbmF0dXJl"))


def _json_rows() -> list[Row]:
    bom, depth = b"\xef\xbb\xbf", b"[" * 100_000
    digits = "9" * 10_000
    invalid = [
        Row("P02", raw(b" \n\t "), 400, ("json_invalid",)),
        Row("P03", raw(b"{"), 400, ("json_invalid",), has="line 1"),
        Row("P04", raw(b"[]"), 400, ("field_type",), has="object"),
        Row("P05", raw(b"null"), 400, ("field_type",)),
        Row("P06", raw(b'"text"'), 400, ("field_type",)),
        Row("P07", raw(b'{"model": "sim-1",}'), 400, ("json_invalid",)),
        Row("P08", raw(b'{"model": "sim-1" /* a */}'), 400, ("json_invalid",)),
        Row("P09", raw(b"{'model': 'sim-1'}"), 400, ("json_invalid",)),
        Row("P10", raw(GOOD_BODY + GOOD_BODY), 400, ("json_invalid",)),
        Row("P11", raw(bom + GOOD_BODY), 200, asked=True),
        Row("P12", raw(GOOD_BODY.decode().encode("utf-16")), 400, ("json_utf8",)),
        Row("P13", members(r'"model": "\ud800"'), 400, ("json_utf8",)),
        Row("P14", raw(b'{"model": "sim\xc0\xaf1", "messages": []}'), 400, ("json_utf8",)),
        Row("P15", raw(b'{"model": "sim\x001", "messages": []}'), 400, ("json_invalid",)),
        Row("P16", raw(depth), 400, ("json_depth",), has="64"),
        Row("P16a", raw(b'{"model": ' + depth), 400, ("json_depth",)),
        Row("P16b", raw(b'{"model": "sim-1", "messages": ' + depth + b"]" * 100_000 + b"}"), 400, ("json_depth",)),
        Row("P17", members('"model": "sim-1", "model": "sim-fast"'), 400, ("json_dup_key",), has="model"),
        Row("P17a", members(r'"model": "sim-1", "mod\u0065l": "sim-fast"'), 400, ("json_dup_key",)),
        Row("P18", members('"model": "sim-1", "max_tokens": 1, "max_tokens": 4000'), 400, ("json_dup_key",)),
        Row("P19", members('"model": "sim-1", "max_tokens": NaN'), 400, ("json_invalid",)),
        Row("P19a", members('"model": "sim-1", "max_tokens": Infinity'), 400, ("json_invalid",)),
        Row("P20", members('"model": "sim-1", "max_tokens": 1e400'), 400, ("json_number",)),
        Row("P21", members(f'"model": "sim-1", "max_tokens": {digits}'), 400, ("json_number",)),
    ]
    sizes = [
        Row("P01", raw(b""), 400, ("body_empty",)),
        Row("P22", raw(b'{"x": "' + b"a" * 11 * MIB + b'"}'), 413, ("body_too_large",), has="10485760", closes=True),
        Row("P23", raw(b"", length=str(11 * MIB)), 413, ("body_too_large",), closes=True),
        Row("P24", raw(gzip.compress(b"0" * 10 * MIB), headers=[("Content-Encoding", "gzip")]), 415,
            ("encoding_unsupported",)),
        Row("P59", image("data:image/png;base64," + "A" * 30 * MIB), 413, ("body_too_large",), closes=True),
    ]  # fmt: skip
    return invalid + sizes


def _method_rows() -> list[Row]:
    kinds = {"P25": "text/plain", "P26": None, "P27": "application/json; charset=utf-7", "P28": "multipart/form-data"}
    rows = [Row(id, good(content_type=kind), 415, ("media_unsupported",)) for id, kind in kinds.items()]
    return [
        *rows,
        Row("P29", head("Content-Length: 1000", body=b"{"), 408, ("body_timeout",), seconds=16.0, closes=True),
        Row("P30", lambda keys: request(method="GET", secret=keys.good, content_type=None), 405,
            ("method_not_allowed",), has="POST"),
        Row("P30a", lambda keys: request(method="DELETE", secret=keys.good), 405, ("method_not_allowed",)),
    ]  # fmt: skip


def _field_rows() -> list[Row]:
    forbidden = ("field_forbidden",)
    rows = [
        Row("P31", chat(drop=["model"]), 400, ("field_missing",), has="model"),
        Row("P32", chat(model=""), 400, ("field_range",), has="model"),
        Row("P33", chat(model=5), 400, ("field_type",), has="model"),
        Row("P34", chat(model="../../etc"), 404, ("model_not_found",)),
        Row("P35", chat(model="m" * 10_240), 400, ("field_range",), has="256", hasnt="m" * 65),
        Row("P36", chat(model="gpt-4o\r\nX: y"), 400, ("field_range",), hasnt="\r\nX: y"),
        # These four are the provider's to refuse; its own words come back and cost nothing.
        Row("P37", chat(drop=["messages"]), 400, asked=True),
        Row("P38", chat(messages=[]), 400, asked=True),
        Row("P39", chat(messages=[{"content": "hello"}]), 400, asked=True),
        Row("P46", chat(api_key=VALUE_CANARY), 403, forbidden, has="api_key", hasnt=VALUE_CANARY),
        Row("P43", chat(extra_body={"api_base": f"http://{VALUE_CANARY}"}), 403, forbidden, hasnt=VALUE_CANARY),
        Row("P43a", chat(metadata={"api_base": "http://evil"}), 403, forbidden),
        Row("P44", chat({"metadata[api_base]": "http://evil"}), 403, forbidden),
        # Inside messages a routing name is only text: it steers nothing, and the provider judges it.
        Row("P45", chat(messages=[{**MESSAGES[0], "api_base": "http://evil"}]), 200, asked=True),
        Row("P47", good(headers=[("x-portkey-custom-host", "http://evil")]), 200, asked=True),
    ]
    for id, name in (
        ("P41", "api_base"), ("P42", "base_url"), ("P48", "custom_llm_provider"), ("P49", "organization"),
        ("P50", "callbacks"), ("P50a", "mock_response"), ("P50b", "litellm_params"),
    ):  # fmt: skip
        rows.append(Row(id, chat({name: f"x{VALUE_CANARY}"}), 403, forbidden, has=name, hasnt=VALUE_CANARY))
    rows.append(Row("P41a", members(r'"model": "sim-1", "api\u005fbase": "http://evil"'), 403, forbidden))
    numbers: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        ("P90", {"max_tokens": -1}, ("field_range",)),
        ("P90a", {"max_tokens": 0}, ("field_range",)),
        ("P90b", {"max_tokens": 1.5}, ("field_type",)),
        ("P90c", {"max_tokens": "10"}, ("field_type",)),
        ("P90d", {"max_tokens": 10**9}, ("field_range",)),
        ("P90e", {"max_completion_tokens": 17}, ("field_conflict",)),
        ("P90f", {"max_tokens": True}, ("field_type",)),
        ("P91", {"n": 0}, ("field_range",)),
        ("P91a", {"n": 129}, ("field_range",)),
        ("P91b", {"n": "2"}, ("field_type",)),
        ("P92", {"stream": "yes"}, ("field_type",)),
        ("P94", {"stream_options": {"include_usage": True}}, ("field_conflict",)),
    )
    rows += [Row(id, chat(fields), 400, codes, has=next(iter(fields))) for id, fields, codes in numbers]
    rows.append(Row("P90g", members('"model": "sim-1", "max_tokens": 1e9'), 400, ("field_range",)))
    # Not ours to judge: what changes neither a count nor a limit goes to the provider as it came.
    untouched: tuple[tuple[str, dict[str, Any]], ...] = (
        ("P93", {"temperature": "hot"}),
        ("P96c", {"stop": ["x"] * 1000}),
        ("P96d", {"logit_bias": {"abc": 1}}),
    )
    rows += [Row(id, chat(fields), 200, asked=True) for id, fields in untouched]
    return [
        *rows,
        Row("P40", chat(messages=[{"role": "root", "content": "hello"}]), 0, asked=True),
        Row("P96", key_of("poor"), 429, ("budget_exhausted",), has="insufficient_quota"),
        Row("P96b", chat(model="unpriced"), 400, ("price_unknown",)),
    ]


def _url_rows() -> list[Row]:
    urls = {
        "P51": "http://169.254.169.254/latest/meta-data", "P52": "http://[::ffff:127.0.0.1]/",
        "P53": "http://2130706433/", "P54": "file:///etc/passwd", "P55": "https://user:p@example.com/",
        "P56": "https://localhost./", "P57": "https://0x7f.1/", "P58": "gopher://example.com/",
        "P51a": "https://10.0.0.1/a.png", "P52a": "https://[::1]/a.png", "P53a": "https://2130706433/",
    }  # fmt: skip
    rows = [Row(id, image(url), 400, ("url_forbidden",), has="image_url") for id, url in urls.items()]
    rows.append(Row("P60", image("data:image/png;base64,@@@"), 400, ("field_range",), has="messages[0].content[1]"))
    return rows


def _target_rows() -> list[Row]:
    rows = [Row(id, good(host=host), 400, ("host_invalid",))
            for id, host in (("P61", "a/b"), ("P62", "x?y"), ("P63", "x#y"), ("P63a", "user@host"), ("P63b", ""))
            ]  # fmt: skip
    length = f"Content-Length: {len(GOOD_BODY)}"
    return [
        *rows,
        Row("P64", head("Host: other", length, body=GOOD_BODY), 400, ("bad_framing",), closes=True),
        Row("P65", head(length, body=GOOD_BODY, host=""), 400, ("bad_framing",), closes=True),
        Row("P66", good(path=f"http://other.example{CHAT}"), 400, ("host_invalid",)),
        Row("P66a", good(path=f"http://127.0.0.1{CHAT}"), 200, asked=True),
        Row("P67", good(headers=[("X-Original-URL", "/admin")]), 200, asked=True),
        Row("P68", good(headers=[("X-HTTP-Method-Override", "DELETE")]), 200, asked=True),
        Row("P69", good(path="//v1//chat"), 404, ("not_found",)),
        Row("P69a", good(path="//v1/chat/completions"), 404, ("not_found",)),
        Row("P70", good(path="/v1/%2e%2e/admin/keys"), 400, ("uri_invalid",)),
        Row("P70a", good(path="/v1/../admin/keys"), 400, ("uri_invalid",)),
        Row("P71", good(path=f"{CHAT}%00"), 400, ("uri_invalid",)),
        Row("P72", good(path="/" + "a" * 9 * 1024), 414, ("uri_too_long",)),
        Row("P72a", good(path="/v1/assistants"), 404, ("operation_unmetered",)),
    ]


def _framing_rows() -> list[Row]:
    length = f"Content-Length: {len(GOOD_BODY)}"
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD_BODY), GOOD_BODY)
    heads: dict[str, tuple[Build, tuple[str, ...]]] = {
        "P73": (head(length, CHUNKED, body=chunk), ("bad_framing",)),
        "P73a": (head(CHUNKED, length, body=chunk), ("bad_framing",)),
        "P73b": (head(length, length, body=GOOD_BODY), ("bad_framing",)),
        "P73c": (head(length, "Content-Length: 5", body=GOOD_BODY), ("bad_framing",)),
    }
    for n, value in enumerate(("+5", "5_0", "0x10", "5, 5", "-1", "", "5 5")):
        heads[f"P74{'abcdefg'[n]}"] = (head(f"Content-Length: {value}", body=GOOD_BODY), ("bad_framing",))
    for n, value in enumerate(("xchunked", "chunked, identity", "identity", "gzip, chunked", "chunked\x0b")):
        heads[f"P75{'abcde'[n]}"] = (head(f"Transfer-Encoding: {value}", body=chunk), ("bad_framing",))
    heads["P75f"] = (head(CHUNKED, CHUNKED, body=chunk), ("bad_framing",))
    sizes = (b"1_0\r\n", b"0x5\r\n", b"1" * 20 + b"\r\n", b"5\n", b"-5\r\n", b" 5\r\n", b"\r\n")
    for n, size in enumerate(sizes):
        heads[f"P76{'abcdefg'[n]}"] = (head(CHUNKED, body=size + GOOD_BODY[:5] + b"\r\n0\r\n\r\n"), ("bad_framing",))
    for n, line in enumerate(
        ("A : b", "X-A: b\r\n folded", "X-A: b\rc", "X-A: b\x00c", "X A: b", ": b", "X-A\r\n", "\x00: b")
    ):
        heads[f"P77{'abcdefgh'[n]}"] = (head(line, length, body=GOOD_BODY), ("bad_framing",))
    heads["P77i"] = (lambda keys: b"\n".join(good()(keys).split(b"\r\n")), ("bad_framing",))
    heads["P77j"] = (lambda keys: b"GET /\r\n\r\n", ("bad_framing",))
    heads["P77k"] = (lambda keys: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ("bad_framing",))
    heads["P77l"] = (lambda keys: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, ("bad_framing",))
    heads["P77m"] = (good(version="HTTP/1.2"), ("bad_framing",))
    rows = [Row(id, build, 400, codes, closes=True) for id, (build, codes) in heads.items()]
    many, large = [(f"X-{n}", "1") for n in range(101)], [("X-Large", "a" * 33 * 1024)]
    return [
        *rows,
        Row("P78", good(headers=many), 431, ("header_too_large",)),
        Row("P78a", good(headers=large), 431, ("header_too_large",), closes=True),
        Row("P78b", good(headers=[("X-Large", "a" * 5 * MIB)]), 431, ("header_too_large",), closes=True),
        Row("P79", good(headers=[("Connection", "Authorization")]), 200, asked=True),
        Row("P79a", good(headers=[("Expect", "200-maybe")]), 400, ("header_invalid",)),
    ]


def _credential_rows() -> list[Row]:
    malformed = ("auth_malformed",)
    wrong = "sk-fg-" + "B" * 43 + "000000"
    rows = [
        Row("P80", lambda keys: request(GOOD_BODY), 401, ("auth_missing",), has="Authorization: Bearer"),
        Row("P81", own("Bearer"), 401, malformed),
        Row("P81a", own("Basic dXNlcjpwYXNz"), 401, malformed),
        Row("P81b", own("Bearer " + "a" * 30 * 1024), 401, malformed, hasnt="a" * 65),
        Row("P81c", own("Bearer " + "a" * MIB), 431, ("header_too_large",), hasnt="a" * 65),
        Row("P81d", own("Bearer "), 401, malformed),
        Row("P82", own(f"Bearer {wrong}"), 401, malformed, hasnt=wrong),
        Row("P83", own("Bearer ' OR 1=1--"), 401, malformed, hasnt="OR 1=1"),
        Row("P83a", own("' OR 1=1--", "api-key"), 401, malformed, hasnt="OR 1=1"),
        Row("P84", lambda keys: request(GOOD_BODY, secret=UNKNOWN_KEY), 401, ("auth_invalid",)),
        Row("P85", lambda keys: request(GOOD_BODY, secret=keys.good, headers=[("api-key", keys.picky)]), 400,
            ("auth_conflict",)),
        Row("P85a", lambda keys: request(GOOD_BODY, secret=keys.good, headers=[("Authorization", "Bearer x")]), 400,
            ("auth_conflict",)),
        Row("P85b", lambda keys: request(GOOD_BODY, secret=keys.good, headers=[("api-key", keys.good)]), 200,
            asked=True),
        Row("P86", lambda keys: request(GOOD_BODY, path=f"{CHAT}?api_key={VALUE_CANARY}"), 401, ("auth_missing",),
            hasnt=VALUE_CANARY),
        Row("P87", key_of("expired"), 401, ("key_expired",)),
        Row("P87a", key_of("revoked"), 401, ("key_revoked",)),
        Row("P87b", key_of("disabled"), 403, ("key_disabled",)),
        Row("P89", key_of("picky"), 403, ("model_forbidden",)),
        Row("P95", good(headers=[("Idempotency-Key", "")]), 400, ("idem_invalid",)),
        Row("P95a", good(headers=[("Idempotency-Key", "k" * 300)]), 400, ("idem_invalid",)),
        Row("P77n", good(headers=[("Idempotency-Key", "a\rb")]), 400, ("bad_framing",)),
    ]  # fmt: skip
    # No issuer is configured here: told is what is wrong with a token itself, else that nobody is known.
    tokens: tuple[dict[str, Any], ...] = (
        {"alg": "none"}, {"alg": "HS256"}, {"alg": "RS256", "crit": ["x"]}, {"alg": "RS256", "kid": "unknown"},
        {"alg": "RS256", "jku": "http://evil"},
    )  # fmt: skip
    words = ("alg", "alg", "crit", "iss", "iss", "size")
    sent = (*(_jwt(token) for token in tokens), _jwt({"alg": "RS256"}, pad=9_000))
    rows += [
        Row(f"P88{letter}", own(f"Bearer {token}"), 401, ("jwt_invalid",), has=f"Token refused: {word}.")
        for letter, token, word in zip("abcdef", sent, words, strict=True)
    ]
    return rows


def _other_path_rows() -> list[Row]:
    """The same doors on the other operations: one guard for all of them."""
    embed = json.dumps({"model": "sim-embed", "input": PROMPT_CANARY}).encode()
    azure: dict[str, Any] = {"path": AZURE}
    return [
        Row("P01-embeddings", raw(b"", path=EMBEDDINGS), 400, ("body_empty",)),
        Row("P03-embeddings", raw(b"{", path=EMBEDDINGS), 400, ("json_invalid",)),
        Row("P17-embeddings", raw(embed[:-1] + b', "model": "x"}', path=EMBEDDINGS), 400, ("json_dup_key",)),
        Row("P31-embeddings", raw(b'{"input": "a"}', path=EMBEDDINGS), 400, ("field_missing",), has="model"),
        Row("P41-embeddings", raw(embed[:-1] + b', "api_base": "x"}', path=EMBEDDINGS), 403, ("field_forbidden",)),
        Row("P80-embeddings", lambda keys: request(embed, path=EMBEDDINGS), 401, ("auth_missing",)),
        Row("P01-completions", raw(b"", path=COMPLETIONS), 400, ("body_empty",)),
        Row("P33-completions", raw(b'{"model": 5, "prompt": "a"}', path=COMPLETIONS), 400, ("field_type",)),
        Row("P91-completions", raw(b'{"model": "sim-1", "prompt": "a", "n": 0}', path=COMPLETIONS), 400,
            ("field_range",)),
        Row("P01-azure", raw(b"", **azure), 400, ("body_empty",)),
        Row("P03-azure", raw(b"{", **azure), 400, ("json_invalid",)),
        Row("P18-azure", raw(b'{"messages": [], "max_tokens": 1, "max_tokens": 2}', **azure), 400, ("json_dup_key",)),
        Row("P41-azure", chat(api_base="x", wire=azure), 403, ("field_forbidden",)),
        Row("P80-azure", lambda keys: request(GOOD_BODY, **azure), 401, ("auth_missing",)),
        Row("P34-azure", good(path=AZURE.replace("azure-sim", "nothing")), 404, ("model_not_found",)),
        Row("P70-azure", good(path=AZURE.replace("azure-sim", "a%2f..%2fb")), 400, ("uri_invalid",)),
    ]  # fmt: skip


ROWS: tuple[Row, ...] = (
    *_json_rows(),
    *_method_rows(),
    *_field_rows(),
    *_url_rows(),
    *_target_rows(),
    *_framing_rows(),
    *_credential_rows(),
    *_other_path_rows(),
)
