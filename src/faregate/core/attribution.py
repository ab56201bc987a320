"""Who asks and what is used: the dimensions that a request is charged, limited and reported by.

Every field is a plain string and the empty string means "not known". Payers are known by name, keys and limits by id.
The order of fields is part of the journal's format: add new ones at the end, with a default.
"""

from typing import NamedTuple

#: The dimensions a limit may select on or count each value of, besides ``tag.NAME``.
DIMENSIONS = (
    "organization",
    "team",
    "project",
    "user",
    "end_user",
    "key",
    "product",
    "stage",
    "run",
    "model",
    "deployment",
    "provider",
    "service",
)

TAG_PREFIX = "tag."

#: Tags that hold what a caller calls the event, and each of the facts that he told of it.
EVENT_ID = "event_id"
METADATA_PREFIX = "metadata."


class Attribution(NamedTuple):
    """The dimensions of one exchange."""

    organization: str = ""
    team: str = ""
    project: str = ""
    user: str = ""
    end_user: str = ""
    key: str = ""
    product: str = ""
    stage: str = ""
    run: str = ""
    model: str = ""
    deployment: str = ""
    provider: str = ""
    #: The operation asked for, such as ``chat.completions``; a named service for calls through ``/services``.
    service: str = ""
    #: Free ``(name, value)`` pairs, sorted by name.
    tags: tuple[tuple[str, str], ...] = ()
    #: Where ``end_user`` came from: ``header``, ``body`` or empty.
    identity_source: str = ""


def dimension(who: Attribution, name: str) -> str:
    """The value of one dimension or tag of ``who``; the empty string where it has none.

    Raises:
        AttributeError: ``name`` is neither a dimension nor ``tag.NAME``.
    """
    if name.startswith(TAG_PREFIX):
        wanted = name[len(TAG_PREFIX) :]
        return next((value for tag, value in who.tags if tag == wanted), "")
    value: str = getattr(who, name)
    return value
