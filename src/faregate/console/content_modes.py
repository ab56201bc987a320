"""What keys and products may say about keeping the contents of their calls, and who may let them."""

from typing import Annotated, Literal

from pydantic import Field

from faregate.console.problems import ApiProblem
from faregate.console.state import Console

Mode = Annotated[
    Literal["off", "metadata", "full"],
    Field(description="what is kept of the contents of calls; null as the product, else the configuration says"),
]


def check_mode(console: Console, mode: str | None, *, changes: bool = False) -> None:
    """Refuse a word about contents of whoever may not decide that, or where the configuration does not say how long.

    ``changes`` is said where ``None`` takes back what was said before.

    Raises:
        ApiProblem: ``role_forbidden`` or ``invariant``.
    """
    if (mode is not None or changes) and not console.principal.may("content.write"):
        rule = "what is kept of contents takes the permission content.write; leave it out"
        raise ApiProblem("role_forbidden", rule, field="content")
    if mode in ("metadata", "full") and not console.facts.keeps_contents:
        rule = "contents are kept only where content.retention in faregate.yaml says how long; set it first"
        raise ApiProblem("invariant", rule, field="content")
