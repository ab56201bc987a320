"""Compiles the catalogue of a configuration, for a check without any process running."""

from faregate.assembly.declare import declared
from faregate.catalogue.compile import CatalogueProblem, compile_catalogue
from faregate.config.load import Loaded
from faregate.config.tree import Environment


def problems_of(loaded: Loaded, environment: Environment) -> tuple[CatalogueProblem, ...]:
    """What of the declared providers, deployments, models and prices cannot work as written."""
    return compile_catalogue(declared(loaded.config, loaded.folder, environment)).problems
