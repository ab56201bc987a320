"""A name's mirror is a deployment, made on demand like any place; one that leads nowhere is told of and left out."""

from faregate.catalogue.compile import compile_catalogue
from faregate.catalogue.declared import Declared, DeclaredDeployment, DeclaredModel
from faregate.control import Mirror, Provider

SIM = Provider("sim", "openai", "http://127.0.0.1:1/v1", {})


def declared(to: str) -> Declared:
    """One name, copied to a place."""
    model = DeclaredModel("chat", ("one",), mirror=Mirror(to, 5))
    return Declared(
        (SIM,), (DeclaredDeployment("one", "sim", "sim-1"), DeclaredDeployment("two", "sim", "sim-2")), (model,)
    )


def test_a_mirror_is_no_place_of_its_name() -> None:
    """It is known to the gate, and no call is led there."""
    found = compile_catalogue(declared("two"))
    (route,) = (each for each in found.catalogue.routes if each.model == "chat")
    assert (route.to, route.mirror) == (("one",), Mirror("two", 5))
    assert "two" in {each.name for each in found.catalogue.deployments}


def test_a_mirror_may_be_a_model_of_a_provider() -> None:
    """``provider/model`` is made a deployment where nobody declared one."""
    found = compile_catalogue(declared("sim/sim-3"))
    (route,) = (each for each in found.catalogue.routes if each.model == "chat")
    assert route.mirror == Mirror("sim/sim-3", 5)
    assert "sim/sim-3" in {each.name for each in found.catalogue.deployments}


def test_a_mirror_that_is_nowhere_is_left_out() -> None:
    """The name works on without it, and the problem is told."""
    found = compile_catalogue(declared("nowhere"))
    (route,) = (each for each in found.catalogue.routes if each.model == "chat")
    assert route.mirror is None
    assert any("nowhere" in each.message for each in found.problems)
