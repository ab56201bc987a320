"""What a request carries besides text: images, audio and files, and what they add to the bound of a call.

An ``Attached`` collects over all parts of one request. An image costs at most what the dearest documented one does; a
recording at most a token a byte where its bytes prove that, and a model's whole context where they do not; a file is
bounded by nothing but the context. Shared by the formats of OpenAI, which spell these parts differently but mean the
same. Knows no top-level member of any format.
"""

import binascii
from typing import Any, Final

from faregate.core.call import AUDIO_IN, IMAGE_IN
from faregate.dialects import urls
from faregate.dialects.quoting import expected
from faregate.errors import Problem

#: The dearest documented image: gpt-4o-mini, high detail, eight tiles of 512 pixels: 2,833 + 8 × 5,667 tokens
#: (OpenAI, "Images and vision", calculating costs). Low detail costs that model its base amount alone.
IMAGE_TOKENS_MAX: Final = 48_169
LOW_DETAIL_IMAGE_TOKENS_MAX: Final = 2_833

#: More objects of the provider's in one call are a mistake; each has to be looked up.
OBJECTS_MAX: Final = 512
ID_CHARACTERS_MAX: Final = 256

#: Enough base64 for the header of a WAV file, whose first chunk says how it is sampled.
_HEADER_CHARACTERS: Final = 64
#: Slower sampling than a telephone's has no honest use, and would put more seconds into a byte than we count.
_SAMPLE_RATE_MIN: Final = 4_000
#: PCM, floating point, A-law, µ-law, and the extensible form of these: at least a byte for every sample.
_WAV_FORMATS: Final = frozenset((1, 3, 6, 7, 0xFFFE))


class Attached:
    """What the parts of one request add up to."""

    __slots__ = ("forbid_private_urls", "images", "media", "objects", "tokens", "whole_context")

    def __init__(self, forbid_private_urls: bool) -> None:
        self.forbid_private_urls = forbid_private_urls
        #: Tokens to add to the bytes of the body; negative where bytes are pictures.
        self.tokens = 0
        #: Bits of ``Call.media``.
        self.media = 0
        #: Something is read that is not in the body.
        self.whole_context = False
        #: Ids of what the provider keeps, in the order of their first mention.
        self.objects: list[str] = []
        self.images = 0

    def image(self, url: Any, low_detail: bool, where: str) -> Problem | None:
        """Take an image by its address; ``where`` names the member that holds it."""
        if not isinstance(url, str):
            return expected("field_type", where, "a string", "something else")
        tokens = LOW_DETAIL_IMAGE_TOKENS_MAX if low_detail else IMAGE_TOKENS_MAX
        if url[:5].lower() == "data:":
            wrong = urls.data_url_problem(url)
            if wrong:
                return expected("field_range", where, "an image as base64", wrong, "encode it again")
            # The picture's bytes are no text, so they are not counted as such.
            tokens -= len(url)
        elif self.forbid_private_urls and not urls.is_public_https(url):
            return _private(where, "image")
        self.tokens += tokens
        self.media |= IMAGE_IN
        self.images += 1
        return None

    def stored_image(self, id: Any, low_detail: bool, where: str) -> Problem | None:
        """Take an image that the provider keeps."""
        self.tokens += LOW_DETAIL_IMAGE_TOKENS_MAX if low_detail else IMAGE_TOKENS_MAX
        self.media |= IMAGE_IN
        self.images += 1
        return self.named(id, where)

    def audio(self, data: Any, where: str) -> Problem | None:
        """Take a recording as base64; its length counts as tokens, of which a second has ten.

        (OpenAI, "Realtime: managing costs": one token for every 100 ms of what is heard.)
        """
        if not isinstance(data, str):
            return expected("field_type", where, "a recording as base64", "something else")
        self.media |= AUDIO_IN
        if not _at_most_a_token_a_byte(data):
            self.whole_context = True
        return None

    def stored_audio(self, id: Any, where: str) -> Problem | None:
        """Take an earlier recording by its id."""
        self.media |= AUDIO_IN
        self.whole_context = True
        return self.named(id, where)

    def file(self, id: Any, url: Any, where: str) -> Problem | None:
        """Take a file: sent along, kept by the provider, or fetched by it. Its pages may be read as pictures."""
        self.media |= IMAGE_IN
        self.whole_context = True
        if url is not None:
            if not isinstance(url, str):
                return expected("field_type", where, "a string", "something else")
            if self.forbid_private_urls and not urls.is_public_https(url):
                return _private(where, "file")
        return None if id is None else self.named(id, where)

    def named(self, id: Any, where: str) -> Problem | None:
        """Take the id of something that the provider keeps."""
        if not isinstance(id, str):
            return expected("field_type", where, "an id", "something else")
        if not 0 < len(id) <= ID_CHARACTERS_MAX or not id.isprintable():
            return expected("field_range", where, f"an id of 1 to {ID_CHARACTERS_MAX} characters", "something else")
        if id not in self.objects:
            if len(self.objects) >= OBJECTS_MAX:
                return expected("field_range", where, f"at most {OBJECTS_MAX} ids of kept objects in a call", "more")
            self.objects.append(id)
        return None


def _private(where: str, what: str) -> Problem:
    rule = f"{where}: only public https URLs are allowed; send the {what} as a data URL."
    if what == "file":
        rule = f"{where}: only public https URLs are allowed; send the file itself as file_data."
    return Problem("url_forbidden", rule, param=where)


def _at_most_a_token_a_byte(data: str) -> bool:
    """Whether a recording surely has at least ten bytes of base64 for every second.

    WAV has, unless its header claims an absurd sample rate. MP3 has by its construction: a frame is at most 72 ms long
    and has at least 21 bytes. Of anything else nothing is known.
    """
    try:
        head = binascii.a2b_base64(data[:_HEADER_CHARACTERS].encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    if head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt ":
        return (
            int.from_bytes(head[20:22], "little") in _WAV_FORMATS
            and int.from_bytes(head[24:28], "little") >= _SAMPLE_RATE_MIN
            and int.from_bytes(head[34:36], "little") >= 8
        )
    if len(head) < 3 or head[0] != 0xFF:
        return False
    # Eleven bits of synchronisation, then a version and a bit rate that exist, and layer III between them.
    return head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08 and 0 < head[2] >> 4 < 15
