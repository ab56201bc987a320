"""One bad input of the admin API: what is sent by whom, and how it must be answered.

A row whose status is 2xx is taken, and what it ``shows`` is in the answer. Paths and headers may hold ids of what is
there: ``{deleted}``, ``{foreign}`` of another organization's, ``{last}`` of the only key that looks after the
installation, and those that ``test_admin`` makes beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

API = "/api/v1"
KEYS = f"{API}/keys"

#: Stands in values that must not be repeated by a refusal.
CANARY = "VALUE-CANARY-c4ca4238"


class Row(NamedTuple):
    """One bad input and the answer it must get."""

    id: str
    method: str
    path: str
    #: Sent as JSON, bytes as they are, and ``None`` not at all.
    body: object
    status: int
    code: str = ""
    #: The field that is told to be at fault.
    field: str = ""
    has: str = ""
    #: Whose key is sent: ``admin`` of the installation, ``manager`` of a team who is restricted, ``auditor`` of an
    #: organization, ``caller``, an admin who is only ``near``; or none, by a ``stranger``.
    sender: str = "admin"
    headers: Mapping[str, str] = MappingProxyType({})
    #: A body that is sent before, and taken: nothing is made or changed after it.
    first: object = None
    #: What is in the answer of a row that is taken.
    shows: Mapping[str, Any] = MappingProxyType({})
