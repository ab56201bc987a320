"""Whose figures a limit holds: those of one organization alone, or those of others, too.

A caller may know how much of a limit is used where only its own organization can have used it. A limit on a model, or
on everything, counts other organizations' calls as well where there are several; its figures would tell each of them
what the others do.
"""

from collections.abc import Iterable

from faregate.control import Key
from faregate.core.attribution import Attribution, dimension
from faregate.core.limits.index import CompiledLimit
from faregate.core.tokens import Identity

#: Dimensions whose values belong to one organization, unless another uses the same name.
_NAMED = ("team", "project", "user", "product")

#: More than one organization uses the name.
_SEVERAL = "\0"


class Tenants:
    """Which organizations there are, and which names of payers are one organization's own. Only ever grows.

    A name that two organizations have used stays theirs until everything is loaded anew, which hides more, not less.
    """

    __slots__ = ("_open", "_organizations", "_owners")

    def __init__(self) -> None:
        self._organizations: set[str] = set()
        self._owners: dict[str, dict[str, str]] = {name: {} for name in _NAMED}
        #: Dimension → whose callers may bring any name for it with a token or a header; ``_SEVERAL`` for anybody's.
        self._open: dict[str, str] = {}

    def add(self, keys: Iterable[Key]) -> None:
        """Take the payers of keys into account; keys of other roles than a caller's make no calls, and pay for none."""
        callers = (key for key in keys if key.role == "caller")
        # Many keys have the same ones.
        payers = {(key.organization, key.team, key.project, key.user, key.product) for key in callers}
        for organization, *values in payers:
            self._organizations.add(organization)
            for name, value in zip(_NAMED, values, strict=True):
                if value and self._owners[name].setdefault(value, organization) != organization:
                    self._owners[name][value] = _SEVERAL

    def add_callers(self, identity: Identity, project_teams: Iterable[tuple[str, str, str]] = ()) -> None:
        """Take the payers into account that callers without keys have, and those that a header may name.

        A token that names no team has that of its project, which ``project_teams`` tells with its organization.
        """
        organizations = {issuer.organization for issuer in identity.issuers}
        self.add(Key("", "", {}, owner, team) for owner, _, team in project_teams if team and owner in organizations)
        for issuer in identity.issuers:
            own = (issuer.organization, issuer.team, issuer.project, issuer.user, issuer.product)
            self.add([Key("", "", {}, *own)])
            for name, claims in issuer.claims:
                if claims and self._open.setdefault(name, issuer.organization) != issuer.organization:
                    self._open[name] = _SEVERAL
        if identity.accounting is not None:
            self._open[identity.accounting.dimension] = _SEVERAL

    def owns(self, limit: CompiledLimit, who: Attribution) -> bool:
        """Whether nobody outside the organization of ``who`` is counted with it by ``limit``."""
        if len(self._organizations) <= 1:
            return True
        for name in (*(name for name, _ in limit.selector), *limit.each):
            if name in ("organization", "key"):
                return True
            owners = self._owners.get(name) if self._open.get(name, who.organization) == who.organization else None
            if owners is not None and owners.get(dimension(who, name)) == who.organization:
                return True
        return False
