"""What a credential is restricted to, and how two restrictions meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.networks import holds, networks
from faregate.core.priorities import admitted
from faregate.core.restrictions import NOT_RESTRICTED, Restrictions, path_begins, path_fault

NAMES = st.none() | st.lists(st.sampled_from(["a", "b", "c"]), max_size=3, unique=True).map(tuple)
PATHS = st.none() | st.lists(
    st.sampled_from(["/v1", "/v1/chat", "/v1/chat/completions", "/v1/chats", "/services/x", "/"]),
    min_size=1, max_size=3, unique=True,
).map(tuple)  # fmt: skip
NETWORKS = st.none() | st.lists(
    st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24", "::/0", "2001:db8::/32"]),
    min_size=1, max_size=3, unique=True,
).map(tuple)  # fmt: skip
PRIORITIES = st.none() | st.lists(
    st.sampled_from(["0-1000", "0-100", "50-500", "101-500", "101-101", "900-1000"]), max_size=3, unique=True
).map(tuple)  # fmt: skip
ANY = st.builds(Restrictions, NAMES, NAMES, PATHS, NETWORKS, st.sampled_from([0, 5, 9]), PRIORITIES)

ASKED = ("/v1", "/v1/chat/completions", "/v1/chats", "/v1/embeddings", "/services/x/y", "/services/xy")
PRIORITIES_ASKED = (0, 49, 50, 100, 101, 102, 500, 501, 899, 900, 1_000)
CAME_FROM = ("10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1", "2001:db9::1", "11.0.0.1")


def allowed(by: Restrictions) -> set[tuple[str, str]]:
    """Everything of a small world that is allowed."""
    found = {("model", name) for name in "abcd" if by.models is None or name in by.models}
    found |= {("operation", name) for name in "abcd" if by.operations is None or name in by.operations}
    found |= {("path", path) for path in ASKED if by.paths is None or any(path_begins(path, each) for each in by.paths)}
    found |= {("network", each) for each in CAME_FROM if by.networks is None or holds(by.networks, each)}
    found |= {("priority", str(n)) for n in PRIORITIES_ASKED if admitted(by.priorities, n) == n}
    return found | {("at", str(at)) for at in range(12) if not by.expires_at or at < by.expires_at}


@given(ANY, ANY)
def test_what_two_allow_together_is_what_each_of_them_allows(one: Restrictions, other: Restrictions) -> None:
    """Neither more nor less, in either order."""
    assert allowed(one.met_by(other)) == allowed(one) & allowed(other)
    assert allowed(other.met_by(one)) == allowed(one) & allowed(other)


@given(ANY, ANY)
def test_whoever_meets_a_restriction_is_allowed_by_it(one: Restrictions, other: Restrictions) -> None:
    """What two have in common lies in each; and without a restriction all is allowed."""
    assert one.allows(one.met_by(other)) == ""
    assert NOT_RESTRICTED.allows(one) == ""
    assert one.met_by(NOT_RESTRICTED) == one


@given(ANY, ANY)
def test_nothing_wider_is_taken_for_narrower(one: Restrictions, other: Restrictions) -> None:
    """Where no restriction is exceeded, nothing more is allowed."""
    if one.allows(other) == "":
        assert allowed(other) <= allowed(one)


def test_long_lists_of_networks_are_read_once_and_met_once() -> None:
    """However many pairs they make, and however many keys have the same."""
    own = Restrictions(networks=tuple(f"10.77.{number}.0/24" for number in range(64)))
    of_product = Restrictions(networks=tuple(f"10.77.{number}.128/25" for number in range(32, 96)))
    before = networks.cache_info().misses
    met = [own.met_by(of_product) for _ in range(3)]

    assert met == [Restrictions(networks=tuple(f"10.77.{number}.128/25" for number in range(32, 64)))] * 3
    assert networks.cache_info().misses == before + 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v1/chat", "must begin with /"),
        ("", "must begin with /"),
        ("/" + "x" * 256, "at most 256"),
        ("/v1/*", "plain path"),
        ("/v1?x=1", "plain path"),
        ("/v1/%2e%2e", "plain path"),
        ("/v1/ü", "plain path"),
        ("/v1/../v2", "dot segments"),
        ("/v1//chat", "empty"),
        ("/v1/chat", ""),
        ("/v1/chat/", ""),
        ("/", ""),
    ],
)
def test_the_beginning_of_a_path_is_plain(text: str, said: str) -> None:
    """Anything that could mean another path than it seems is refused."""
    fault = path_fault(text)
    assert said in fault
    assert bool(fault) is bool(said)
