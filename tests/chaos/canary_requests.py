"""Mixed requests with a canary wherever one can be put, for the run that looks for them in every output afterwards.

Each caller has words of its own, so that what one is told of another is found. Not filled are the fields that a record
has by design, because their values are to be found again: the name of the model, end user, tags, run, event, metadata,
project, stage and idempotency key of a call, and names, titles and the like of what the admin API makes.
"""

from __future__ import annotations

import base64
import io
import json
import random
import wave
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from bad_input.test_proxy import mutate
from faregate.core.keys import make
from wire import request

GATE, CONSOLE = "gate", "console"

#: Well-formed, and of nobody.
STRANGE_KEY = make(bytes(range(100, 132)))


class Words(NamedTuple):
    """What one caller says and hears, and must be seen nowhere else."""

    prompt: str
    completion: str
    card: str
    mail: str
    #: A token of an end user: only its claims are looked into, and its parts are kept nowhere.
    token: str
    #: The value of a field, a header, a part of a path or a query that nobody asked for.
    field: str

    @property
    def texts(self) -> tuple[str, ...]:
        """What is looked for; of a token both parts that are its alone."""
        return (self.prompt, self.completion, self.card, self.mail, *self.token.split(".")[1:], self.field)


def words_of(name: str, chance: random.Random) -> Words:
    """The words of one caller."""

    def mark(kind: str) -> str:
        return f"{kind}-CANARY-{name}-{chance.randbytes(5).hex()}"

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    digits = "4" + "".join(chance.choices("0123456789", k=15))
    claims = {"oid": f"person-{name}", "secret": mark("CLAIM")}
    token = f"{part({'alg': 'RS256'})}.{part(claims)}.{part(mark('SIGNATURE'))}"
    mail = f"{mark('mail').lower()}@example.com"
    return Words(mark("PROMPT"), mark("COMPLETION"), digits, mail, token, mark("FIELD"))


class Caller(NamedTuple):
    """Who calls: a key and words."""

    name: str
    secret: str
    words: Words
    #: Sends each call with an idempotency key, so that answers are kept for a while.
    repeats: bool = False


class Job(NamedTuple):
    """One request to be sent: where to, whose it is, and whether the answer may hold what its caller sent."""

    kind: str
    port: str
    data: bytes
    caller: Caller
    #: An answer with an error may repeat a value of the caller's own.
    echoes: bool = False
    #: It is not HTTP any more, perhaps: it is sent alone, and may be left without an answer.
    broken: bool = False


class Base(NamedTuple):
    """One good request, before anything is done to it."""

    kind: str
    path: str
    body: Any
    method: str = "POST"
    content_type: str = "application/json"

    def encoded(self) -> bytes:
        """The body's bytes."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        return json.dumps(self.body).encode()


#: Each makes the provider misbehave, or say something unpleasant with the words of the caller in it.
FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"status": 400}, {"status": 401}, {"status": 429}, {"status": 500}, {"fault": "html"}, {"fault": "empty_body"},
    {"fault": "reset_after_head"}, {"fault": "reset_mid_stream"}, {"fault": "bad_chunk"}, {"fault": "not_json"},
    {"fault": "usage_text"}, {"fault": "redirect"}, {"fault": "error_event"}, {"fault": "tracking_headers"},
)  # fmt: skip

#: Headers of every sort; none of them is to be found anywhere again.
HEADERS: Final = (
    "Cookie", "X-Internal-Token", "User-Agent", "Referer", "Origin", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded",
    "Proxy-Authorization", "traceparent", "tracestate", "baggage", "OpenAI-Organization", "OpenAI-Project",
    "OpenAI-Beta", "anthropic-beta", "Accept", "Accept-Language", "Content-Encoding", "Content-Type", "Expect", "Range",
    "If-Match", "X-Request-Id", "X-Faregate-Timeout", "X-Request-Timeout", "X-Faregate-Cache", "Priority", "Via", "TE",
    "Upgrade", "X-Stainless-Lang", "Content-Disposition", "Date", "From", "X-HTTP-Method-Override", "X-Original-URL",
    "Host",
)  # fmt: skip

#: Members whose values a record has by design, or that say where a call goes.
RECORDED: Final = frozenset(("model", "user", "safety_identifier", "metadata"))

TEXT: Final = "Say hello to {mail}, who pays with {card}. {prompt}\nsim: {steering}"


def said(words: Words, **steering: Any) -> str:
    """A prompt with everything that nobody else should read; what is answered is the caller's completion."""
    told = {"content": f"{words.completion} and no more", "output_tokens": 4, **steering}
    return TEXT.format(mail=words.mail, card=words.card, prompt=words.prompt, steering=json.dumps(told))


def recording() -> bytes:
    """A tenth of a second of silence as WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(8000)
        opened.writeframes(bytes(1600))
    return file.getvalue()


def form(content: bytes, name: str, **fields: str) -> bytes:
    """A form with one file."""
    parts = "".join(f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{fields[key]}\r\n' for key in fields)
    head = f'{parts}--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


def good(words: Words, **steering: Any) -> tuple[Base, ...]:
    """One good request of each operation."""
    text = said(words, **steering)
    chat: dict[str, Any] = {
        "model": "sim-1",
        "max_tokens": 20,
        "temperature": 0.5,
        "stop": ["\n\n"],
        "messages": [{"role": "system", "content": words.prompt}, {"role": "user", "content": text}],
        "tools": [{"type": "function", "function": {"name": "look", "description": words.prompt}}],
    }
    parts = [{"type": "text", "text": text}]
    gemini = {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": {"maxOutputTokens": 20}}
    turns = [{"role": "user", "content": text}]
    multipart = "multipart/form-data; boundary=b"
    azure = "/openai/deployments/azure-sim/chat/completions?api-version=2024-10-21"
    return (
        Base("chat", "/v1/chat/completions", chat),
        Base("chat in parts", "/v1/chat/completions", {**chat, "messages": [{"role": "user", "content": parts}]}),
        Base("chat, streamed", "/v1/chat/completions", {**chat, "stream": True}),
        Base("azure", azure, {**chat, "stream": True}),
        Base("completions", "/v1/completions", {"model": "sim-1", "prompt": text, "max_tokens": 20}),
        Base("embeddings", "/v1/embeddings", {"model": "sim-embed", "input": [words.prompt, words.mail]}),
        Base("responses", "/v1/responses",
             {"model": "sim-1", "input": text, "instructions": words.prompt, "max_output_tokens": 20}),
        Base("responses, streamed", "/v1/responses",
             {"model": "sim-1", "input": text, "max_output_tokens": 20, "stream": True}),
        Base("messages", "/v1/messages",
             {"model": "claude", "max_tokens": 20, "system": words.prompt, "messages": turns}),
        Base("messages, streamed", "/v1/messages",
             {"model": "claude", "max_tokens": 20, "messages": turns, "stream": True}),
        Base("messages.count_tokens", "/v1/messages/count_tokens", {"model": "claude", "messages": turns}),
        Base("gemini", "/v1beta/models/gemini-2.5-flash:generateContent", gemini),
        Base("gemini, streamed", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", gemini),
        Base("gemini.count_tokens", "/v1beta/models/gemini-2.5-flash:countTokens", {"contents": gemini["contents"]}),
        Base("images", "/v1/images/generations", {"model": "dall-e-3", "prompt": words.prompt, "size": "1024x1024"}),
        Base("speech", "/v1/audio/speech", {"model": "tts-1", "voice": "alloy", "input": words.prompt}),
        Base("transcriptions", "/v1/audio/transcriptions",
             form(recording(), f"{words.field}.wav", model="whisper-1", prompt=words.prompt), content_type=multipart),
        Base("moderations", "/v1/moderations", {"model": "omni-moderation-latest", "input": words.prompt}),
        Base("files", "/v1/files", form(words.prompt.encode(), f"{words.field}.txt", purpose="assistants"),
             content_type=multipart),
        Base("tokenize", "/api/tokenize", {"model": "sim-1", "input": text}),
        Base("tokenize by query", f"/api/tokenize?model=sim-1&input={quote(text)}", None, method="GET"),
        Base("models", "/v1/models", None, method="GET"),
        Base("no such model", f"/v1/models/{words.field}", None, method="GET"),
        Base("no such response", f"/v1/responses/resp_{words.field}", None, method="GET"),
        Base("no such file", f"/v1/files/{words.field}/content", None, method="GET"),
        Base("forward-auth", f"/auth/verify/{words.field}?q={words.field}", None, method="GET"),
    )  # fmt: skip


def admin(words: Words) -> tuple[Base, ...]:
    """Requests to the admin API that hold something to be kept back: secrets, texts, and values that nobody takes."""
    chat = {"model": "sim-1", "max_tokens": 20, "messages": [{"role": "user", "content": said(words)}]}
    limit = {"select": {"team": words.field}, "unit": "usd", "amount": words.card, "window": words.field}
    provider = {"kind": "openai", "base_url": f"https://{words.field}.example.com/v1", "api_key": words.field}
    session = f"key={words.token}".encode()
    return (
        Base("key check", "/api/v1/keys/check", {"secret": STRANGE_KEY}),
        Base("key with a secret", "/api/v1/keys", {"name": "given", "secret": words.field}),
        Base("key, unknown field", "/api/v1/keys", {"name": "given", words.field: words.mail}),
        Base("key, wrong types", "/api/v1/keys", {"name": [words.prompt], "expires_at": words.mail,
                                                  "models": words.card}),
        Base("key, not JSON", "/api/v1/keys", f'{{"name": "{words.prompt}'.encode()),
        Base("limit, wrong values", "/api/v1/limits", limit),
        Base("provider without a name", "/api/v1/providers", provider),
        Base("provider, strange name", "/api/v1/providers", {**provider, "name": f"{words.field}\r\n\x1b[31m"}),
        Base("webhook without a name", "/api/v1/webhooks", {"url": f"https://example.com/{words.field}",
                                                           "secret": words.field}),
        Base("quote", "/api/v1/quote", {"request": chat}),
        Base("quote, wrong", "/api/v1/quote", {"request": {**chat, "messages": words.prompt}}),
        Base("rehearsal, wrong", "/api/v1/rehearse", {"from": words.field, "limits": [words.prompt]}),
        Base("price, wrong", "/api/v1/prices/explain", {"model": "sim-1", "usage": {words.field: words.prompt}}),
        Base("quota, wrong", "/api/Quota/Update", {"subscriptionKey": STRANGE_KEY, "prompt": words.prompt,
                                                   "responseBody": words.completion}),
        Base("cache flush, wrong", "/api/v1/cache/flush", {"project": [words.prompt], words.field: words.mail}),
        Base("tokenize", "/api/tokenize", {"model": "sim-1", "input": words.prompt}),
        Base("tokenize by query", f"/api/tokenize?input={words.prompt}%0d%0a", None, method="GET"),
        Base("no such key", f"/api/v1/keys/{words.field}", None, method="GET"),
        Base("no such path", f"/api/v1/{words.field}?{words.prompt}={words.card}", None, method="GET"),
        Base("unknown filter", f"/api/v1/keys?{words.field}={words.mail}", None, method="GET"),
        Base("wrong cursor", f"/api/v1/requests?cursor={words.field}", None, method="GET"),
        Base("search", f"/api/v1/requests?text={words.prompt}&limit=1", None, method="GET"),
        Base("keys", "/api/v1/keys?limit=3", None, method="GET"),
        Base("usage", "/api/v1/usage", None, method="GET"),
        Base("audit", "/api/v1/audit?limit=3", None, method="GET"),
        Base("metrics", "/metrics", None, method="GET"),
        Base("login", "/login", session, content_type="application/x-www-form-urlencoded"),
        Base("webhook", f"/webhooks/azure-budget?code={words.field}", {"data": words.field}),
    )  # fmt: skip


def holders(node: Any) -> list[tuple[Any, Any]]:
    """Every place of a body that a value may be put: the object or list, and the member."""
    found: list[tuple[Any, Any]] = []
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in members:
        if name not in RECORDED:
            found += [(node, name), *holders(value)]
    return found


class Mix:
    """Makes requests of every kind by chance, for callers and for one who looks after everything."""

    def __init__(self, callers: tuple[Caller, ...], desk: Caller, seed: int) -> None:
        self._callers = callers
        self._desk = desk
        self._chance = random.Random(seed)
        self._made = 0
        self._kinds: tuple[tuple[int, Callable[[], Job]], ...] = (
            (34, self._good), (8, self._fault), (16, self._field), (12, self._header), (8, self._credential),
            (6, self._target), (10, self._admin), (6, self._mutant),
        )  # fmt: skip

    def job(self) -> Job:
        """The next request."""
        self._made += 1
        makers = [maker for _, maker in self._kinds]
        return self._chance.choices(makers, [weight for weight, _ in self._kinds])[0]()

    def _caller(self) -> Caller:
        return self._chance.choice(self._callers)

    def _sent(self, caller: Caller, base: Base, **more: Any) -> bytes:
        headers = [*more.pop("headers", ())]
        if caller.repeats and base.method == "POST":
            headers.append(("Idempotency-Key", f"call-{self._made}-{self._chance.randrange(100)}"))
        sent = {"secret": caller.secret, "path": base.path, "method": base.method, **more}
        kind = base.content_type if base.body is not None else None
        return request(base.encoded(), headers=headers, **{"content_type": kind, **sent})

    def _good(self) -> Job:
        caller = self._caller()
        base = self._chance.choice(good(caller.words))
        headers = [("X-Apim-End-User-Jwt", caller.words.token)] if self._chance.random() < 0.2 else []
        data = self._sent(caller, base, headers=headers)
        return Job(f"good: {base.kind}", GATE, data, caller, echoes=base.kind.startswith("no such"))

    def _fault(self) -> Job:
        caller = self._caller()
        fault = dict(self._chance.choice(FAULTS))
        if "status" in fault:
            fault["body"] = {"error": {"message": caller.words.completion, "type": caller.words.completion}}
        base = self._chance.choice(good(caller.words, **fault)[:13])
        return Job(f"fault: {base.kind}", GATE, self._sent(caller, base), caller)

    def _value(self, words: Words) -> Any:
        value: str = self._chance.choice((*words[:-1], words.field, STRANGE_KEY))
        value += self._chance.choice(("", "", "\r\nX-Y: z", "\x1b[31m", '\n{"event": "forged"}'))
        return self._chance.choice((value, value, value, [value], {value: value}))

    def _field(self) -> Job:
        """One field has a value that it should not have, or there is one that nobody knows."""
        caller = self._caller()
        base = self._chance.choice([each for each in good(caller.words) if isinstance(each.body, dict)])
        holder, member = self._chance.choice(holders(base.body))
        if isinstance(holder, dict) and self._chance.random() < 0.3:
            member = self._chance.choice((caller.words.field, "api_base", "callbacks", "user_agent"))
        holder[member] = self._value(caller.words)
        return Job(f"field: {base.kind}", GATE, self._sent(caller, base), caller, echoes=True)

    def _header(self) -> Job:
        caller = self._caller()
        base = self._chance.choice(good(caller.words))
        value = self._chance.choice((*caller.words, STRANGE_KEY))
        name = self._chance.choice(HEADERS)
        more: dict[str, Any] = {"headers": [(name, value)]}
        if name in ("Content-Type", "Host"):
            more = {"content_type": value} if name == "Content-Type" else {"host": value}
        return Job(f"header: {name}", GATE, self._sent(caller, base, **more), caller, echoes=True)

    def _credential(self) -> Job:
        """No credential, or one that opens nothing; in every header and in the query."""
        caller = self._caller()
        base = self._chance.choice(good(caller.words))
        wrong = self._chance.choice(
            (STRANGE_KEY, caller.secret[:-1] + "!", caller.secret[:-6] + "000000", caller.words.token,
             caller.words.field, f"Basic {caller.words.field}", "")
        )  # fmt: skip
        name = self._chance.choice(
            ("Authorization", "api-key", "x-api-key", "x-goog-api-key", "Ocp-Apim-Subscription-Key", "")
        )
        if not name:
            sign = "&" if "?" in base.path else "?"
            base = base._replace(path=f"{base.path}{sign}subscription-key={quote(wrong)}&api_key={quote(wrong)}")
        headers = [(name, f"Bearer {wrong}" if name == "Authorization" else wrong)] if name else []
        data = self._sent(caller, base, secret=None, headers=headers)
        return Job(f"credential: {name or 'query'}", GATE, data, caller, echoes=True)

    def _target(self) -> Job:
        """Paths and queries that nobody knows."""
        caller = self._caller()
        base = self._chance.choice(good(caller.words))
        word = quote(self._chance.choice((*caller.words, caller.secret, STRANGE_KEY)))
        path = base.path.partition("?")[0]
        target = self._chance.choice((
            f"{path}/{word}", f"/{word}{path}", f"{path}?{word}={word}", f"{path}?api-version={word}", f"/v1/{word}",
            f"/services/{word}/x", f"/v1beta/models/gemini-2.5-flash:{word}", f"{path}%0d%0a{word}", f"http://h/{word}",
            f"/openai/deployments/azure-sim/{word}",
        ))  # fmt: skip
        method = self._chance.choice((base.method, base.method, "PUT", "PATCH", "BREW"))
        data = self._sent(caller, base._replace(path=target), method=method)
        return Job("target", GATE, data, caller, echoes=True)

    def _admin(self) -> Job:
        caller = self._caller()
        base = self._chance.choice(admin(caller.words))
        secret = self._chance.choice((self._desk.secret,) * 5 + (caller.secret, caller.words.token, STRANGE_KEY))
        headers = [(self._chance.choice(HEADERS[:20]), caller.words.field)] if self._chance.random() < 0.3 else []
        sent = self._sent(caller._replace(repeats=False), base, secret=secret, headers=headers)
        return Job(f"admin: {base.kind}", CONSOLE, sent, caller, echoes=True)

    def _mutant(self) -> Job:
        """The bytes of a request with random edits, to either port."""
        made = self._chance.choice((self._good, self._field, self._header, self._admin))()
        return made._replace(kind="mutant", data=mutate(made.data, self._chance), echoes=True, broken=True)
