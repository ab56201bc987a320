"""How many input tokens a picture has, by the rules that OpenAI published for each family of models.

Source: https://developers.openai.com/api/docs/guides/images-vision, "Calculating costs". There are two rules: by tiles
of 512 pixels after scaling, and by patches of 32 pixels times a factor of the model. The size of a picture is read from
the first bytes of a data URL, by an argument that knows the formats; nothing is ever fetched.
"""

import base64
import binascii
from collections.abc import Callable
from fractions import Fraction
from typing import Final, NamedTuple

#: The first bytes of a picture → its width and height, ``None`` where they do not tell.
SizeOf = Callable[[bytes], tuple[int, int] | None]


class PictureRule(NamedTuple):
    """What a picture costs one family of models: tiles where ``tile`` is given, else patches × ``factor``."""

    base: int = 0
    tile: int = 0
    factor: Fraction = Fraction(1)


TILE: Final = 512
#: A picture is first scaled into a square of this side, then until its shorter side has the second length.
SQUARE: Final = 2_048
SHORTER: Final = 768
PATCH: Final = 32
PATCHES_MAX: Final = 1_536
TILES_MAX: Final = 8

LIKE_4O: Final = PictureRule(85, 170)

#: Family → rule; a model belongs to the longest family that its name begins with, up to a dash.
RULES: Final = {
    "gpt-4o": LIKE_4O,
    "chatgpt-4o-latest": LIKE_4O,
    "gpt-4.1": LIKE_4O,
    "gpt-4.5-preview": LIKE_4O,
    "gpt-4-turbo": LIKE_4O,
    "gpt-4o-mini": PictureRule(2_833, 5_667),
    "gpt-4.1-mini": PictureRule(factor=Fraction(162, 100)),
    "gpt-4.1-nano": PictureRule(factor=Fraction(246, 100)),
    "gpt-5": PictureRule(70, 140),
    "gpt-5-mini": PictureRule(factor=Fraction(162, 100)),
    "gpt-5-nano": PictureRule(factor=Fraction(246, 100)),
    "o1": PictureRule(75, 150),
    "o3": PictureRule(75, 150),
    "o4-mini": PictureRule(factor=Fraction(172, 100)),
}

#: Enough of a file for the header that tells its size; JPEG may put a preview before it.
_HEAD_CHARACTERS: Final = 256 * 1024


def rule_of(model: str) -> PictureRule | None:
    """The rule of a model's family, ``None`` where none is known."""
    family = model.lower()
    while family and family not in RULES:
        family = family.rpartition("-")[0]
    return RULES.get(family)


def picture_tokens(rule: PictureRule, size: tuple[int, int] | None, low: bool) -> int:
    """Tokens of a picture of ``size`` (width, height); of the largest there can be where its size is not known."""
    if not rule.tile:
        patches = PATCHES_MAX if size is None else min(_parts(size[0], PATCH) * _parts(size[1], PATCH), PATCHES_MAX)
        scaled = patches * rule.factor
        return -(-scaled.numerator // scaled.denominator)
    if low:
        return rule.base
    return rule.base + rule.tile * (TILES_MAX if size is None else _tiles(*size))


def _tiles(width: int, height: int) -> int:
    """Tiles after scaling down; a picture that is smaller stays as it is."""
    scale = min(Fraction(1), Fraction(SQUARE, max(width, height)))
    scale *= min(Fraction(1), Fraction(SHORTER) / (scale * min(width, height)))
    return _parts(width * scale, TILE) * _parts(height * scale, TILE)


def _parts(length: Fraction | int, side: int) -> int:
    return max(1, -(-Fraction(length) // side))


def picture_size(url: str, size_of: SizeOf) -> tuple[int, int] | None:
    """Width and height of a picture in a data URL; ``None`` where it is elsewhere, damaged or of an unknown format."""
    head, comma, data = url[: _HEAD_CHARACTERS + 64].partition(",")
    if not comma or head[:5].lower() != "data:" or not head.lower().endswith(";base64"):
        return None
    try:
        raw = base64.b64decode(data[: len(data) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    return size_of(raw)
