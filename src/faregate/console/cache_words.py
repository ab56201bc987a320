"""What keys, projects and stages may say about the response cache, and who may let keys say it."""

from typing import Annotated, Literal

from pydantic import Field

from faregate.console.problems import ApiProblem
from faregate.console.state import Console

Word = Annotated[
    Literal["on", "off"],
    Field(description="whether its calls use the response cache; off of anybody holds; null says nothing"),
]


def check_word(console: Console, word: str | None, *, changes: bool = False) -> None:
    """Refuse a word about the response cache of whoever may not decide that.

    ``changes`` is said where ``None`` takes back what was said before.

    Raises:
        ApiProblem: ``role_forbidden``.
    """
    if (word is not None or changes) and not console.principal.may("cache.write"):
        rule = "whether the response cache is used takes the permission cache.write; leave it out"
        raise ApiProblem("role_forbidden", rule, field="cache")
