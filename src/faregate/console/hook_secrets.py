"""Who may call the doors for other systems' webhooks: whoever knows the secret of the one that is called.

A door without a secret is shut for everybody. Secrets are compared in constant time and never told.
"""

import hmac
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

from faregate.console.accounts import Refusal
from faregate.console.state import Console

#: Begins the path of every webhook door.
PATHS: Final = "/webhooks/"
BODY_BYTES_MAX: Final = 256 * 1024

AZURE_BUDGET: Final = "/webhooks/azure-budget"
#: The same door, where the service had it whose interface the Quota API is.
QUOTA_BUDGET: Final = "/api/Quota/Budget"

SECRET_HEADER: Final = b"x-faregate-secret"

#: Who changed something, as the trail and entries tell it.
ACTOR: Final = "azure-budget"

OFF: Final = Refusal("wh_off", "this webhook is not set up; set alerts.azure_budget in the configuration")
WRONG: Final = Refusal("wh_sig", "send the secret of alerts.azure_budget as x-faregate-secret, or as ?code=")


def is_hook(path: str) -> bool:
    """Whether a path is a webhook door of ours; others below ``/webhooks/`` are nobody's."""
    return path == AZURE_BUDGET


def given(scope: Scope) -> list[bytes]:
    """The secrets that a webhook brings in its own header."""
    return [value for name, value in scope["headers"] if name == SECRET_HEADER]


def refusal(console: Console, scope: Scope) -> Refusal | None:
    """Why a webhook may not come in, ``None`` where it may."""
    if console.azure_budget is None:
        return OFF
    query = scope.get("query_string", b"").decode("latin-1")
    secrets = [*given(scope), *(value.encode("utf-8", "replace") for name, value in parse_qsl(query) if name == "code")]
    if not secrets or len(set(secrets)) > 1 or not _is_secret(console, secrets[0]):
        return WRONG
    return None


def opens_budget(console: Console, path: str, secret: str) -> bool:
    """Whether a credential for the Quota API is the webhook's own secret, which opens its budget door alone."""
    if path != QUOTA_BUDGET or console.azure_budget is None:
        return False
    return _is_secret(console, secret.encode("utf-8", "replace"))


def _is_secret(console: Console, given: bytes) -> bool:
    assert console.azure_budget is not None
    wanted = console.azure_budget.secret.get_secret_value().encode()
    return hmac.compare_digest(given, wanted)
