"""OpenAI's images: generations, edits and variations, plain and as streams of partial images. Pure.

Models with ``dall-e`` in their name are billed by the image and report nothing; all others report tokens, of which each
image has as many as an answer has output tokens. (OpenAI, "API reference: Images" and its streaming events.)
"""

from base64 import b64encode
from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from faregate.simulator import wording
from faregate.simulator.asks import Ask, AskInvalid, decoded
from faregate.simulator.events import PING, Event, Kind, told
from faregate.simulator.forms import form_of
from faregate.simulator.http1 import Request
from faregate.simulator.plan import CREATED, Plan
from faregate.simulator.shapes import with_usage
from faregate.simulator.sounds import png

_encode = msgspec.json.Encoder().encode
_ABSENT = Raw()

PARTIAL_IMAGE_TOKENS: Final = 100
INPUT_IMAGE_TOKENS: Final = 85
_SIDE: Final = 8


class _Generate(Struct, forbid_unknown_fields=True):
    prompt: str
    model: str = ""
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: str | None = None
    quality: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    response_format: str | None = None
    background: Raw = _ABSENT
    moderation: Raw = _ABSENT
    output_compression: Raw = _ABSENT
    output_format: Raw = _ABSENT
    safety_identifier: Raw = _ABSENT
    style: Raw = _ABSENT
    user: Raw = _ABSENT


_decode = msgspec.json.Decoder(_Generate).decode


class _Facts(NamedTuple):
    """What only this speaker looks at."""

    operation: str
    size: str
    quality: str
    #: Pictures that came with the request, and text tokens, both read once for each image made.
    images: int
    text_tokens: int
    partial: int
    as_url: bool


def read(request: Request, name: str) -> Ask:
    """What a request for new images asks."""
    asked = decoded(_decode, request.body)
    facts = _Facts(
        "image_generation",
        asked.size or "auto",
        asked.quality or "auto",
        0,
        wording.count(asked.prompt),
        asked.partial_images or 0,
        asked.response_format == "url",
    )
    return _ask(asked.model or name, asked.prompt, asked.n or 1, bool(asked.stream), facts)


def read_edit(request: Request, name: str) -> Ask:
    """What a request for changed images asks."""
    return _read_form(request, name, "image_edit")


def read_variation(request: Request, name: str) -> Ask:
    """What a request for variations asks."""
    return _read_form(request, name, "image_variation")


def _read_form(request: Request, name: str, operation: str) -> Ask:
    form = form_of(request)
    if "image" not in form.files:
        raise AskInvalid("Missing required parameter: 'image'.", "image")
    prompt = form.field("prompt")
    if not prompt and operation == "image_edit":
        raise AskInvalid("Missing required parameter: 'prompt'.", "prompt")
    facts = _Facts(
        operation,
        form.field("size", "auto"),
        form.field("quality", "auto"),
        sum(len(form.files.get(field, ())) for field in ("image", "mask")),
        wording.count(prompt),
        form.whole("partial_images", 0, 3) or 0,
        form.field("response_format") == "url",
    )
    streamed = form.field("stream").lower() == "true"
    return _ask(form.field("model", name) or name, prompt, form.whole("n", 1, 10) or 1, streamed, facts)


def _ask(model: str, prompt: str, n: int, stream: bool, facts: _Facts) -> Ask:
    if not model:
        raise AskInvalid("you must provide a model parameter", "model")
    tokens = (facts.text_tokens + facts.images * INPUT_IMAGE_TOKENS) * n
    return Ask(facts.operation, model, prompt, tokens, None, n, n, stream, facts=facts)


def _facts(plan: Plan) -> _Facts:
    facts = plan.ask.facts
    return facts if isinstance(facts, _Facts) else _Facts("image_generation", "auto", "auto", 0, 1, 0, False)


def _by_image(plan: Plan) -> bool:
    return "dall-e" in plan.ask.model


def usage(plan: Plan, delivered: int | None) -> dict[str, Any]:
    """The true usage: tokens, or the images with their size and quality."""
    facts = _facts(plan)
    if _by_image(plan):
        return {"images": plan.ask.choices, "size": facts.size, "quality": facts.quality}
    return _tokens(plan, plan.ask.choices, delivered)


def _tokens(plan: Plan, images: int, delivered: int | None = None) -> dict[str, Any]:
    """The tokens of so many images."""
    facts = _facts(plan)
    outgoing = images * (plan.output_tokens + facts.partial * PARTIAL_IMAGE_TOKENS) if delivered is None else delivered
    pictures = images * facts.images * INPUT_IMAGE_TOKENS
    incoming = plan.prompt_tokens * images // plan.ask.choices
    return {
        "input_tokens": incoming,
        "input_tokens_details": {"image_tokens": pictures, "text_tokens": incoming - pictures},
        "output_tokens": outgoing,
        "total_tokens": incoming + outgoing,
    }


def answer(plan: Plan) -> bytes:
    """A whole answer with all its images."""
    facts = _facts(plan)
    data = [_image(plan, number, facts.as_url and _by_image(plan)) for number in range(plan.ask.choices)]
    body: dict[str, Any] = {"created": CREATED, "data": data}
    if _by_image(plan):
        return _encode(body)
    body |= {"background": "opaque", "output_format": "png", "quality": facts.quality, "size": facts.size}
    return with_usage(plan, body, _tokens(plan, plan.ask.choices))


def _image(plan: Plan, number: int, as_url: bool) -> dict[str, Any]:
    if as_url:
        return {"url": f"https://images.invalid/{plan.id}/{number}.png"}
    return {"b64_json": _picture(number)}


def _picture(number: int) -> str:
    return b64encode(png(_SIDE, 40 * number + 20)).decode()


def events(plan: Plan) -> Iterator[Event]:
    """All events of a stream: partial images, and each image as it is done, with its own usage."""
    return told(plan, _Writer(plan))


class _Writer:
    """See ``events.Writer``; an image that is done tells its usage, so there is no event of usage alone."""

    after_text = b'"}\n\n'
    ping = PING
    error = b'event: error\ndata: {"type":"error","error":{"code":"server_error","message":"Asked to fail."}}\n\n'

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._facts = _facts(plan)

    def _event(self, kind: str, **members: Any) -> bytes:
        facts = self._facts
        name = f"{facts.operation}.{kind}"
        shared = {"created_at": CREATED, "background": "opaque", "output_format": "png", "quality": facts.quality}
        data = _encode({"type": name, **shared, "size": facts.size, **members})
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    def opening(self) -> Iterator[Event]:
        """Nothing comes before the first image."""
        yield from ()

    def texts(self) -> Iterator[Event]:
        """The partial images of each image, and those that are done, but for the last."""
        for number in range(self._plan.ask.choices):
            for part in range(self._facts.partial):
                data = self._event("partial_image", partial_image_index=part, b64_json=_picture(part))
                yield Event(Kind.TEXT, data, PARTIAL_IMAGE_TOKENS)
            if number < self._plan.ask.choices - 1:
                yield Event(Kind.TEXT, self._done(number), self._plan.output_tokens)

    def text(self, choice: int, text: str) -> bytes:
        """A partial image that is none."""
        return self._event("partial_image", partial_image_index=choice, b64_json=text)

    def finish(self) -> Iterator[Event]:
        """Nothing comes between the images and the last one."""
        yield from ()

    def usage(self, fault: str) -> Iterator[Event]:
        """There is no such event here."""
        del fault
        yield from ()

    def _done(self, number: int) -> bytes:
        head = self._event("completed", b64_json=_picture(number))
        return head[: -len(b"}\n\n")] + b',"usage":' + _encode(_tokens(self._plan, 1)) + b"}\n\n"

    @property
    def done(self) -> bytes:
        """The last image."""
        plan, name = self._plan, f"{self._facts.operation}.completed"
        body = {"type": name, "created_at": CREATED, "size": self._facts.size, "quality": self._facts.quality}
        body |= {"background": "opaque", "output_format": "png", "b64_json": _picture(plan.ask.choices - 1)}
        return b"event: %b\ndata: %b\n\n" % (name.encode(), with_usage(plan, body, _tokens(plan, 1)))
