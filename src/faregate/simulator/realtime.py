"""A provider's realtime session over a WebSocket: text and sound in, responses out, the truth of each on disk first.

Speaks both generations of OpenAI's interface, as ``/v1/realtime``, ``/openai/v1/realtime`` and (the beta)
``/openai/realtime`` with ``?api-version=``. What a client says in sound is heard by a simple rule: bytes that are not
zero are speech, zeros are silence. A response is steered as any answer is, by a ``sim:`` line in the last text of the
user or in the instructions of its ``response.create``; the faults ``reset_mid_stream``, ``stall``, ``error_event``
and those of the usage report act on it. Each response leaves a truth record
whose ``request_id`` is the ``event_id`` of the ``response.create`` that asked for it.
"""

import asyncio
import contextlib
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs

import msgspec
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as UpgradeRequest
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol

from faregate.simulator import faults, wording
from faregate.simulator.asks import Ask
from faregate.simulator.credentials import safe
from faregate.simulator.http1 import Connection, Request
from faregate.simulator.plan import Plan, make
from faregate.simulator.steering import ScriptInvalid, Steering, line_of, steer
from faregate.simulator.truth import Record, TruthLog

PATHS: Final = ("/v1/realtime", "/openai/v1/realtime", "/openai/realtime")

MESSAGE_BYTES_MAX: Final = 32 * 1024 * 1024
SILENCE_MS: Final = 500
#: Sound is looked at in pieces of so many milliseconds.
STEP_MS: Final = 20
PCM_BYTES: Final = 48_000
TELEPHONY_BYTES: Final = 8_000
#: One token for 100 ms that is heard, and for 50 ms that is spoken.
HEARD_PER_SECOND: Final = 10
SPOKEN_BYTES: Final = PCM_BYTES // 20
OUTPUT_TOKENS_MAX: Final = 4_096

_encode = msgspec.json.Encoder().encode


class Inside(Protocol):
    """What a session needs of the simulator."""

    truth: TruthLog
    open_calls: dict[str, int]
    dispatched: int
    in_flight: int

    @property
    def holding(self) -> bool:
        """Whether every answer is held."""
        ...

    async def held(self) -> None:
        """Wait until the held answers are released."""
        ...

    def now(self) -> str:
        """The time, RFC 3339 in UTC."""
        ...


class _Item(NamedTuple):
    """What the model reads of an item."""

    id: str
    tokens: int
    audio_tokens: int


class _Running:
    """A response that is being made."""

    def __init__(self, id: str, plan: Plan, beside: bool, prompt: tuple[int, int]) -> None:
        self.id = id
        self.plan = plan
        self.beside = beside
        self.prompt = prompt
        self.delivered = 0
        self.cancelled = False
        self.wake = asyncio.Event()


def wanted(request: Request) -> str:
    """The model, or Azure's deployment, that a request for a session names; empty where it names none."""
    query = parse_qs(request.query)
    return (query.get("model") or query.get("deployment") or [""])[0]


class Conversation:
    """One session."""

    def __init__(
        self, inside: Inside, connection: Connection, request: Request, credential: dict[str, str] | None
    ) -> None:
        self._inside = inside
        self._connection = connection
        self._request = request
        self._credential = credential
        self._model = wanted(request)
        self._framing = ServerProtocol(state=OPEN, max_size=MESSAGE_BYTES_MAX)
        self._pieces: list[bytes] = []
        self._count = 0
        self._items: list[_Item] = []
        self._text = ""
        self._running: dict[str, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.beta = request.path == "/openai/realtime" or "realtime=v1" in request.header("openai-beta")
        #: Sound since the last commit: bytes of it, of speech at its end, and of the silence behind that.
        self._buffered = 0
        self._speech = 0
        self._silence = 0
        self._speaking = ""
        self._detection: dict[str, Any] | None = {
            "type": "server_vad",
            "threshold": 0.5,
            "silence_duration_ms": SILENCE_MS,
            "create_response": True,
            "interrupt_response": True,
        }
        self._transcriber: str = ""
        self._cap: int | None = None
        self._modalities = ["text", "audio"] if self.beta else ["audio"]
        self._input_format: Any = "pcm16" if self.beta else {"type": "audio/pcm", "rate": 24_000}
        self._instructions = "You are a simulated assistant."

    # -- the WebSocket -------------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Answer the handshake; false where it is none."""
        headers = Headers((name, value) for name, value in self._request.headers)
        with contextlib.suppress(KeyError):
            del headers["sec-websocket-extensions"]
        answer = ServerProtocol().accept(UpgradeRequest(self._request.path, headers))
        self._connection.write(answer.serialize())
        if answer.status_code != 101:
            self._connection.close()
            return False
        self._send("session.created", session=self._session())
        return True

    def received(self, data: bytes) -> None:
        """Bytes of frames came."""
        self._framing.receive_data(data)
        for frame in self._framing.events_received():
            if isinstance(frame, Frame) and frame.opcode in (Opcode.TEXT, Opcode.CONT, Opcode.BINARY):
                self._pieces.append(bytes(frame.data))
                if frame.fin:
                    message, self._pieces = b"".join(self._pieces), []
                    self._heard(message)
        self._flush()

    def gone(self) -> None:
        """The client is gone: what is being made ends, and leaves its record."""
        for task in list(self._tasks):
            task.cancel()

    def _flush(self) -> None:
        for data in self._framing.data_to_send():
            if data is SEND_EOF or not data:
                self._connection.close()
            else:
                self._connection.write(data)

    def _send(self, kind: str, **members: Any) -> None:
        self._count += 1
        if self._framing.state is OPEN:
            self._framing.send_text(_encode({"type": kind, "event_id": f"event_{self._count}", **members}))
            self._flush()

    def _complain(self, message: str, event_id: str | None, code: str = "invalid_value") -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
        self._send("error", error={**error, "event_id": event_id})

    # -- what a client says --------------------------------------------------------------------------------------------

    def _heard(self, message: bytes) -> None:
        try:
            event = msgspec.json.decode(message, type=dict[str, Any])
        except msgspec.MsgspecError:
            self._complain("That is not JSON.", None, "invalid_json")
            return
        name = event.get("event_id")
        act: dict[str, Callable[[dict[str, Any]], str | None]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._item,
            "conversation.item.delete": self._delete,
            "response.create": self._create,
            "response.cancel": self._cancel,
        }
        done = act.get(str(event.get("type")))
        if done is None:
            self._complain(f"Invalid value: {event.get('type')!r}.", name)
            return
        try:
            wrong = done(event)
        except (KeyError, TypeError, ValueError, NotBase64, AttributeError):
            wrong = "Something is missing, or of the wrong type."
        if wrong:
            code = "conversation_already_has_active_response" if "active response" in wrong else "invalid_value"
            self._complain(wrong, name, code)

    def _session(self) -> dict[str, Any]:
        """The session as it stands."""
        transcription = {"model": self._transcriber} if self._transcriber else None
        cap: int | str = self._cap if self._cap is not None else "inf"
        if self.beta:
            return {
                "id": "sess_sim",
                "object": "realtime.session",
                "model": self._model,
                "modalities": self._modalities,
                "instructions": self._instructions,
                "input_audio_format": self._input_format,
                "output_audio_format": "pcm16",
                "input_audio_transcription": transcription,
                "turn_detection": self._detection,
                "tools": [],
                "max_response_output_tokens": cap,
            }
        heard = {"format": self._input_format, "transcription": transcription, "turn_detection": self._detection}
        return {
            "type": "realtime",
            "id": "sess_sim",
            "object": "realtime.session",
            "model": self._model,
            "output_modalities": self._modalities,
            "instructions": self._instructions,
            "tools": [],
            "max_output_tokens": cap,
            "audio": {"input": heard, "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "alloy"}},
        }

    def _update(self, event: dict[str, Any]) -> str | None:
        session = event["session"]
        if not self.beta and session.get("type") != "realtime":
            return "Missing required parameter: 'session.type'."
        if "model" in session and session["model"] != self._model:
            return "The model of a session cannot be changed."
        heard = session if self.beta else session.get("audio", {}).get("input", {})
        detection, transcription = ("turn_detection", "transcription")
        if self.beta:
            transcription = "input_audio_transcription"
        if detection in heard:
            told = heard[detection]
            self._detection = None if told is None else {**(self._detection or {"type": "server_vad"}), **told}
            if self._detection is not None:
                self._detection.setdefault("create_response", True)
        if transcription in heard:
            told = heard[transcription]
            self._transcriber = "" if told is None else str(told["model"])
        self._input_format = heard.get("input_audio_format" if self.beta else "format", self._input_format)
        self._modalities = session.get("modalities" if self.beta else "output_modalities", self._modalities)
        self._instructions = session.get("instructions", self._instructions)
        name = "max_response_output_tokens" if self.beta else "max_output_tokens"
        if name in session:
            self._cap = _cap_of(session[name])
        self._send("session.updated", session=self._session())
        return None

    def _item(self, event: dict[str, Any]) -> str | None:
        item = event["item"]
        texts = [part.get("text") or "" for part in item.get("content", [])]
        sounds = [b64decode(part["audio"]) for part in item.get("content", []) if part.get("audio")]
        text = "\n".join(texts)
        audio = sum(_tokens_heard(len(sound), self._bytes_per_second) for sound in sounds)
        self._add(item, wording.MESSAGE_TOKENS + wording.count(text), audio)
        if item.get("role") == "user":
            self._text = text
        return None

    def _add(self, item: dict[str, Any], tokens: int, audio_tokens: int) -> str:
        self._count += 1
        id = item.get("id") or f"item_{self._count}"
        self._items.append(_Item(id, tokens, audio_tokens))
        shown = {"id": id, "object": "realtime.item", "status": "completed", **item}
        if self.beta:
            self._send("conversation.item.created", item=shown)
        else:
            self._send("conversation.item.added", item=shown)
            self._send("conversation.item.done", item=shown)
        return id

    def _delete(self, event: dict[str, Any]) -> str | None:
        self._items = [item for item in self._items if item.id != event["item_id"]]
        self._send("conversation.item.deleted", item_id=event["item_id"])
        return None

    # -- sound ---------------------------------------------------------------------------------------------------------

    @property
    def _bytes_per_second(self) -> int:
        name = self._input_format.get("type") if isinstance(self._input_format, dict) else self._input_format
        return PCM_BYTES if name in ("pcm16", "audio/pcm") else TELEPHONY_BYTES

    def _append(self, event: dict[str, Any]) -> str | None:
        sound = b64decode(event["audio"], validate=True)
        if self._detection is None:
            self._buffered += len(sound)
            return None
        step = self._bytes_per_second * STEP_MS // 1000
        for at in range(0, len(sound), step):
            self._listen(sound[at : at + step])
        return None

    def _listen(self, piece: bytes) -> None:
        """Voice activity detection of one small piece."""
        assert self._detection is not None
        self._buffered += len(piece)
        if piece.count(0) < len(piece):
            if not self._speaking:
                self._count += 1
                self._speaking = f"item_{self._count}"
                self._send("input_audio_buffer.speech_started", audio_start_ms=0, item_id=self._speaking)
                if self._detection.get("interrupt_response", True):
                    self._interrupt()
            self._speech += len(piece)
            self._silence = 0
        elif self._speaking:
            self._silence += len(piece)
            quiet_ms = self._silence * 1000 // self._bytes_per_second
            if quiet_ms >= self._detection.get("silence_duration_ms", SILENCE_MS):
                item = self._speaking
                self._send("input_audio_buffer.speech_stopped", audio_end_ms=0, item_id=item)
                self._take(item, self._speech + self._silence)
                if self._detection.get("create_response", True) is not False:
                    self._create({"event_id": f"auto_{self._count}"})

    def _interrupt(self) -> None:
        for running in self._running.values():
            if not running.beside:
                running.cancelled = True
                running.wake.set()

    def _commit(self, event: dict[str, Any]) -> str | None:
        if self._buffered * 10 < self._bytes_per_second:
            return "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio."
        self._count += 1
        self._take(self._speaking or f"item_{self._count}", self._buffered)
        return None

    def _clear(self, event: dict[str, Any]) -> str | None:
        self._buffered = self._speech = self._silence = 0
        self._speaking = ""
        self._send("input_audio_buffer.cleared")
        return None

    def _take(self, item: str, length: int) -> None:
        """Sound becomes an item of the conversation."""
        self._buffered = self._speech = self._silence = 0
        self._speaking = ""
        self._send("input_audio_buffer.committed", previous_item_id=None, item_id=item)
        tokens = _tokens_heard(length, self._bytes_per_second)
        content = [{"type": "input_audio", "transcript": None}]
        self._add({"id": item, "type": "message", "role": "user", "content": content}, 2, tokens)
        self._text = ""
        if self._transcriber:
            self._spawn(self._transcribe(item, length, self._transcriber))

    async def _transcribe(self, item: str, length: int, model: str) -> None:
        """Billed by the second where the model's name says whisper, else by tokens."""
        seconds = length / self._bytes_per_second
        text = wording.piece(0, max(1, int(seconds * 2)))
        usage: dict[str, Any] = {"type": "duration", "seconds": seconds}
        if "whisper" not in model:
            heard, written = _tokens_heard(length, self._bytes_per_second), wording.count(text)
            usage = {
                "type": "tokens",
                "input_tokens": heard,
                "output_tokens": written,
                "total_tokens": heard + written,
                "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
            }
        record = self._record(f"transcript_{item}", model, usage, 0, "", complete=True)
        await self._write(record)
        kind = "conversation.item.input_audio_transcription.completed"
        self._send(kind, item_id=item, content_index=0, transcript=text, usage=usage)

    # -- responses -----------------------------------------------------------------------------------------------------

    def _create(self, event: dict[str, Any]) -> str | None:
        wish = event.get("response") or {}
        beside = wish.get("conversation") == "none"
        if not beside and any(not running.beside for running in self._running.values()):
            return "Conversation already has an active response in progress."
        cap = _cap_of(wish.get("max_response_output_tokens" if self.beta else "max_output_tokens", self._cap))
        text = wish.get("instructions") or ""
        text = text if line_of(text) is not None else self._text
        spoken = wish.get("modalities" if self.beta else "output_modalities", self._modalities)
        items = [_Item("", wording.count(str(one)), 0) for one in wish["input"]] if "input" in wish else self._items
        prompt = wording.count(self._instructions) + sum(item.tokens for item in items)
        audio = sum(item.audio_tokens for item in items)
        request_id = str(event.get("event_id") or f"{self._model}_{self._count}")
        try:
            steering = steer(self._model, text, None)
        except ScriptInvalid as problem:
            return str(problem)
        if "audio" in spoken and not steering.audio_tokens and steering.output_tokens:
            # Half of what is said is sound, as long as nobody says otherwise.
            steering = msgspec.structs.replace(steering, audio_tokens=steering.output_tokens // 2)
        ask = Ask("chat", self._model, text, prompt + audio, OUTPUT_TOKENS_MAX if cap is None else cap, stream=True)
        plan = make(ask, steering, request_id, self.beta)
        self._count += 1
        running = _Running(f"resp_{plan.id}{self._count}", plan, beside, (plan.prompt_tokens - audio, audio))
        self._running[running.id] = running
        self._inside.dispatched += 1
        self._inside.in_flight += 1
        self._inside.open_calls[request_id] = self._inside.open_calls.get(request_id, 0) + 1
        self._spawn(self._respond(running, request_id, "audio" in spoken))
        return None

    def _cancel(self, event: dict[str, Any]) -> str | None:
        wanted = event.get("response_id")
        for running in self._running.values():
            if wanted in (None, running.id):
                running.cancelled = True
                running.wake.set()
                return None
        return "Cancellation failed: no response found."

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respond(self, running: _Running, request_id: str, spoken: bool) -> None:
        plan = running.plan
        complete = False
        try:
            self._send("response.created", response=self._shown(running, "in_progress", None))
            await self._deliver(running, spoken)
            complete = True
        finally:
            self._running.pop(running.id, None)
            usage = self._usage(running, spoken)
            record = self._record(
                request_id, self._model, usage, running.delivered, plan.steering.fault, complete=complete
            )
            written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._inside.truth.append(record, lambda done: self._on_disk(request_id, done, written))
        if not await written:
            self._connection.abort()
            return
        self._end(running, usage)

    def _on_disk(self, request_id: str, done: bool, written: asyncio.Future[bool]) -> None:
        """The record of a response is on disk: it can be asked for from now on."""
        self._inside.in_flight -= 1
        left = self._inside.open_calls.get(request_id, 1) - 1
        if left:
            self._inside.open_calls[request_id] = left
        else:
            self._inside.open_calls.pop(request_id, None)
        if not written.done():
            written.set_result(done)

    def _end(self, running: _Running, usage: dict[str, Any]) -> None:
        fault = running.plan.steering.fault
        status = "cancelled" if running.cancelled else "failed" if fault == "error_event" else "completed"
        if not running.beside:
            self._add({"type": "message", "role": "assistant", "content": []}, running.delivered, 0)
        told: Any = usage
        if running.plan.steering.usage is False or fault == "usage_missing":
            told = None
        elif fault.startswith("usage_"):
            told = msgspec.Raw(faults.reported(fault, usage))
        self._send("response.done", response=self._shown(running, status, told))

    async def _deliver(self, running: _Running, spoken: bool) -> None:
        """Send a response piece by piece, until it is whole or cancelled."""
        plan, steering = running.plan, running.plan.steering
        if steering.hold or self._inside.holding:
            await self._inside.held()
        await self._pause(running, steering.first_delay_ms)
        text = "response.output_audio_transcript.delta" if spoken else "response.output_text.delta"
        sound = "response.output_audio.delta"
        if self.beta:
            text = "response.audio_transcript.delta" if spoken else "response.text.delta"
            sound = "response.audio.delta"
        whole = plan.output_tokens
        audible = min(steering.audio_tokens, whole) if spoken else 0
        at, step = 0, plan.chunk_tokens
        while at < whole and not running.cancelled:
            count = min(step, whole - at)
            if steering.fault in ("reset_mid_stream", "stall") and at >= whole // 2:
                await self._break_off(steering.fault)
            if at < plan.visible_tokens:
                delta = plan.text(at, min(count, plan.visible_tokens - at), 0)
                self._send(text, response_id=running.id, item_id="item", output_index=0, content_index=0, delta=delta)
            if audible and at >= plan.visible_tokens - step:
                heard = min(count, audible)
                audible -= heard
                delta = b64encode(b"\1" * (SPOKEN_BYTES * heard)).decode()
                self._send(sound, response_id=running.id, item_id="item", output_index=0, content_index=0, delta=delta)
            at += count
            running.delivered = at
            await self._pause(running, steering.delay_ms)

    async def _pause(self, running: _Running, milliseconds: int) -> None:
        if not milliseconds:
            await self._connection.drain()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running.wake.wait(), milliseconds / 1000)

    async def _break_off(self, fault: str) -> None:
        if fault == "reset_mid_stream":
            await self._connection.drain()
            await asyncio.sleep(0.01)
            self._connection.reset()
        await self._connection.wait_gone()
        raise asyncio.CancelledError

    def _shown(self, running: _Running, status: str, usage: Any) -> dict[str, Any]:
        return {
            "id": running.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": [],
            "conversation_id": None if running.beside else "conv_sim",
            "usage": usage,
        }

    def _usage(self, running: _Running, spoken: bool) -> dict[str, Any]:
        """The true usage, as far as the response was delivered."""
        steering: Steering = running.plan.steering
        text, audio = running.prompt
        audio = steering.prompt_audio_tokens or audio
        cached = steering.cached_tokens
        output = running.delivered
        audible = min(steering.audio_tokens, output) if spoken else 0
        return {
            "total_tokens": text + audio + output,
            "input_tokens": text + audio,
            "output_tokens": output,
            "input_token_details": {
                "text_tokens": text,
                "audio_tokens": audio,
                "image_tokens": 0,
                "cached_tokens": cached,
                "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": output - audible, "audio_tokens": audible},
        }

    # -- the truth -----------------------------------------------------------------------------------------------------

    def _record(
        self, request_id: str, model: str, usage: dict[str, Any], delivered: int, fault: str, *, complete: bool
    ) -> Record:
        return Record(
            seq=0,
            request_id=request_id,
            provider_request_id="",
            path=self._request.path,
            model=model[:256],
            stream=True,
            status=200,
            served=True,
            complete=complete,
            usage=usage,
            delivered_tokens=delivered,
            fault=fault,
            credential=self._credential,
            headers=safe(self._request.headers),
            served_at=self._inside.now(),
        )

    async def _write(self, record: Record) -> bool:
        """Put a record on disk."""
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._inside.truth.append(record, lambda done: None if written.done() else written.set_result(done))
        return await written


def _tokens_heard(length: int, bytes_per_second: int) -> int:
    return -(-length * HEARD_PER_SECOND // bytes_per_second)


def _cap_of(told: Any) -> int | None:
    """A cap, ``None`` for none.

    Raises:
        ValueError: it is none.
    """
    if told is None or told == "inf":
        return None
    if type(told) is not int or not 1 <= told <= OUTPUT_TOKENS_MAX:
        raise ValueError(told)
    return told
