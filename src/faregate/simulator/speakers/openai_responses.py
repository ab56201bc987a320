"""OpenAI's Responses: made, streamed or in the background, looked at again, cancelled, deleted. Pure.

What was stored is in ``Request.kept`` under its id, so that a later call may continue it and a look finds it. A
background response is done after as many looks as were steered; it is billed, and in the truth log, from the start.
(OpenAI, "API reference: Responses" and its streaming events.)
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Raw, Struct

from faregate.simulator import wording
from faregate.simulator.asks import Ask, AskInvalid, decoded
from faregate.simulator.events import PING, Event, Kind, told
from faregate.simulator.http1 import Request
from faregate.simulator.plan import CREATED, Plan
from faregate.simulator.shapes import arguments_of, with_usage

_encode = msgspec.json.Encoder().encode
_ABSENT = Raw()

#: What the provider calls the calls of its tools, by what it calls the tools.
CALLS: Final = {
    "web_search": "web_search_call",
    "file_search": "file_search_call",
    "code_interpreter": "code_interpreter_call",
}


class _Part(Struct):
    type: str
    text: str | None = None


class _Item(Struct):
    type: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    output: Any = None
    arguments: str | None = None


class _Create(Struct, forbid_unknown_fields=True):
    model: str = ""
    input: str | list[_Item] | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=0, le=1024)] | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None
    service_tier: str | None = None
    metadata: dict[str, str] | None = None
    conversation: Raw = _ABSENT
    include: Raw = _ABSENT
    moderation: Raw = _ABSENT
    parallel_tool_calls: Raw = _ABSENT
    prompt: Raw = _ABSENT
    prompt_cache_key: Raw = _ABSENT
    prompt_cache_options: Raw = _ABSENT
    prompt_cache_retention: Raw = _ABSENT
    reasoning: Raw = _ABSENT
    safety_identifier: Raw = _ABSENT
    stream_options: Raw = _ABSENT
    temperature: Raw = _ABSENT
    text: Raw = _ABSENT
    tool_choice: Raw = _ABSENT
    top_logprobs: Raw = _ABSENT
    top_p: Raw = _ABSENT
    truncation: Raw = _ABSENT
    user: Raw = _ABSENT


_decode = msgspec.json.Decoder(_Create).decode


class _Facts(NamedTuple):
    """What only this speaker looks at."""

    asked: _Create
    texts: tuple[str, ...]
    kept: dict[str, Any]


class _Stored:
    """A response that can be asked for again."""

    def __init__(self, plan: Plan, looks_left: int) -> None:
        self.plan = plan
        self.looks_left = looks_left
        self.cancelled = False


# -- making one --------------------------------------------------------------------------------------------------------


def read(request: Request, name: str) -> Ask:
    """What a request for a new response asks."""
    body = decoded(_decode, request.body)
    if not (body.model or name):
        raise AskInvalid("Missing required parameter: 'model'.", "model")
    if body.input is None and not bytes(body.prompt) and not bytes(body.conversation):
        raise AskInvalid("Missing required parameter: 'input'.", "input")
    if body.background and body.store is False:
        raise AskInvalid("Background mode requires store to be true.", "background")
    tokens = wording.REPLY_TOKENS + wording.count(body.instructions or "")
    texts, last = [], ""
    items = [_Item("message", "user", body.input)] if isinstance(body.input, str) else body.input or []
    for item in items:
        text, images = _text_of(item)
        texts.append(text)
        tokens += wording.MESSAGE_TOKENS + images * wording.IMAGE_TOKENS + wording.count(text)
        if item.role == "user":
            last = text
    if body.previous_response_id is not None:
        tokens += _tokens_before(body.previous_response_id, request.kept)
    facts = _Facts(body, tuple(texts), request.kept)
    cap = body.max_output_tokens
    tier = body.service_tier or ""
    return Ask(
        "response", body.model or name, last, tokens, cap, stream=bool(body.stream), service_tier=tier, facts=facts
    )


def _text_of(item: _Item) -> tuple[str, int]:
    content = item.content
    if isinstance(content, str):
        return content, 0
    if content is None:
        return item.arguments or (item.output if isinstance(item.output, str) else ""), 0
    images = sum(part.type == "input_image" for part in content)
    return "\n".join(part.text for part in content if part.text is not None), images


def _tokens_before(id: str, kept: dict[str, Any]) -> int:
    """Everything that was said up to an earlier response is read again."""
    stored = kept.get(id)
    if not isinstance(stored, _Stored):
        raise AskInvalid(f"Previous response with id '{id[:64]}' not found.", "previous_response_id", 400)
    return stored.plan.prompt_tokens + stored.plan.output_tokens


def _facts(plan: Plan) -> _Facts | None:
    """Nothing where the call met a fault before its body was read."""
    return plan.ask.facts if isinstance(plan.ask.facts, _Facts) else None


def _hosted(plan: Plan) -> list[str]:
    """The calls of the provider's own tools, as far as the caller allows."""
    facts = _facts(plan)
    calls = [tool for tool, times in plan.steering.hosted_calls.items() if tool in CALLS for _ in range(times)]
    most = None if facts is None else facts.asked.max_tool_calls
    return calls if most is None else calls[:most]


def _input_tokens(plan: Plan) -> int:
    if plan.steering.prompt_tokens is not None:
        return plan.prompt_tokens
    # After each call of a tool everything is read once more.
    return plan.prompt_tokens * (len(_hosted(plan)) + 1)


def told_usage(plan: Plan, delivered: int | None = None) -> dict[str, Any]:
    """The usage as the answer tells it."""
    steering = plan.steering
    incoming, outgoing = _input_tokens(plan), plan.output_tokens if delivered is None else delivered
    return {
        "input_tokens": incoming,
        "input_tokens_details": {
            "cached_tokens": steering.cached_tokens,
            "cache_write_tokens": steering.cache_write_tokens,
        },
        "output_tokens": outgoing,
        "output_tokens_details": {"reasoning_tokens": min(steering.reasoning_tokens, outgoing)},
        "total_tokens": incoming + outgoing,
    }


def usage(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """The true usage: what is told, and the calls of tools that are billed by the call or the container.

    Work in the background goes on to its end, however little of its stream was delivered.
    """
    facts = _facts(plan)
    if facts is not None and facts.asked.background:
        delivered = None
    calls = _hosted(plan)
    counted = {tool: calls.count(tool) for tool in CALLS if tool in calls}
    return {**told_usage(plan, delivered), **({"hosted_calls": counted} if counted else {})}


def answer(plan: Plan) -> bytes:
    """A whole response, or what is known of one that runs in the background."""
    facts = _facts(plan)
    if facts is not None:
        _keep(plan, facts)
    if facts is not None and facts.asked.background:
        return _encode({**_response(plan, "queued"), "usage": None})
    return with_usage(plan, _response(plan, _status(plan)), told_usage(plan))


def _keep(plan: Plan, facts: _Facts) -> None:
    if facts.asked.store is not False:
        looks = plan.steering.looks if facts.asked.background else 0
        facts.kept["resp_" + plan.id] = _Stored(plan, looks)


def _status(plan: Plan) -> str:
    if plan.finish_reason == "failed":
        return "failed"
    return "incomplete" if plan.finish_reason == "length" else "completed"


def _response(plan: Plan, status: str) -> dict[str, Any]:
    """A response without its usage."""
    facts = _facts(plan)
    asked = _Create() if facts is None else facts.asked
    done = status in ("completed", "incomplete")
    hosted = _hosted(plan) if done else []
    error = {"code": "server_error", "message": "The simulator was asked to fail."} if status == "failed" else None
    return {
        "id": "resp_" + plan.id,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": bool(asked.background),
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "model": plan.ask.model,
        "output": _output(plan, hosted) if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": plan.service_tier,
        "store": asked.store is not False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": asked.tools or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "metadata": asked.metadata or {},
    }


def _output(plan: Plan, hosted: list[str]) -> list[dict[str, Any]]:
    items = [_reasoning_item(plan)] if plan.steering.reasoning_tokens else []
    items += [_hosted_item(plan, tool, number) for number, tool in enumerate(hosted)]
    text = plan.text(0, plan.visible_tokens, 0)
    if plan.steering.tool_calls:
        arguments = arguments_of(text)
        return items + [_call_item(plan, number, arguments) for number in range(plan.steering.tool_calls)]
    return [*items, _message_item(plan, [_text_part(text)], "completed")]


def _reasoning_item(plan: Plan) -> dict[str, Any]:
    return {"id": f"rs_{plan.id}", "type": "reasoning", "summary": []}


def _hosted_item(plan: Plan, tool: str, number: int) -> dict[str, Any]:
    item: dict[str, Any] = {"id": f"{tool[:2]}_{plan.id}{number}", "type": CALLS[tool], "status": "completed"}
    if tool == "web_search":
        item["action"] = {"type": "search", "query": "find it", "queries": ["find it"]}
    elif tool == "file_search":
        item |= {"queries": ["find it"], "results": None}
    else:
        item |= {"code": "print(1)", "container_id": f"cntr_{plan.id}", "outputs": None}
    return item


def _call_item(plan: Plan, number: int, arguments: str, status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"fc_{plan.id}{number}",
        "type": "function_call",
        "status": status,
        "call_id": f"call_{plan.id}{number}",
        "name": f"simulated_{number}",
        "arguments": arguments,
    }


def _message_item(plan: Plan, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {"id": f"msg_{plan.id}", "type": "message", "status": status, "role": "assistant", "content": content}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


# -- streams -----------------------------------------------------------------------------------------------------------


def events(plan: Plan) -> Iterator[Event]:
    """All events of a stream, the response itself in the last one."""
    facts = _facts(plan)
    if facts is not None:
        _keep(plan, facts)
    return told(plan, _Writer(plan))


class _Writer:
    """See ``events.Writer``; usage is told in the last event, so there is none of its own."""

    after_text = b',"logprobs":[]}\n\n'
    ping = PING

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tools = plan.steering.tool_calls
        self._hosted = _hosted(plan)
        #: The place of the first item with text.
        self._first = len(self._hosted) + bool(plan.steering.reasoning_tokens)
        self._number = -1

    def _event(self, kind: str, **members: Any) -> bytes:
        self._number += 1
        data = _encode({"type": kind, "sequence_number": self._number, **members})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def opening(self) -> Iterator[Event]:
        """The response as it begins, what was done before the first word, and the first item."""
        plan = self._plan
        begun = {**_response(plan, "in_progress"), "usage": None}
        yield Event(Kind.OPENING, self._event("response.created", response=begun))
        yield Event(Kind.OPENING, self._event("response.in_progress", response=begun))
        items = [_reasoning_item(plan)] if plan.steering.reasoning_tokens else []
        items += [_hosted_item(plan, tool, number) for number, tool in enumerate(self._hosted)]
        for place, item in enumerate(items):
            yield Event(Kind.OPENING, self._event("response.output_item.added", output_index=place, item=item))
            yield Event(Kind.OPENING, self._event("response.output_item.done", output_index=place, item=item))
        for number in range(self._tools):
            item = _call_item(plan, number, "", "in_progress")
            place = self._first + number
            yield Event(Kind.OPENING, self._event("response.output_item.added", output_index=place, item=item))
        if not self._tools:
            item = _message_item(plan, [], "in_progress")
            yield Event(Kind.OPENING, self._event("response.output_item.added", output_index=self._first, item=item))
            yield Event(Kind.OPENING, self._event("response.content_part.added", **self._place(), part=_text_part("")))

    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self._plan.id}", "output_index": self._first, "content_index": 0}

    def texts(self) -> Iterator[Event]:
        """The events with text, or with the arguments of function calls, and what is steered in between."""
        plan, steering = self._plan, self._plan.steering
        hidden = plan.output_tokens - plan.visible_tokens
        pings, empties, size = steering.pings, steering.empty_deltas, plan.chunk_tokens
        for first in range(0, plan.visible_tokens, size):
            count = min(size, plan.visible_tokens - first)
            if pings:
                pings -= 1
                yield Event(Kind.PING, PING)
            if empties:
                empties -= 1
                yield Event(Kind.PING, self.text(0, ""))
            text = plan.text(first, count, 0)
            data = self._arguments(text, first) if self._tools else self.text(0, text)
            yield Event(Kind.TEXT, data, count + (hidden if first == 0 else 0))

    def text(self, choice: int, text: str) -> bytes:
        """One event with text; there is but one choice."""
        del choice
        event = self._event("response.output_text.delta", **self._place(), delta=text)
        return event[: -len(b"}\n\n")] + self.after_text

    def _arguments(self, text: str, first: int) -> bytes:
        """An event for each call, with the same part of its arguments."""
        opening, closing = arguments_of("").split('""')
        last = first + self._plan.chunk_tokens >= self._plan.visible_tokens
        part = _encode(text).decode()[1:-1]
        part = (f'{opening}"' if first == 0 else "") + part + (f'"{closing}' if last else "")
        kind = "response.function_call_arguments.delta"
        return b"".join(
            self._event(kind, item_id=f"fc_{self._plan.id}{number}", output_index=self._first + number, delta=part)
            for number in range(self._tools)
        )

    def finish(self) -> Iterator[Event]:
        """The items as they ended."""
        plan = self._plan
        # With nothing to show, what was made unseen is billed here.
        unseen = plan.output_tokens if plan.visible_tokens == 0 else 0
        text = plan.text(0, plan.visible_tokens, 0)
        for number in range(self._tools):
            item = _call_item(plan, number, arguments_of(text))
            place = {"item_id": item["id"], "output_index": self._first + number}
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield Event(Kind.CLOSING, self._event("response.function_call_arguments.done", **place, **done))
            data = self._event("response.output_item.done", output_index=self._first + number, item=item)
            yield Event(Kind.CLOSING, data, unseen if number == 0 else 0)
        if not self._tools:
            part = _text_part(text)
            done_text = self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
            yield Event(Kind.CLOSING, done_text)
            yield Event(Kind.CLOSING, self._event("response.content_part.done", **self._place(), part=part))
            item = _message_item(plan, [part], "completed")
            data = self._event("response.output_item.done", output_index=self._first, item=item)
            yield Event(Kind.CLOSING, data, unseen)

    def usage(self, fault: str) -> Iterator[Event]:
        """There is no such event here; what a fault does to the figures, ``done`` does."""
        del fault
        yield from ()

    @property
    def done(self) -> bytes:
        """The last event, with the whole response and its usage."""
        plan, status = self._plan, _status(self._plan)
        kind = f"response.{status}"
        self._number += 1
        head = _encode({"type": kind, "sequence_number": self._number})[:-1]
        body = with_usage(plan, _response(plan, status), told_usage(plan))
        return b'event: %b\ndata: %b,"response":%b}\n\n' % (kind.encode(), head, body)

    @property
    def error(self) -> bytes:
        """An event that tells of an error."""
        return self._event("error", code="server_error", message="The simulator was asked to fail.", param=None)


# -- what was made before ----------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    """What is asked of a stored response."""

    id: str
    stored: _Stored
    status: str


def _stored(request: Request, id: str) -> _Stored:
    stored = request.kept.get(id)
    if not isinstance(stored, _Stored):
        raise AskInvalid(f"Response with id '{id[:64]}' not found.", "id", 404)
    return stored


def _look(kind: str, id: str, stored: _Stored) -> Ask:
    if stored.cancelled:
        status = "cancelled"
    else:
        status = "in_progress" if stored.looks_left > 0 else _status(stored.plan)
    return Ask(kind, stored.plan.ask.model, "", 0, facts=_Look(id, stored, status))


def read_look(request: Request, id: str) -> Ask:
    """Look at a response; one in the background gets on with every look."""
    stored = _stored(request, id)
    ask = _look("response.get", id, stored)
    stored.looks_left = max(0, stored.looks_left - 1)
    return ask._replace(stream="true" in parse_qs(request.query).get("stream", ()))


def read_items(request: Request, id: str) -> Ask:
    """Look at what a response was made from."""
    return _look("response.items", id, _stored(request, id))


def read_cancel(request: Request, id: str) -> Ask:
    """Cancel a response that is not done yet."""
    stored = _stored(request, id)
    facts = _facts(stored.plan)
    if facts is None or not facts.asked.background:
        raise AskInvalid("Cannot cancel a synchronous response.", "id")
    stored.cancelled = stored.cancelled or stored.looks_left > 0
    return _look("response.cancel", id, stored)


def read_delete(request: Request, id: str) -> Ask:
    """Forget a response."""
    stored = _stored(request, id)
    del request.kept[id]
    return _look("response.delete", id, stored)


def answer_look(plan: Plan) -> bytes:
    """A stored response; its usage is told once it has ended, in whichever way."""
    look: _Look = plan.ask.facts
    made = look.stored.plan
    body = _response(made, look.status)
    if look.status == "in_progress":
        return _encode({**body, "usage": None})
    return with_usage(made, body, told_usage(made))


def events_of_look(plan: Plan) -> Iterator[Event]:
    """All events of a stored response once more, without the faults of the first time."""
    look: _Look = plan.ask.facts
    made = look.stored.plan
    return told(made._replace(steering=msgspec.structs.replace(made.steering, fault="")), _Writer(made))


def answer_items(plan: Plan) -> bytes:
    """The texts of the input, one message each."""
    look: _Look = plan.ask.facts
    facts = _facts(look.stored.plan)
    data = [
        {
            "id": f"msg_{look.stored.plan.id}{number}",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }
        for number, text in enumerate(facts.texts if facts is not None else ())
    ]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return _encode({"object": "list", "data": data, **ends, "has_more": False})


def answer_delete(plan: Plan) -> bytes:
    """It is gone."""
    look: _Look = plan.ask.facts
    return _encode({"id": look.id, "object": "response", "deleted": True})


def no_usage(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """A look costs nothing."""
    del plan, delivered
    return {}
