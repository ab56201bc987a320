"""Which other names a model's price may be listed under.

A price is looked up by the model that a deployment is declared to hold, then by the one that was asked for, then by the
one that answered (``price_names``), and each of them as it is written before it is read as a spelling of another
(``spellings``). A fine-tuned model never takes the price of the model that it was made from, which is cheaper. Pure
text: what is listed is known elsewhere.
"""

import re
from typing import Final

#: Azure writes gpt-35-turbo, and several price lists write gpt-5-4 for gpt-5.4.
_DASHED_VERSION: Final = re.compile(r"^((?:ft:)?gpt-)(?:(3)(5)(?=-turbo)|(\d)-(\d)(?=-|$))")

#: ``ft:gpt-4o-2024-08-06:acme::abc`` at OpenAI, ``gpt-4o-2024-08-06.ft-abc`` at Azure.
_TUNED: Final = re.compile(r"^ft:([^:]+)|^(.+?)\.ft-")

#: What dates or versions a name: -2024-08-06, -20240806, @20240806, -0613, -001, -preview-09-2025, -latest.
_DATED: Final = re.compile(r"(?:[-@](?:20\d{2}-?\d{2}-?\d{2})|-preview-\d{2}-(?:20)?\d{2}|-\d{3,4}|-latest)$")

#: What Azure's catalogue calls models that OpenAI sells under another name.
_AZURE_NAMES: Final = {"whisper": "whisper-1", "tts": "tts-1", "tts-hd": "tts-1-hd", "dalle3": "dall-e-3"}

#: Longer names are of no model.
NAME_LENGTH_MAX: Final = 256


def price_names(declared: str, requested: str = "", answered: str = "") -> tuple[str, ...]:
    """All names to look a price up by, in order: of the deployment, of the request, of the answer."""
    names = (name for model in (declared, requested, answered) if model for name in spellings(model))
    return tuple(dict.fromkeys(names))


def spellings(model: str) -> tuple[str, ...]:
    """A model's name in small letters, and what it is a spelling of, the closest first."""
    name = model.lower()[:NAME_LENGTH_MAX]
    plain = _plain(name)
    found = [name, plain, _respelled(plain)]
    # A name may have a date and a version at once.
    for _ in range(2):
        plain = _DATED.sub("", plain)
        found += [plain, _respelled(plain)]
    return tuple(dict.fromkeys(each for each in found if each and each != "ft:"))


def usual(model: str) -> str:
    """A model's name as its maker spells it, with its date if it has one."""
    return _respelled(_plain(model.lower()[:NAME_LENGTH_MAX]))


def is_tuned(name: str) -> bool:
    """Whether a name is that of a fine-tuned model."""
    return _TUNED.match(name.lower()) is not None


def _plain(name: str) -> str:
    """Without the provider before it and what an account calls its tuning."""
    tuned = _TUNED.match(name)
    if tuned:
        return f"ft:{tuned[1] or tuned[2]}"
    name = name.rpartition("/")[2]
    return _AZURE_NAMES.get(name, name)


def _respelled(name: str) -> str:
    return _DASHED_VERSION.sub(_with_points, name)


def _with_points(match: re.Match[str]) -> str:
    start, *digits = match.groups()
    return start + ".".join(digit for digit in digits if digit)
