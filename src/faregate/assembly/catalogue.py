"""Compiles the catalogue of a configuration, for a check without any process running."""

from faregate.assembly.declare import declared
from faregate.catalogue.compile import CatalogueProblem, compile_catalogue
from faregate.config.load import Loaded
from faregate.config.tree import Environment


def problems_of(loaded: Loaded, environment: Environment) -> tuple[CatalogueProblem, ...]:
    """What of the declared providers, deployments, models and prices cannot work as written."""
    return compile_catalogue(declared(loaded.config, loaded.folder, environment)).problems


#: Operations whose answers are as long as the model likes.
_TALKING = frozenset({"chat.completions", "completions", "responses", "messages", "generate_content"})


def without_maximum(loaded: Loaded, environment: Environment) -> list[str]:
    """Names of deployments, and of models that lead to one, whose most output tokens are not known."""
    catalogue = compile_catalogue(declared(loaded.config, loaded.folder, environment)).catalogue
    open_ended = {
        each.name
        for each in catalogue.deployments
        if not each.output_tokens_max and _TALKING.intersection(each.operations)
    }
    named = [route.model for route in catalogue.routes if any(target in open_ended for target in route.to)]
    return sorted({*open_ended, *named})
