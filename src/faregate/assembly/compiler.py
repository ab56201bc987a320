"""The catalogue as it follows from the configuration and the books' own prices, compiled once per change of these."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from faregate.assembly.declare import declared
from faregate.assembly.made import OpenSecret
from faregate.assembly.pricing import ConfiguredPrices
from faregate.catalogue.compile import CatalogueProblem, compile_catalogue
from faregate.config.schema import Config
from faregate.config.tree import Environment
from faregate.control import Catalogue
from faregate.ports import NO_PLACES, MadePlaces, Row

logger = logging.getLogger("faregate.catalogue")


class CatalogueCompiler:
    """Implements ``CompileCatalogue``. May be called from several threads."""

    def __init__(
        self, config: Config, folder: Path, environment: Environment, open_secret: OpenSecret | None = None
    ) -> None:
        """``open_secret`` opens the secrets of what was made by the API; ``None`` where nobody can."""
        self._config = config
        #: Where relative file names of the configuration start.
        self.folder = folder
        self._environment = environment
        #: What else is known of prices by the same configuration.
        self.prices = ConfiguredPrices(config, folder, environment)
        self._given = {"open_secret": open_secret} if open_secret is not None else {}
        self._turn = threading.Lock()
        self._last: tuple[tuple[object, ...], Catalogue] | None = None
        self._told: frozenset[CatalogueProblem] = frozenset()
        #: Declared by the operator; of the hundreds of models that a provider merely offers nobody wants to hear.
        self._declared = {f"deployments.{each.name}" for each in config.deployments}
        self._declared |= {f"models.{each.name}" for each in config.models}

    def __call__(self, price_rows: Sequence[Row], projects: Sequence[str], made: MadePlaces = NO_PLACES) -> Catalogue:
        """The catalogue by these prices and projects; what cannot work as declared is logged once."""
        key = (tuple(tuple(row.items()) for row in _comparable(price_rows)), tuple(projects), _place_key(made))
        with self._turn:
            if self._last is not None and self._last[0] == key:
                return self._last[1]
            told = declared(self._config, self.folder, self._environment, price_rows, projects, made, **self._given)
            compiled = compile_catalogue(told)
            problems = frozenset(
                problem for problem in compiled.problems if problem.serious and problem.where in self._declared
            )
            for problem in sorted(problems - self._told):
                logger.warning("catalogue_entry_unusable", extra={"at": problem.where, "why": problem.message})
            self._told = problems
            self._last = (key, compiled.catalogue)
            return compiled.catalogue


def _comparable(price_rows: Sequence[Row]) -> list[Row]:
    """Rows as what can be compared: the details of a price, such as its variant, are a mapping."""
    return [{**row, "details": repr(sorted((row["details"] or {}).items()))} for row in price_rows]


def _place_key(made: MadePlaces) -> str:
    """What was made as what can be compared, however its rows came: what is tried before it is written is the same."""
    return repr([[sorted(row.items()) for row in rows] for rows in made])
