"""The words the simulator answers with, and the rule by which it counts a prompt. Pure; knows no wire format.

Every word below is one token of ``cl100k_base`` and of ``o200k_base``, alone and after a space, so that an answer of
``N`` visible tokens is also counted as ``N`` by a tokenizer that only sees its text.
"""

_TEXT = (
    "the of and to in is that it was for on are as with they at be this have from or one had by word but not what all "
    "were we when your can said there use an each which she do how their if will up other about out many then them "
    "these so some her would make like him into time has look two more write go see number no way could people my than "
    "first water been call who oil its now find"
)
WORDS = _TEXT.split()

_SPACED = [" " + word for word in WORDS]
_ROUND = "".join(_SPACED)

#: Each choice starts this many words further on, so that the answers to ``n`` choices differ.
CHOICE_STEP = 7

#: A prompt's text counts one token per word, and never less than one per sixteen bytes.
BYTES_PER_TOKEN_MAX = 16
MESSAGE_TOKENS = 4
REPLY_TOKENS = 3
IMAGE_TOKENS = 85


def piece(first: int, count: int, choice: int = 0) -> str:
    """Tokens ``first`` to ``first + count`` of a choice's endless text; the very first has no space before it."""
    begin = (first + CHOICE_STEP * choice) % len(WORDS)
    rounds, rest = divmod(begin + count, len(WORDS))
    if rounds == 0:
        text = "".join(_SPACED[begin:rest])
    else:
        text = "".join(_SPACED[begin:]) + _ROUND * (rounds - 1) + "".join(_SPACED[:rest])
    return text[1:] if first == 0 else text


def count(text: str) -> int:
    """Tokens of a text: its words, or a sixteenth of its UTF-8 bytes rounded up, whichever is more."""
    size = len(text) if text.isascii() else len(text.encode())
    return max(len(text.split()), -(-size // BYTES_PER_TOKEN_MAX))
