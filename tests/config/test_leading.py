"""Names that lead over other names: nobody gets by one where he does not get by the other."""

from collections.abc import Mapping

from faregate.config.leading import Led, led_elsewhere

PREMIUM, RESEARCH = ("product", "premium"), ("team", "research")
DEPLOYMENTS = {"a", "b", "c", "d", "e"}


def led(to: Mapping[str, tuple[str, ...]], instead: Mapping[str, tuple[Led, ...]], name: str) -> tuple[Led, ...]:
    return led_elsewhere(to, instead, DEPLOYMENTS).get(name, ())


def test_another_word_for_a_name_leads_whom_that_leads() -> None:
    """Over however many words."""
    to = {"chat": ("a",), "alias": ("chat",), "again": ("alias",)}
    instead = {"chat": (((RESEARCH,), ("b",)),)}
    assert led(to, instead, "alias") == led(to, instead, "again") == (((RESEARCH,), ("b",)),)


def test_the_own_word_of_a_name_comes_first() -> None:
    """A name that leads over another may say otherwise itself."""
    to = {"chat": ("a",), "alias": ("chat",)}
    instead = {"chat": (((RESEARCH,), ("b",)),), "alias": (((PREMIUM,), ("c",)),)}
    assert led(to, instead, "alias") == (((PREMIUM,), ("c",)), ((RESEARCH,), ("b",)))


def test_among_several_places_only_what_a_name_leads_to_is_another() -> None:
    """The places beside it stay, in order."""
    to = {"chat": ("a", "b"), "both": ("d", "chat", "e")}
    instead = {"chat": (((RESEARCH,), ("c",)),)}
    assert led(to, instead, "both") == (((RESEARCH,), ("d", "c", "e")),)


def test_who_is_meant_by_two_names_is_led_by_both() -> None:
    """Both together come before each alone; who cannot be both is not among them."""
    to = {"one": ("a",), "two": ("b",), "both": ("one", "two")}
    instead = {"one": (((RESEARCH,), ("c",)),), "two": (((PREMIUM,), ("d",)), ((("team", "sales"),), ("e",)))}
    assert led(to, instead, "both") == (
        ((RESEARCH, PREMIUM), ("c", "d")),
        ((RESEARCH,), ("c", "b")),
        ((PREMIUM,), ("a", "d")),
        ((("team", "sales"),), ("a", "e")),
    )


def test_a_loop_and_a_long_way_end() -> None:
    """What the checks refuse must not hang what reads it."""
    long = {f"m{n}": (f"m{n + 1}",) for n in range(300)} | {"m300": ("a",)}
    instead = {"m300": (((RESEARCH,), ("b",)),)}
    assert led(long, instead, "m290") == (((RESEARCH,), ("b",)),)
    assert led({"x": ("y",), "y": ("x",)}, {"x": (((RESEARCH,), ("b",)),)}, "x")[0] == ((RESEARCH,), ("b",))
    wide = {f"w{n}": (f"w{n + 1}", f"w{n + 2}") for n in range(24)} | {"w24": ("a",), "w25": ("b",)}
    assert len(led(wide, {"w25": (((RESEARCH,), ("c",)),)}, "w0")) < 300
