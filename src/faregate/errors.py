"""Every error that leaves Faregate, with its public code and status.

The tree of exceptions, for the shell (expected refusals of the core are values, see ``Problem``)::

    FaregateError
    ├── ConfigError            the configuration cannot be used             exit 2
    ├── UsageError             a command was called wrongly                 exit 2
    ├── NotFound               what was named does not exist                exit 1
    ├── Conflict               it exists already, or is in use              exit 1
    ├── Failed                 it was tried and did not work                exit 1
    │   └── JournalCorrupt     the journal holds bytes that no crash leaves
    ├── Unavailable            a part it needs does not answer              exit 3
    │   └── StorageFull        the disk takes no more
    └── Unsafe                 refused, because it would do harm            exit 4
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class FaregateError(Exception):
    """Base of all; ``code`` is public, the text is a sentence for a person and holds no secret."""

    code = "internal"
    exit_code = 1

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class ConfigError(FaregateError):
    """The configuration cannot be used; the message lists every problem, one a line."""

    code = "config_invalid"
    exit_code = 2


class UsageError(FaregateError):
    """A command or an API call was made wrongly."""

    code = "usage"
    exit_code = 2


class NotFound(FaregateError):
    """What was named does not exist, or not for this caller."""

    code = "not_found"


class Conflict(FaregateError):
    """It exists already, or something else holds it."""

    code = "conflict"


class Failed(FaregateError):
    """It was tried and did not work."""

    code = "failed"


class JournalCorrupt(Failed):
    """The journal holds bytes that no crash leaves behind."""

    code = "journal_corrupt"


class Unavailable(FaregateError):
    """A part that is needed does not answer."""

    code = "unavailable"
    exit_code = 3


class StorageFull(Unavailable):
    """The disk takes no more; nothing new is admitted until it does."""

    code = "storage_full"


class Unsafe(FaregateError):
    """Refused because it would do harm; the message names the way to allow it."""

    code = "refused"
    exit_code = 4


class Problem(NamedTuple):
    """A refusal or failure as a value: what a caller of the gateway is told.

    ``code`` is a key of ``CODES``; ``param`` is the JSON path, header or query parameter at fault; ``retry_after_s`` is
    the true wait where one exists; ``details`` becomes the ``faregate`` object of the error.
    """

    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    details: Mapping[str, Any] | None = None
    #: Overrides the status of ``CODES``, for codes that pass a provider's status on.
    status: int | None = None
    #: The connection cannot be used again after this answer.
    close: bool = False
    #: Name of the denial that the limit which refused wants to be told with; empty for the usual one.
    denial: str = ""


class CodeRule(NamedTuple):
    """Status, OpenAI ``type`` and whether a client should retry (``None``: say nothing)."""

    status: int
    type: str
    should_retry: bool | None = None


_INVALID = "invalid_request_error"

#: Public code → how it is told on the gateway port. Docs are generated from this table.
CODES: Mapping[str, CodeRule] = {
    "bad_framing": CodeRule(400, _INVALID),
    "host_invalid": CodeRule(400, _INVALID),
    "uri_invalid": CodeRule(400, _INVALID),
    "uri_too_long": CodeRule(414, _INVALID),
    "header_invalid": CodeRule(400, _INVALID),
    "header_too_large": CodeRule(431, _INVALID),
    "header_timeout": CodeRule(408, _INVALID),
    "method_not_allowed": CodeRule(405, _INVALID),
    "not_found": CodeRule(404, _INVALID),
    "operation_unmetered": CodeRule(404, _INVALID),
    "media_unsupported": CodeRule(415, _INVALID),
    "encoding_unsupported": CodeRule(415, _INVALID),
    "body_empty": CodeRule(400, _INVALID),
    "body_too_large": CodeRule(413, _INVALID),
    "body_timeout": CodeRule(408, _INVALID),
    "json_invalid": CodeRule(400, _INVALID),
    "json_utf8": CodeRule(400, _INVALID),
    "json_depth": CodeRule(400, _INVALID),
    "json_dup_key": CodeRule(400, _INVALID),
    "json_number": CodeRule(400, _INVALID),
    "form_invalid": CodeRule(400, _INVALID),
    "field_missing": CodeRule(400, _INVALID),
    "field_type": CodeRule(400, _INVALID),
    "field_range": CodeRule(400, _INVALID),
    "field_enum": CodeRule(400, _INVALID),
    "field_conflict": CodeRule(400, _INVALID),
    "field_unknown": CodeRule(400, _INVALID),
    "field_forbidden": CodeRule(403, "permission_error"),
    "url_forbidden": CodeRule(400, _INVALID),
    "feature_unbounded": CodeRule(400, _INVALID, False),
    "auth_missing": CodeRule(401, "authentication_error"),
    "auth_malformed": CodeRule(401, "authentication_error"),
    "auth_conflict": CodeRule(400, "authentication_error"),
    "auth_invalid": CodeRule(401, "authentication_error"),
    "jwt_invalid": CodeRule(401, "authentication_error"),
    "key_expired": CodeRule(401, "authentication_error"),
    "key_revoked": CodeRule(401, "authentication_error"),
    "key_disabled": CodeRule(403, "permission_error"),
    "model_forbidden": CodeRule(403, "permission_error"),
    "operation_forbidden": CodeRule(403, "permission_error"),
    "role_forbidden": CodeRule(403, "permission_error"),
    "ip_denied": CodeRule(403, "permission_error"),
    "priority_forbidden": CodeRule(403, "permission_error"),
    "path_forbidden": CodeRule(403, "permission_error"),
    "stage_forbidden": CodeRule(403, "permission_error"),
    "model_not_found": CodeRule(404, _INVALID, False),
    "object_not_found": CodeRule(404, _INVALID, False),
    "object_in_use": CodeRule(409, "conflict_error", True),
    "content_blocked": CodeRule(400, _INVALID, False),
    "price_unknown": CodeRule(400, _INVALID, False),
    "limit_required": CodeRule(403, "permission_error", False),
    "budget_exhausted": CodeRule(429, "insufficient_quota", False),
    "credit_exhausted": CodeRule(402, "insufficient_quota", False),
    "rate_limited": CodeRule(429, "rate_limit_error", True),
    "concurrency_limited": CodeRule(429, "rate_limit_error", True),
    "limit_pending": CodeRule(503, "server_error", True),
    "too_many_values": CodeRule(429, "rate_limit_error", True),
    "idem_invalid": CodeRule(400, _INVALID),
    "idem_conflict": CodeRule(409, "conflict_error", False),
    "idem_in_progress": CodeRule(409, "conflict_error", True),
    "idem_completed": CodeRule(409, "conflict_error", False),
    "ledger_unavailable": CodeRule(503, "server_error", True),
    "storage_full": CodeRule(503, "server_error", True),
    "issuer_unavailable": CodeRule(503, "server_error", True),
    "not_ready": CodeRule(503, "server_error", True),
    "draining": CodeRule(503, "server_error", True),
    "overloaded": CodeRule(503, "server_error", True),
    "credential_unavailable": CodeRule(503, "upstream_error", True),
    "upstream_resting": CodeRule(503, "upstream_error", True),
    "upstream_connect": CodeRule(502, "upstream_error", True),
    "upstream_protocol": CodeRule(502, "upstream_error", False),
    "upstream_truncated": CodeRule(502, "upstream_error", False),
    "upstream_timeout": CodeRule(504, "upstream_error", False),
    "client_gone": CodeRule(499, _INVALID),
    "internal": CodeRule(500, "server_error"),
}


def status_of(problem: Problem) -> int:
    """The HTTP status a problem is told with."""
    return problem.status if problem.status is not None else CODES[problem.code].status
