"""The price book of an installation: its configuration and the catalogue, for the console to ask.

Implements ``console.state.PriceBook``, and gives the capacities of the configuration as rows.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from faregate.assembly.declare import declared
from faregate.catalogue.explain import bundled_list, explain
from faregate.catalogue.importing import read_prices
from faregate.config.schema import Config
from faregate.config.secret_box import Place
from faregate.config.tree import Environment
from faregate.core import money
from faregate.core.pricing.listing import BundledList, Explanation, PriceFile
from faregate.ports import NO_PLACES, MadePlaces, Row


def _unopened(sealed: str, place: Place) -> str:
    """What a model costs has nothing to do with secrets."""
    return ""


class ConfiguredPrices:
    """Implements ``PriceBook``. May be called from several threads."""

    def __init__(self, config: Config, folder: Path, environment: Environment) -> None:
        self._config = config
        self._folder = folder
        self._environment = environment

    def read(self, text: str, name: str, format: str) -> PriceFile:
        """The prices of a file's ``text``.

        Raises:
            ValueError: there is no such format.
        """
        return read_prices(text, name, format)

    def explain(
        self,
        prices: Sequence[Row],
        projects: Sequence[str],
        provider: str,
        model: str,
        at: int,
        made: MadePlaces = NO_PLACES,
    ) -> Sequence[Explanation]:
        """What a model costs at a moment, and where each rate comes from."""
        told = declared(self._config, self._folder, self._environment, prices, projects, made, _unopened)
        return explain(told, provider, model, at)

    def capacities(self) -> tuple[Row, ...]:
        """The fixed capacities of the configuration, as rows of the books."""
        return tuple(
            {
                "id": "",
                "name": each.name,
                "provider": each.provider,
                "deployments": list(each.deployments),
                "commitment": money.nanos(each.commitment),
                "units": each.units,
                "tokens_per_second": each.tokens_per_second,
                "timezone": each.timezone,
                "split": each.split,
                "idle": each.idle,
                "source": "file",
            }
            for each in self._config.capacities
        )

    def bundled(self, made: MadePlaces = NO_PLACES) -> BundledList:
        """The list prices that ship with this version, of the kinds of providers that are declared or were made."""
        kinds = {provider.kind for provider in self._config.providers} | {row["kind"] for row in made.providers}
        return bundled_list(sorted(kinds), version("genai-prices"))
