"""OpenAI images (generations, edits, variations): what a call asks, what an answer and its stream say they used.

Two ways of billing share this format, and only the price of the model tells which: by image, size and quality (DALL·E),
which the request alone decides, and by tokens (GPT Image), which the answer reports. So a call says both: ``declared``
images, and the most tokens that they can be.

Facts from OpenAI's API reference (images) and its guide "Image generation", calculating costs.
"""

import re
from typing import Final

from faregate.core.call import IMAGE_IN, IMAGE_OUT, Call
from faregate.core.metering.meter import Event, Report
from faregate.core.usage import Contradiction, Measure, Usage, added, measures
from faregate.dialects import fields, forms, media_usage
from faregate.dialects.forms import Form
from faregate.dialects.jsonbody import Members, members
from faregate.dialects.quoting import echo, expected, missing, unbounded
from faregate.errors import Problem

GENERATIONS: Final = "images.generations"
EDITS: Final = "images.edits"
VARIATIONS: Final = "images.variations"

IMAGES_MAX: Final = 10
INPUT_IMAGES_MAX: Final = 16
#: Of a stream; each costs 100 tokens more.
PARTIAL_IMAGES_MAX: Final = 3
PARTIAL_IMAGE_TOKENS: Final = 100
#: Frames of a GIF, and how many there are where nobody says.
FRAMES_MAX: Final = 16
FRAMES: Final = 9

#: Tokens of an image by its quality and orientation, as GPT Image 1, 1.5 and mini make it: square, wide, tall.
_TABLE: Final = {"low": (272, 400, 408), "medium": (1056, 1568, 1584), "high": (4160, 6208, 6240)}
#: GPT Image 2 and later take any size; along its longer edge an image then has this many patches. Of models that
#: differ the largest: 2 has 16, 48 and 96 for low, medium and high; 2.5 fewer but for ``max``; 2.6 up to 48 for low.
_PATCHES: Final = {"low": 48, "medium": 48, "high": 96, "xhigh": 96, "max": 96}
_PATCHES_MAX: Final = 96
#: The largest square that any model makes; wider or taller ones of as many pixels have fewer tokens.
_LARGEST: Final = (2880, 2880)

#: An image in the prompt. No table covers all models; a photograph of 12 megapixels is 14,364 tokens where they are the
#: most (126 × 95 patches of 32 pixels, 1.2 tokens each), and larger ones are scaled down.
INPUT_IMAGE_TOKENS_MAX: Final = 16_384

_SIZE: Final = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})")
_VARIANT_CHARACTERS_MAX: Final = 64

#: Members that are read below or that cost nothing beyond their bytes; any other gets a closer look.
_COMMON: Final = frozenset(
    """
    model prompt n size quality user safety_identifier stream partial_images output_format frame_count background
    response_format output_compression moderation style
    """.split()
)

#: Fields of which there can be only one reading.
_SINGLE: Final = frozenset(
    """
    model prompt n size quality user safety_identifier stream partial_images output_format frame_count background
    response_format output_compression moderation input_fidelity complexity style mask markup svg service_tier
    """.split()
)


class _Asked:
    """The fields of a request, whichever way they came."""

    __slots__ = ("frames", "image_format", "n", "partial", "quality", "size", "stream")

    def __init__(self) -> None:
        self.n = 1
        self.size = ""
        self.quality = ""
        self.stream = False
        self.partial = 0
        self.image_format = ""
        self.frames = 0


def read(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What a call for new images asks (JSON), or why it is refused."""
    del forbid_private_urls  # This format holds no addresses; the argument is every dialect's.
    found = members(body, "prompt")
    if isinstance(found, Problem):
        return found
    if not _COMMON.issuperset(found):
        problem = fields.steering(found) or fields.refuse_present(found, _FEATURES)
        if problem is not None:
            return problem
    name = model or fields.name(found.get("model"), "model")
    if isinstance(name, Problem):
        return name
    if "prompt" not in found:
        return missing("prompt", "a description of the images")
    asked = _from_members(found)
    if isinstance(asked, Problem):
        return asked
    user = fields.end_user(found)
    if isinstance(user, Problem):
        return user
    tier = fields.service_tier(found)
    if isinstance(tier, Problem):
        return tier
    return _call(GENERATIONS, name, asked, user, len(body), 0, tuple(found))._replace(service_tier=tier)


_FEATURES: Final = {"svg": ("drawings by another model", "ask for png, jpeg or webp")}


def read_edit(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What a call for changed images asks (a form), or why it is refused."""
    del forbid_private_urls
    return _read_form(EDITS, body, model)


def read_variation(body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
    """What a call for variations of an image asks (a form), or why it is refused."""
    del forbid_private_urls
    return _read_form(VARIATIONS, body, model)


def _read_form(operation: str, body: bytes, model: str) -> Call | Problem:
    found = forms.opened(body, model, _SINGLE)
    if isinstance(found, Problem):
        return found
    form, name = found
    images = [*form.named("image"), *form.named("mask"), *form.named("markup")]
    if not form.named("image"):
        return missing("image", "an image file")
    if len(images) > INPUT_IMAGES_MAX + 2:
        return expected("field_range", "image", f"at most {INPUT_IMAGES_MAX} images", str(len(images)))
    asked = _from_form(form, body)
    if isinstance(asked, Problem):
        return asked
    user = forms.end_user(form, body)
    if isinstance(user, Problem):
        return user
    text = len(body) - sum(part.size for part in images)
    return _call(operation, name, asked, user, text, len(images), form.names)


def _from_members(found: Members) -> _Asked | Problem:
    asked = _Asked()
    counts = {"n": 1, "partial_images": 0, "frame_count": 0}
    for path, most in (("n", IMAGES_MAX), ("partial_images", PARTIAL_IMAGES_MAX), ("frame_count", FRAMES_MAX)):
        if path in found:
            told = fields.count(found[path], path, 1 if path == "n" else 0, most)
            if isinstance(told, Problem):
                return told
            counts[path] = counts[path] if told is None else told
    asked.n, asked.partial, asked.frames = counts.values()
    texts: list[str] = []
    for path in ("size", "quality", "output_format"):
        text = fields.text(found[path], path) if path in found else ""
        if isinstance(text, Problem):
            return text
        texts.append(text or "")
    asked.size, asked.quality, asked.image_format = texts
    if "stream" in found:
        streamed = fields.flag(found["stream"], "stream")
        if isinstance(streamed, Problem):
            return streamed
        asked.stream = streamed
    return _checked(asked)


def _from_form(form: Form, body: bytes) -> _Asked | Problem:
    asked = _Asked()
    counts = {"n": 1, "partial_images": 0, "frame_count": 0}
    for path, most in (("n", IMAGES_MAX), ("partial_images", PARTIAL_IMAGES_MAX), ("frame_count", FRAMES_MAX)):
        told = forms.count(form, body, path, 1 if path == "n" else 0, most)
        if isinstance(told, Problem):
            return told
        counts[path] = counts[path] if told is None else told
    asked.n, asked.partial, asked.frames = counts.values()
    texts: list[str] = []
    for path in ("size", "quality", "output_format"):
        text = forms.text(form, body, path)
        if isinstance(text, Problem):
            return text
        texts.append(text or "")
    asked.size, asked.quality, asked.image_format = texts
    if form.named("svg"):
        return unbounded("svg", *_FEATURES["svg"])
    streamed = forms.flag(form, body, "stream")
    if isinstance(streamed, Problem):
        return streamed
    asked.stream = streamed
    return _checked(asked)


def _checked(asked: _Asked) -> _Asked | Problem:
    for path, value in (("size", asked.size), ("quality", asked.quality), ("output_format", asked.image_format)):
        if len(value) > _VARIANT_CHARACTERS_MAX or not value.isprintable() or "/" in value:
            return expected("field_range", path, f"at most {_VARIANT_CHARACTERS_MAX} plain characters", echo(value))
    if asked.image_format == "svg":
        # Another model writes it, of the caller's choice and at prices of its own.
        return unbounded("output_format", *_FEATURES["svg"])
    if asked.image_format == "gif":
        asked.frames = asked.frames or FRAMES
    return asked


def _call(
    operation: str, name: str, asked: _Asked, user: str, text_bytes: int, images: int, names: tuple[str, ...]
) -> Call:
    """The call; ``text_bytes`` bound the tokens of its text, which is read once for each image made."""
    each = image_tokens_max(asked.size, asked.quality) * max(1, asked.frames)
    return Call(
        operation,
        name,
        stream=asked.stream,
        choices=asked.n,
        output_cap=each,
        input_tokens_max=(text_bytes + images * INPUT_IMAGE_TOKENS_MAX) * asked.n,
        extra_output_tokens=asked.partial * PARTIAL_IMAGE_TOKENS * asked.n,
        end_user=user,
        members=names,
        media=(IMAGE_IN if images else 0) | IMAGE_OUT,
        declared=(Measure("images", variant(asked.size, asked.quality), asked.n),),
        sealed=True,
    )


def variant(size: str, quality: str) -> str:
    """How prices name an image: ``1024x1024/hd``; of standard quality the size alone, as it is the default's name."""
    told = size if size not in ("", "auto") else "1024x1024"
    return told if quality in ("", "auto", "standard") else f"{told}/{quality}"


def image_tokens_max(size: str, quality: str) -> int:
    """The most output tokens of one image at any model; unknown and automatic sizes and qualities are the dearest."""
    found = _SIZE.fullmatch(size)
    width, height = (int(found[1]), int(found[2])) if found is not None else _LARGEST
    patches = _PATCHES.get(quality, _PATCHES_MAX)
    longer, shorter = max(width, height), min(width, height)
    across = (2 * patches * shorter + longer) // (2 * longer)
    tokens = -(-patches * across * (2_000_000 + width * height) // 4_000_000)
    square, wide, tall = _TABLE.get(quality, _TABLE["high"])
    return max(tokens, square if width == height else wide if width > height else tall)


# -- answers -----------------------------------------------------------------------------------------------------------


def usage_of(body: bytes) -> Report:
    """What a whole answer reports; nothing where it is billed by image."""
    answer = media_usage.read(body)
    if answer is None:
        return media_usage.report(None, None)
    usage, unknown = media_usage.leaves(answer.usage, "image")
    return media_usage.report(answer, usage, unknown + (answer.svg_usage is not None))


def counted_images(body: bytes, call: Call) -> Usage:
    """The most that images may have used, for servers that bill tokens and do not say them."""
    del body
    made = (call.output_cap or 0) * call.choices + call.extra_output_tokens
    return Usage(call.input_tokens_max, other=measures((Measure("output_image_tokens", "", made),)))


def answer_text(body: bytes) -> str:
    """Images hold no billed text."""
    del body
    return ""


def prompt_text(body: bytes) -> list[str]:
    """The texts of a request that the model reads; of a form, its fields. Images are counted as overhead."""
    if body[:2] != b"--":
        found = members(body, "prompt")
        text = fields.text(found["prompt"], "prompt") if isinstance(found, dict) and "prompt" in found else None
        return [text] * _times(body) if isinstance(text, str) else []
    form = forms.parse(body)
    told = forms.text(form, body, "prompt") if isinstance(form, Form) else None
    return [told] * _times(body) if isinstance(told, str) else []


def prompt_tokens_overhead(body: bytes) -> int:
    """Upper bound of the input tokens beyond those of the prompt: its framing, and images, for each image made."""
    form = forms.parse(body)
    images = sum(len(form.named(name)) for name in ("image", "mask", "markup")) if isinstance(form, Form) else 0
    return (_FRAMING_TOKENS + images * INPUT_IMAGE_TOKENS_MAX) * _times(body)


#: Around a prompt; six have been seen.
_FRAMING_TOKENS: Final = 32


def _times(body: bytes) -> int:
    """How many images are made, each of which reads the prompt."""
    read_it = read if body[:2] != b"--" else read_edit
    call = read_it(body, "any")
    return call.choices if isinstance(call, Call) else 1


class ImageEvents:
    """Understands the events of one stream; see ``EventDecoder``. Each image that is done reports its own usage."""

    __slots__ = ("_so_far", "_unknown")

    def __init__(self) -> None:
        self._so_far = Usage()
        self._unknown = 0

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """No event says nothing but text."""
        del payloads
        return None

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says."""
        answer = media_usage.read(payload)
        if answer is None:
            return Event(malformed=True)
        model, id = media_usage.named(answer)
        if answer.error is not None or answer.type == "error":
            return Event(error=True, model=model, id=id)
        told, unknown = media_usage.leaves(answer.usage, "image")
        if told is None:
            return Event(model=model, id=id)
        self._unknown += unknown
        if isinstance(told, Contradiction):
            return Event(usage=told, finished=1, model=model, id=id, unknown=self._unknown)
        self._so_far = added(self._so_far, told)
        return Event(usage=self._so_far, finished=1, model=model, id=id, unknown=self._unknown)
