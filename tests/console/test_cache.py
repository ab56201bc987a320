"""The response cache as the admin API sees it: who may say that it is used, how it stands, and having it forget."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from console.test_link import Linked, with_link
from console_parts import Api, Parts, catalogue_of
from faregate.console.app import create_app
from faregate.console.compile import all_keys
from faregate.console.keys import NewKey, create, delete, revoke
from faregate.console.link import FLUSHES_MAX, GateLink
from faregate.console.payers import NewProject, ProjectChange, StageChange, changed, created, find
from faregate.console.scoped_books import OutOfScope, scoped
from faregate.console.state import CacheFacts
from faregate.control import AskFlush, Figures, Flush, FlushCache, Sample
from faregate.core.access import Principal, Scope
from faregate.errors import Conflict, Failed, Unavailable

# -- who says that it is used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["keys", "projects", "stages"])
def test_keys_projects_and_stages_say_whether_their_calls_use_it(api: Api, path: str) -> None:
    """On, off, or nothing at all; a version tells the change, and so does the trail."""
    silent = api.post(f"/api/v1/{path}", {"name": "silent"})
    loud = api.post(f"/api/v1/{path}", {"name": "loud", "cache": "on"})
    one = f"/api/v1/{path}/{loud['id']}"
    before = api.call("GET", one).headers["etag"]

    assert (silent["cache"], loud["cache"]) == (None, "on")
    assert api.send("PATCH", one, {"cache": "off"})["cache"] == "off"
    assert api.call("PATCH", one, json={"cache": "on"}, headers={"if-match": before}).status_code == 412
    assert {row["name"]: row["cache"] for row in api.get(f"/api/v1/{path}")["data"]}["loud"] == "off"
    assert api.send("PATCH", one, {"title": "kept"} if path != "keys" else {"name": "kept"})["cache"] == "off"
    assert api.send("PATCH", one, {"cache": None})["cache"] is None
    told = [each for each in api.get("/api/v1/audit")["data"] if each["id"] == loud["id"]]
    assert [each["after"]["cache"] for each in told] == ["", "off", "off", "on"]


@pytest.mark.parametrize("path", ["keys", "projects", "stages"])
@pytest.mark.parametrize(
    ("word", "code"), [("refresh", "field_enum"), ("", "field_enum"), (True, "field_enum"), ([], "field_enum")]
)
def test_other_words_are_refused(api: Api, path: str, word: object, code: str) -> None:
    """For new ones and for those that are there."""
    made = api.post(f"/api/v1/{path}", {"name": "there"})
    for method, place in (("POST", f"/api/v1/{path}"), ("PATCH", f"/api/v1/{path}/{made['id']}")):
        body = {"name": "new", "cache": word} if method == "POST" else {"cache": word}
        problem = api.send(method, place, body, 422)
        assert (problem["code"], problem["errors"][0]["field"]) == (code, "cache")


@pytest.mark.parametrize("path", ["organizations", "teams", "users", "products"])
def test_nobody_else_has_a_word(api: Api, path: str) -> None:
    """Neither in a body nor in an answer."""
    assert api.post(f"/api/v1/{path}", {"name": "a", "cache": "on"}, 422)["code"] == "field_unknown"
    made = api.post(f"/api/v1/{path}", {"name": "a"})
    assert "cache" not in made
    assert api.send("PATCH", f"/api/v1/{path}/{made['id']}", {"cache": "on"}, 422)["code"] == "field_unknown"


def test_many_are_made_with_their_words(api: Api) -> None:
    """Together, as alone."""
    items = [{"name": "a", "cache": "on"}, {"name": "b"}]
    for path in ("keys", "projects"):
        assert [row["cache"] for row in api.post(f"/api/v1/{path}/bulk", {"items": items})["data"]] == ["on", None]
    assert api.post("/api/v1/keys/bulk", {"items": [{"name": "c", "cache": "x"}]}, 422)["code"] == "field_enum"


def test_projects_and_stages_that_come_with_a_key_say_nothing(api: Api) -> None:
    """Its own word is the key's."""
    api.post("/api/v1/keys", {"name": "ci", "project": "search", "stage": "dev", "cache": "on"})

    assert [api.get(f"/api/v1/{path}")["data"][0]["cache"] for path in ("projects", "stages")] == [None, None]


def test_a_manager_decides_nothing_about_it(made: Parts, api: Api) -> None:
    """Neither that it is used nor that it is not, nor takes he such a word back; an administrator of a part does."""
    boss = api.post("/api/v1/keys", {"name": "boss", "role": "manager", "team": "research"})
    local = api.post("/api/v1/keys", {"name": "local", "role": "admin", "team": "research"})
    theirs, admins = Api(made.app, boss["secret"]), Api(made.app, local["secret"])
    key = theirs.post("/api/v1/keys", {"name": "plain"})
    one = f"/api/v1/keys/{key['id']}"

    for word in ("on", "off", None):
        assert theirs.send("PATCH", one, {"cache": word}, 403)["code"] == "role_forbidden"
    assert theirs.post("/api/v1/keys", {"name": "mine", "cache": "on"}, 403)["errors"][0]["field"] == "cache"
    assert theirs.post("/api/v1/keys", {"name": "mine", "cache": None})["cache"] is None
    assert admins.send("PATCH", one, {"cache": "on"})["cache"] == "on"


def test_the_gate_hears_of_a_word_within_a_second(tmp_path: Path) -> None:
    """With the catalogue, those of stages of the configuration first; of keys with the keys."""

    def before(made: Parts) -> None:
        created(made.console, "project", NewProject(name="search", cache="on"))
        create(made.console, NewKey(name="ci", stage="dev", cache="off"))

    def compiled(*given: Any) -> Any:
        return catalogue_of(*given).__class__(caching=(("stage", "", "prod", "off"),))

    async def work(both: Linked) -> None:
        console = both.parts.console
        *_, keys, rest = both.gate.loads()
        assert rest.catalogue is not None
        assert rest.catalogue.caching == (("project", "default", "search", "on"),)
        assert [key.cache for key in keys.keys] == ["off"]
        both.link._compile = compiled
        for kind, name, change in (
            ("stage", "dev", StageChange(cache="off")),
            ("project", "search", ProjectChange(cache=None)),
        ):
            row = find(console, kind, name, "default")
            assert row is not None
            await asyncio.to_thread(changed, console, kind, row["id"], change)
            assert await both.link.applied(1.0)
        *_, of_stage, of_project = [each.catalogue for each in both.gate.loads() if each.catalogue is not None]
        file = ("stage", "", "prod", "off")
        assert of_stage.caching == (file, ("project", "default", "search", "on"), ("stage", "default", "dev", "off"))
        assert of_project.caching == (file, ("stage", "default", "dev", "off"))
        assert {key.name: key.cache for key in all_keys(both.parts.books)} == {"ci": "off"}

    with_link(tmp_path, work, before)


# -- how it stands -----------------------------------------------------------------------------------------------------

SAMPLES = (
    Sample("faregate_cache_entries", (), 7),
    Sample("faregate_cache_bytes", (), 4_096),
    Sample("faregate_cache_disk_bytes", (), 8_192),
    Sample("faregate_cache_evictions_total", (), 3),
    Sample("faregate_cache_failures_total", (), 2),
    *(
        Sample("faregate_cache_lookups_total", (("outcome", outcome),), count)
        for outcome, count in (("hit", 40), ("miss", 60), ("refresh", 5), ("error", 1))
    ),
)
SET = CacheFacts(True, "redis", "on", 3_600, "organization")


def linked_app(both: Linked, link: GateLink | None = None) -> Any:
    console = replace(both.parts.console, gate=link or both.link)
    return create_app(replace(console, facts=replace(console.facts, cache=SET)))


class Client(NamedTuple):
    """Asks an app on the loop on which its link runs."""

    app: Any
    secret: str

    async def __call__(self, method: str, path: str, body: object = None) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False, client=("192.0.2.1", 999))
        headers = {"authorization": f"Bearer {self.secret}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://console.test", headers=headers) as client:
            return await client.request(method, path, json=body)


def with_client(folder: Path, work: Callable[[Linked, Client], Awaitable[Any]]) -> None:
    async def asked(both: Linked) -> None:
        await work(both, Client(linked_app(both), both.parts.admin_key()))

    with_link(folder, asked)


def test_it_is_told_how_it_is_set_and_how_it_stands(tmp_path: Path) -> None:
    """Of the configuration and of the gate at this moment."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.figures = Figures(True, False, 1, 0, 0, 0, 0, 0, 0, 0, 0, samples=SAMPLES)

        assert (await client("GET", "/api/v1/cache")).json() == {
            "enabled": True, "store": "redis", "default": "on", "ttl_seconds": 3_600, "share": "organization",
            "entries": 7, "bytes": 4_096, "disk_bytes": 8_192, "evictions": 3, "failures": 2, "hits": 40, "misses": 60,
        }  # fmt: skip

    with_client(tmp_path, work)


def test_what_a_store_does_not_know_is_not_told_as_nothing(tmp_path: Path) -> None:
    """How much a Redis keeps is asked of it by nobody; what the gate counts begins at 0."""

    async def work(both: Linked, client: Client) -> None:
        samples = (Sample("faregate_cache_failures_total", (), 0),)
        both.gate.figures = Figures(True, False, 1, 0, 0, 0, 0, 0, 0, 0, 0, samples=samples)
        told = (await client("GET", "/api/v1/cache")).json()
        assert [told[name] for name in ("entries", "bytes", "disk_bytes", "evictions")] == [None] * 4
        assert [told[name] for name in ("failures", "hits", "misses")] == [0, 0, 0]

    with_client(tmp_path, work)


def test_without_a_gate_only_the_settings_are_told(made: Parts, api: Api) -> None:
    """And nobody but those who look after the installation hears them."""
    told = api.get("/api/v1/cache")

    assert (told["enabled"], told["entries"], told["hits"]) == (False, None, None)
    for role in ("finance", "manager"):
        secret = create(made.console, NewKey(name=role, role=role, organization="default", team="research"))[1]
        assert Api(made.app, secret).get("/api/v1/cache", 403)["code"] == "role_forbidden"
    local = create(made.console, NewKey(name="local", role="admin", organization="default"))[1]
    assert Api(made.app, local).get("/api/v1/cache", 403)["code"] == "role_forbidden"


def test_a_gate_that_does_not_answer_tells_no_figures(tmp_path: Path) -> None:
    """The settings are told all the same."""

    async def work(both: Linked, client: Client) -> None:
        await both.gate.hang_up()
        await both.until(lambda: not both.link.connected)
        told = (await client("GET", "/api/v1/cache")).json()
        assert (told["enabled"], told["misses"]) == (True, None)

    with_client(tmp_path, work)


def test_the_figures_are_among_the_metrics(tmp_path: Path) -> None:
    """What is there now as a gauge, what is counted as a counter."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.figures = Figures(True, False, 1, 0, 0, 0, 0, 0, 0, 0, 0, samples=SAMPLES)
        lines = (await client("GET", "/metrics")).text.splitlines()

        assert "# TYPE faregate_cache_entries gauge" in lines
        assert "# TYPE faregate_cache_lookups_total counter" in lines
        for line in (
            "faregate_cache_entries 7.0",
            "faregate_cache_bytes 4096.0",
            "faregate_cache_disk_bytes 8192.0",
            "faregate_cache_evictions_total 3.0",
            "faregate_cache_failures_total 2.0",
            'faregate_cache_lookups_total{outcome="hit"} 40.0',
        ):
            assert line in lines

    with_client(tmp_path, work)


# -- having it forget --------------------------------------------------------------------------------------------------

FLUSH = "/api/v1/cache/flush"


def orders(both: Linked) -> list[FlushCache]:
    return [each for each in both.gate.heard if isinstance(each, FlushCache)]


def test_a_flush_is_waited_for_and_tells_how_many_it_removed(tmp_path: Path) -> None:
    """However often the gate has to be asked."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.flushes = [Flush(4), Flush(4, removed=2), Flush(4, True, 5)]
        answer = await client("POST", FLUSH, {})

        assert (answer.status_code, answer.json()) == (200, {"removed": 5})
        assert orders(both) == [FlushCache()]
        assert [each for each in both.gate.heard if isinstance(each, AskFlush)] == [AskFlush(4)] * 2

    with_client(tmp_path, work)


def test_a_flush_names_what_it_is_of_and_a_key_by_its_id_or_name(tmp_path: Path) -> None:
    """Names as they stand; the trail tells them, too."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.flushes = [Flush(1, True, 1)]
        row, _ = await asyncio.to_thread(create, both.parts.console, NewKey(name="ci"))
        labels = {"organization": "default", "stage": "dev", "project": "search", "model": "gpt-4o"}
        for key in (row["id"], "ci"):
            assert (await client("POST", FLUSH, {**labels, "key": key})).status_code == 200
        assert orders(both) == [FlushCache(**labels, key=row["id"])] * 2
        line = (await client("GET", "/api/v1/audit?kind=cache")).json()["data"][0]
        assert (line["before"], line["after"]) == (None, {"did": "flush", **labels, "key": row["id"]})
        assert line["actor"].startswith("key_")

    with_client(tmp_path, work)


def test_a_name_means_the_key_that_can_be_used_and_a_deleted_one_has_its_id(tmp_path: Path) -> None:
    """What was kept for a key that is gone is there still."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.flushes = [Flush(1, True, 1)]
        console = both.parts.console

        def prepare() -> list[str]:
            old, _ = create(console, NewKey(name="ci"))
            revoke(console, old["id"], "")
            new, _ = create(console, NewKey(name="ci"))
            gone, _ = create(console, NewKey(name="gone"))
            delete(console, gone["id"])
            for organization in ("acme", "umbra"):
                create(console, NewKey(name="twin", organization=organization))
            return [new["id"], old["id"], gone["id"]]

        new, old, gone = await asyncio.to_thread(prepare)
        for key in ("ci", old, gone):
            assert (await client("POST", FLUSH, {"key": key})).status_code == 200
        assert [order.key for order in orders(both)] == [new, old, gone]
        for key, code in (("gone", "not_found"), ("none", "not_found"), ("twin", "conflict")):
            assert (await client("POST", FLUSH, {"key": key})).json()["code"] == code
        assert (await client("POST", FLUSH, {"key": "twin", "organization": "acme"})).status_code == 200

    with_client(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"staging": "dev"}, "field_unknown"),
        ({"key": 5}, "field_type"),
        ({"project": ""}, "field_range"),
        ({"model": "x" * 129}, "field_range"),
        ({"stage": "a\u0000b"}, "field_range"),
        ([], "field_type"),
    ],
)
def test_what_cannot_be_flushed_is_refused_before_the_gate_hears_of_it(tmp_path: Path, body: object, code: str) -> None:
    """A name that is empty or mistyped must not mean everything."""

    async def work(both: Linked, client: Client) -> None:
        answer = await client("POST", FLUSH, body)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert orders(both) == []

    with_client(tmp_path, work)


def test_a_flush_without_a_body_is_none(tmp_path: Path) -> None:
    """All is forgotten only where somebody says so: with an empty object."""

    async def work(both: Linked, client: Client) -> None:
        assert (await client("POST", FLUSH)).status_code == 422
        assert orders(both) == []

    with_client(tmp_path, work)


def test_a_cache_that_is_switched_off_forgets_nothing(tmp_path: Path) -> None:
    """The gate decides, which may wait for a restart to be as its configuration says."""

    async def work(both: Linked, client: Client) -> None:
        answer = await client("POST", FLUSH, {})
        assert (answer.status_code, answer.json()["code"]) == (409, "cache_off")
        assert "switched off" in answer.json()["detail"]

    with_client(tmp_path, work)


def test_what_could_not_be_done_is_told_with_what_was(tmp_path: Path) -> None:
    """How many are gone, and why others may not be."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.flushes = [Flush(1), Flush(1, True, 3, "the server at cache.url does not answer")]
        answer = await client("POST", FLUSH, {})
        assert (answer.status_code, answer.json()["code"]) == (503, "cache_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert "3 answers were forgotten" in answer.json()["detail"]
        assert "does not answer" in answer.json()["detail"]

    with_client(tmp_path, work)


def test_a_gate_that_is_away_or_goes_away_is_told(tmp_path: Path) -> None:
    """Before it began nothing is known; after that, what it said last."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.flushes = [Flush(1, removed=2)]
        asked = asyncio.create_task(client("POST", FLUSH, {}))
        await both.until(lambda: AskFlush(1) in both.gate.heard)
        await both.gate.hang_up()
        answer = await asked
        assert (answer.status_code, answer.json()["code"]) == (503, "cache_unavailable")
        assert "2 answers were forgotten" in answer.json()["detail"]
        await both.until(lambda: not both.link.connected)
        answer = await client("POST", FLUSH, {})
        assert (answer.status_code, answer.json()["code"]) == (503, "cache_unavailable")
        assert "nothing is known to be forgotten" in answer.json()["detail"]

    with_client(tmp_path, work)


def test_without_a_gate_nothing_is_forgotten(api: Api) -> None:
    """As on an installation that does not run."""
    assert api.post(FLUSH, {}, 503)["code"] == "cache_unavailable"


def test_a_flush_that_takes_too_long_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """And says so: it may still go on."""

    async def work(both: Linked) -> None:
        made = both.parts
        slow = GateLink(
            str(both.gate.path), made.books, made.journal, made.projector, catalogue_of, made.clock, flush_seconds=0.2
        )
        running = asyncio.create_task(slow.run())
        await both.until(lambda: slow.connected)
        both.gate.flushes = [Flush(1, removed=9)]
        flush = await slow.flush_cache(FlushCache())
        assert (flush.done, flush.removed, "within 0.2 seconds" in flush.trouble) == (False, 9, True)
        answer = await Client(linked_app(both, slow), made.admin_key())("POST", FLUSH, {})
        assert (answer.status_code, answer.json()["code"]) == (503, "cache_unavailable")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with_link(tmp_path, work)


def test_no_more_flushes_are_under_way_than_the_gate_remembers(tmp_path: Path) -> None:
    """Another one is refused, and may be sent again; one that was given up counts no more."""

    async def work(both: Linked, client: Client) -> None:
        both.gate.flushes = [Flush(1)]
        under_way = [asyncio.create_task(both.link.flush_cache(FlushCache())) for _ in range(FLUSHES_MAX)]
        await both.until(lambda: len(orders(both)) == FLUSHES_MAX)
        answer = await client("POST", FLUSH, {})
        assert (answer.status_code, answer.json()["code"]) == (429, "concurrency_limited")
        with pytest.raises(Failed):
            await both.link.flush_cache(FlushCache())
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        both.gate.flushes = [Flush(2, True)]
        assert (await client("POST", FLUSH, {})).json() == {"removed": 0}

    with_client(tmp_path, work)


def test_the_link_says_why_a_flush_did_not_begin(tmp_path: Path) -> None:
    """A gate without a cache, and no gate at all."""

    async def work(both: Linked) -> None:
        with pytest.raises(Conflict, match="switched off"):
            await both.link.flush_cache(FlushCache())
        await both.gate.hang_up()
        await both.until(lambda: not both.link.connected)
        with pytest.raises(Unavailable):
            await both.link.flush_cache(FlushCache())

    with_link(tmp_path, work)


# -- whose answers -----------------------------------------------------------------------------------------------------

#: Who asks → role and payers.
ASKING = {
    "admin": ("admin", {"organization": "acme"}),
    "team": ("admin", {"organization": "acme", "team": "red"}),
    "project": ("admin", {"organization": "acme", "project": "shared"}),
    "product": ("admin", {"organization": "acme", "product": "gold"}),
    "manager": ("manager", {"organization": "acme", "team": "red"}),
    "auditor": ("auditor", {"organization": "acme"}),
    "finance": ("finance", {"organization": "acme"}),
    "user": ("user", {"organization": "acme", "user": "ada"}),
}


def with_askers(folder: Path, work: Callable[[Linked, dict[str, Client], dict[str, str]], Awaitable[Any]]) -> None:
    """Keys of two teams of one organization and of another one; gives who asks, and the ids of these keys."""

    async def asked(both: Linked) -> None:
        both.gate.flushes = [Flush(1, True, 1)]
        console, app = both.parts.console, linked_app(both)

        def prepare() -> tuple[dict[str, Client], dict[str, str]]:
            ids = {}
            for organization, team in (("acme", "red"), ("acme", "blue"), ("umbra", "red")):
                name = team if organization == "acme" else organization
                wanted = NewKey(name=name, organization=organization, team=team, project=f"{name}-search")
                if name == "red":
                    wanted = wanted.model_copy(update={"product": "gold"})
                ids[name] = create(console, wanted)[0]["id"]
            clients = {
                name: Client(app, create(console, NewKey.model_validate({"name": name, "role": role, **payers}))[1])
                for name, (role, payers) in ASKING.items()
            }
            return clients, ids

        await work(both, *await asyncio.to_thread(prepare))

    with_link(folder, asked)


def test_an_administrator_of_an_organization_flushes_that_alone(tmp_path: Path) -> None:
    """Whatever is left out; what is another's is as what nobody has."""

    async def work(both: Linked, clients: dict[str, Client], ids: dict[str, str]) -> None:
        admin = clients["admin"]
        bodies: list[dict[str, str]] = [{}, {"organization": "acme"}, {"project": "blue-search", "stage": "dev"}]
        for body in (*bodies, {"key": "red"}, {"key": ids["blue"]}):
            assert (await admin("POST", FLUSH, body)).status_code == 200
        assert orders(both) == [
            FlushCache("acme"),
            FlushCache("acme"),
            FlushCache("acme", "dev", "blue-search"),
            FlushCache("acme", key=ids["red"]),
            FlushCache("acme", key=ids["blue"]),
        ]
        for foreign, absent in (
            ({"organization": "umbra"}, {"organization": "nobody"}),
            ({"key": ids["umbra"]}, {"key": ids["umbra"][:-4] + "ZZZZ"}),
            ({"key": "umbra"}, {"key": "nobody"}),
            ({"project": "umbra-search"}, {"project": "nobodys"}),
        ):
            first, second = [await admin("POST", FLUSH, body) for body in (foreign, absent)]
            told = [{**each.json(), "request_id": ""} for each in (first, second)]
            assert (first.status_code, told[0]) == (second.status_code, told[1])
        assert {order.organization for order in orders(both)} == {"acme"}

    with_askers(tmp_path, work)


def test_an_administrator_of_a_part_flushes_its_projects_and_keys(tmp_path: Path) -> None:
    """Which have to be named, as answers bear no name of a team or product; a project's own is its own."""

    async def work(both: Linked, clients: dict[str, Client], ids: dict[str, str]) -> None:
        async def asked(name: str, body: dict[str, str]) -> tuple[int, str]:
            answer = await clients[name]("POST", FLUSH, body)
            return answer.status_code, answer.json().get("code", "")

        assert await asked("team", {}) == (422, "field_missing")
        assert await asked("team", {"stage": "dev", "model": "gpt-4o"}) == (422, "field_missing")
        assert await asked("team", {"project": "red-search"}) == (200, "")
        assert await asked("team", {"key": "red"}) == (200, "")
        assert await asked("project", {}) == (200, "")
        assert await asked("project", {"project": "shared", "stage": "dev"}) == (200, "")
        assert await asked("product", {"key": "red"}) == (200, "")
        assert orders(both) == [
            FlushCache("acme", project="red-search"),
            FlushCache("acme", key=ids["red"]),
            FlushCache("acme", project="shared"),
            FlushCache("acme", "dev", "shared"),
            FlushCache("acme", key=ids["red"]),
        ]
        for name in ("blue-search", "umbra-search", "nobodys"):
            assert await asked("team", {"project": name}) == (404, "not_found")
            assert await asked("project", {"project": name}) == (404, "not_found")
        for key in (ids["blue"], "blue", ids["umbra"], "nobody"):
            assert await asked("team", {"key": key}) == (404, "not_found")
        assert await asked("product", {}) == (422, "field_missing")
        assert await asked("product", {"project": "red-search"}) == (422, "field_missing")
        assert len(orders(both)) == 5

    with_askers(tmp_path, work)


@pytest.mark.parametrize("name", ["manager", "auditor", "finance", "user"])
def test_who_may_do_less_flushes_nothing(tmp_path: Path, name: str) -> None:
    """Not even what is his own."""

    async def work(both: Linked, clients: dict[str, Client], ids: dict[str, str]) -> None:
        for body in ({}, {"key": ids["red"]}, {"project": "red-search"}):
            answer = await clients[name]("POST", FLUSH, body)
            assert (answer.status_code, answer.json()["code"]) == (403, "role_forbidden")
        assert orders(both) == []

    with_askers(tmp_path, work)


def test_the_gate_of_a_scope_takes_no_flush_of_others(tmp_path: Path) -> None:
    """Whatever a route forgets."""

    async def work(both: Linked) -> None:
        console = replace(both.parts.console, gate=both.link)
        gate = scoped(console, Principal("key_1", "admin", Scope("acme"))).gate
        assert gate is not None
        for organization in ("", "umbra"):
            with pytest.raises(OutOfScope):
                await gate.flush_cache(FlushCache(organization))
        both.gate.flushes = [Flush(1, True, 2)]
        assert (await gate.flush_cache(FlushCache("acme"))).removed == 2

    with_link(tmp_path, work)
