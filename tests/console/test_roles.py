"""Who may do what: every route × every role × one's own, a foreign and an absent id, in two organizations of two teams.

What each route asks for is written down here a second time, by hand, so that a route that asks for less than it should
is found. Everything of the other organization and of the other team carries their names, and no answer may hold any.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, cast

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from console_parts import NOON, WHO, Api, Parts, opened, parts, settled_call
from faregate.console.doors import trusted
from faregate.console.keys import NewKey, create
from faregate.console.rights import OPEN, declared_by, needs
from faregate.console.scoped_books import OutOfScope, scoped
from faregate.console.state import Gate
from faregate.control import Allowances
from faregate.core.access import GRANTED, OF_INSTALLATION, PERMISSIONS, Principal, Scope, permissions

ORGANIZATIONS = ("acme", "umbra")
TEAMS = ("red", "blue")

#: First part of a path below /api/v1 → what the permissions for it are called.
NOUNS = {
    **{name: name for name in ("keys", "limits", "prices", "capacities", "requests", "usage", "audit")},
    **dict.fromkeys(("organizations", "teams", "projects", "users", "products", "stages", "subscriptions"), "payers"),
    **dict.fromkeys(("providers", "deployments", "pools", "models", "services", "places", "route"), "providers"),
    **dict.fromkeys(("alerts", "webhooks"), "alerts"),
    **dict.fromkeys(("adjustments", "reprice"), "corrections"),
    **dict.fromkeys(("health", "verify", "backup", "peppers", "owned", "reload"), "installation"),
    "contents": "content",
    "cache": "cache",
    "reports": "usage",
    "quote": "quotes",
    "rehearse": "rehearsals",
}

#: What does not follow from the first part of the path and from whether it is read.
ODD = {
    ("POST", "/api/v1/keys/check"): "keys.check",
    ("POST", "/api/v1/limits/{limit_id}/entries"): "deposits.write",
    ("POST", "/api/v1/prices/explain"): "prices.read",
    ("GET", "/api/v1/requests/{request_id}/content"): "content.read",
    ("DELETE", "/api/v1/requests/{request_id}/content"): "content.write",
    ("POST", "/api/v1/quote"): "quotes.read",
    ("GET", "/api/v1/rehearse/{run_id}"): "rehearsals.write",
    ("POST", "/api/v1/products/{product_id}/lift"): "budgets.write",
    ("POST", "/api/Quota/Budget"): "budgets.write",
    ("GET", "/api/v1/cache"): "installation.read",
    ("GET", "/metrics"): "installation.read",
}

#: What needs no credential, or has one of its own.
CLOSED_OTHERWISE = {
    ("HEAD", "/"),
    *(("GET", path) for path in ("/health/live", "/health/ready", "/", "/static/spend.css", "/api/openapi.json")),
    *(("POST", path) for path in ("/login", "/logout", "/webhooks/azure-budget")),
}

#: Bodies with which a write comes as far as looking for what it writes.
BODIES = {
    "rotate": {},
    "revoke": {},
    "raises": {"amount": "9", "until": "2026-11-22T00:00:00Z"},
    "entries": {"operation": "deposit", "amount": "1"},
    "subscriptions": {"team": "red"},
}
OTHER_BODIES = {"keys": {"name": "renamed"}, "limits": {"amount": "7"}}

#: A body that no model takes: whoever is told so was let through.
NONSENSE = {"nonsense": True}

#: Below a record of one's own there is nothing where nothing was kept.
MAY_LACK = ("/content",)

Route = tuple[str, str]


def routes_of(made: Parts) -> list[tuple[Route, str | None]]:
    """``(method, path)`` of every route of the app, with what it declares."""
    found = []
    for context in iter_route_contexts(made.app.routes):
        assert context.endpoint is not None
        found += [((method, str(context.path)), declared_by(context.endpoint)) for method in context.methods or ()]
    return found


def expected(route: Route) -> str:
    """The permission that a route must ask for."""
    method, path = route
    if route in CLOSED_OTHERWISE:
        return OPEN
    if route in ODD:
        return ODD[route]
    if path.startswith("/api/Quota"):
        noun = "quotas"
    elif path.startswith(("/api/tokenize", "/api/encodings")):
        return "tokens.count"
    else:
        noun = NOUNS[path.split("/")[3]]
    return f"{noun}.{'read' if method == 'GET' else 'write'}"


# -- two organizations, each with two teams of the same names ----------------------------------------------------------


class Things(NamedTuple):
    """Ids of what one team has, by kind, and the words that only its things hold."""

    ids: dict[str, str]
    words: frozenset[str]


class World(NamedTuple):
    """Everything that there is, and who asks."""

    made: Parts
    things: dict[tuple[str, str], Things]
    #: Name → secret.
    asking: dict[str, str]


#: Name → role and scope of whoever asks.
ASKING = {
    "root": ("root", Scope()),
    "admin": ("admin", Scope()),
    "finance": ("finance", Scope()),
    "auditor": ("auditor", Scope()),
    "admin of acme": ("admin", Scope("acme")),
    "manager of red": ("manager", Scope("acme", "red")),
    "finance of acme": ("finance", Scope("acme")),
    "user": ("user", Scope("acme", "red", user="acme-red-user")),
    "auditor of red": ("auditor", Scope("acme", "red")),
    "caller": ("caller", Scope("acme", "red")),
}
SCOPED = [name for name, (_, scope) in ASKING.items() if not scope.whole and name != "caller"]


def things_of(api: Api, made: Parts, organization: str, team: str) -> Things:
    """Make everything that one team has."""
    mark = f"{organization}-{team}"
    payers = {"organization": organization, "team": team}
    payers |= {"project": f"{mark}-project", "user": f"{mark}-user"}
    key = api.post("/api/v1/keys", {"name": f"{mark}-key", **payers, "product": f"{organization}-gold"})
    select = {"organization": organization, "team": team, "user": f"{mark}-user"}
    limit = api.post("/api/v1/limits", {"select": select, "unit": "usd", "amount": "5", "window": "month"})
    request = f"req_{mark}"
    who = WHO._replace(**payers, key=key["id"], product=f"{organization}-gold", tags=(("env", mark),))
    made.journal.add(*settled_call(request, who=who, at=NOON))
    within = f"organization={organization}"
    found = {
        "keys": key["id"],
        "limits": limit["id"],
        "requests": request,
        "teams": api.get(f"/api/v1/teams?{within}&name={team}")["data"][0]["id"],
        "projects": api.get(f"/api/v1/projects?{within}&name={mark}-project")["data"][0]["id"],
        "users": api.get(f"/api/v1/users?{within}&name={mark}-user")["data"][0]["id"],
    }
    return Things(found, frozenset({mark, *found.values()}))


def rest_of(api: Api, organization: str) -> Things:
    """Make what an organization has beside its teams."""
    gold, stage = f"{organization}-gold", f"{organization}-stage"
    subscribed = {"organization": organization, "product": gold, "user": f"{organization}-red-user"}
    found = {
        "organizations": api.get(f"/api/v1/organizations?name={organization}")["data"][0]["id"],
        "products": api.get(f"/api/v1/products?organization={organization}&name={gold}")["data"][0]["id"],
        "stages": api.post("/api/v1/stages", {"name": stage, "organization": organization})["id"],
        "subscriptions": api.post("/api/v1/subscriptions", {**subscribed, "team": "red", "name": f"{gold}-sub"})["id"],
    }
    return Things(found, frozenset({gold, stage, *found.values()}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Built once; whatever the matrix asks for changes nothing in it."""
    with parts(tmp_path_factory.mktemp("roles")) as made:
        root = create(made.console, NewKey(name="root", role="root"))[1]
        api = Api(made.app, root)
        made.journal.add(opened())
        things = {(each, team): things_of(api, made, each, team) for each in ORGANIZATIONS for team in TEAMS}
        things |= {(each, ""): rest_of(api, each) for each in ORGANIZATIONS}
        made.project()
        asking = {"root": root}
        for name, (role, scope) in ASKING.items():
            if name != "root":
                asking[name] = api.post("/api/v1/keys", {"name": name, "role": role, **scope.named})["secret"]
        yield World(made, things, asking)


class Asked(NamedTuple):
    """An answer without what differs from request to request."""

    status: int
    body: str

    @property
    def code(self) -> str:
        found = re.search(r'"code": ?"([a-z_]+)"', self.body)
        return found[1] if found else ""


Ask = Callable[..., Awaitable[Asked]]


@asynccontextmanager
async def asking(world: World) -> AsyncIterator[Ask]:
    """Asks as one of those who may ask, all over one client."""
    transport = httpx2.ASGITransport(world.made.app, raise_app_exceptions=False, client=("192.0.2.1", 999))
    async with httpx2.AsyncClient(transport=transport, base_url="http://console.test") as client:

        async def ask(name: str, method: str, path: str, body: object = None) -> Asked:
            headers = {"authorization": f"Bearer {world.asking[name]}"} if name else {}
            if body is not None:
                headers["content-type"] = "application/json"
            content = None if body is None else json.dumps(body)
            answer = await client.request(method, path, headers=headers, content=content)
            return Asked(answer.status_code, answer.text.replace(answer.headers["x-faregate-request-id"], "req"))

        yield ask


def kind_of(route: Route) -> str:
    """The kind of thing whose id a path holds, empty where it holds none that is of an organization."""
    parts_of_path = route[1].split("/")
    if expected(route) in OF_INSTALLATION or "{" not in route[1] or route[1].startswith("/api/Quota"):
        return ""
    return parts_of_path[3]


def body_of(route: Route) -> object:
    method, path = route
    if method in ("GET", "DELETE"):
        return None
    kind = path.removeprefix("/api/v1/").partition("/")[0]
    return BODIES.get(path.rsplit("/", 1)[1], OTHER_BODIES.get(kind, {"title": "renamed"}))


def filled(route: Route, id: str) -> str:
    return re.sub(r"\{\w+\}", id, route[1])


def foreign_ids(world: World, name: str, kind: str) -> list[str]:
    """Ids of that kind that whoever asks must not know to exist."""
    narrow = ASKING[name][1] != Scope("acme")
    others = [("umbra", "red"), ("umbra", ""), *([("acme", "blue")] if narrow else [])]
    return [world.things[each].ids[kind] for each in others if kind in world.things[each].ids]


def foreign_words(world: World, name: str) -> frozenset[str]:
    narrow = ASKING[name][1] != Scope("acme")
    others = [("umbra", team) for team in (*TEAMS, "")] + ([("acme", "blue")] if narrow else [])
    return frozenset().union(*(world.things[each].words for each in others)) | {"umbra"}


def absent_id(id: str) -> str:
    """An id of the same form that nothing has."""
    return re.sub(r"[0-9A-Z]{4}$", "ZZZZ", id) if id.startswith(tuple("kolptsu")) and "_" in id else "req_absent"


# -- every route ---------------------------------------------------------------------------------------------------


def test_every_route_asks_for_what_it_should(world: World) -> None:
    """No route is without its permission, and none asks for another one than is written down here."""
    found = routes_of(world.made)

    assert dict(found) == {route: expected(route) for route, _ in found}
    assert {declared for _, declared in found} - {OPEN} <= PERMISSIONS.keys()


def test_a_route_that_nobody_thought_of_is_closed(tmp_path: Path) -> None:
    """Without a declaration not even root is let in, whatever the path."""
    with parts(tmp_path) as made:
        secret = create(made.console, NewKey(name="root", role="root"))[1]

        @made.app.get("/api/v1/new")
        async def new() -> dict[str, bool]:
            return {"in": True}

        @made.app.get("/elsewhere")
        async def elsewhere() -> dict[str, bool]:
            return {"in": True}

        @made.app.get("/outside")
        @needs("usage.read")
        async def outside() -> dict[str, bool]:
            return {"in": True}

        for path in ("/api/v1/new", "/elsewhere", "/outside"):
            answer = Api(made.app, secret).call("GET", path)
            assert (answer.status_code, answer.json()["code"]) == (403, "role_forbidden"), path


async def faults_of(world: World, ask: Ask, route: Route, name: str) -> list[str]:
    """What is wrong with the answers to one route for one who asks."""
    (role, scope), kind, method = ASKING[name], kind_of(route), route[0]
    allowed = expected(route) in permissions(role, scope)
    # Whoever may write sends what no model takes, and whoever may delete does not ask: nothing is to change.
    own_body = NONSENSE if allowed and method in ("POST", "PUT", "PATCH") else body_of(route)
    if not kind:
        own = await ask(name, method, filled(route, "absent"), own_body)
        wrong = allowed == (own.code == "role_forbidden") or own.status in (401, 500)
        return [f"{own.status} {own.body[:200]}"] if wrong else []
    own_id = {**world.things["acme", ""].ids, **world.things["acme", "red"].ids}[kind]
    absent = await ask(name, method, filled(route, absent_id(own_id)), body_of(route))
    ids = [] if scope.whole else foreign_ids(world, name, kind)[: None if allowed else 1]
    faults = []
    for id in ids:
        foreign = await ask(name, method, filled(route, id), body_of(route))
        if foreign != absent:
            faults.append(f"{id} differs from an absent one: {foreign.body[:200]} {absent.body[:200]}")
    if absent.status != (404 if allowed else 403):
        faults.append(f"absent: {absent.status} {absent.body[:200]}")
    if allowed and (method == "DELETE" or kind not in visible_to(name)):
        return faults
    own = await ask(name, method, filled(route, own_id), own_body)
    if not allowed and own != absent:
        faults.append(f"own is not refused as an absent one: {own.body[:200]} {absent.body[:200]}")
    if allowed and (own.status in (401, 403, 500) or (own.status == 404 and not route[1].endswith(MAY_LACK))):
        faults.append(f"own: {own.status} {own.body[:200]}")
    return faults


def test_every_route_and_role_and_id(world: World) -> None:
    """Who has no permission is refused whatever the id; who has it finds his own, and a foreign id is an absent one."""
    routes = [route for route, _ in routes_of(world.made) if route not in CLOSED_OTHERWISE]

    async def all_of_them() -> list[str]:
        faults = []
        async with asking(world) as ask:
            for route in routes:
                found = await asyncio.gather(*(faults_of(world, ask, route, name) for name in ASKING))
                faults += [
                    f"{name}: {route}: {each}" for name, some in zip(ASKING, found, strict=True) for each in some
                ]
        return faults

    assert asyncio.run(all_of_them()) == []


def visible_to(name: str) -> set[str]:
    """The kinds of which whoever asks has something of his own."""
    of_team = {"keys", "limits", "requests", "organizations", "teams", "projects", "users", "subscriptions"}
    if name in ("manager of red", "auditor of red"):
        return of_team
    if name == "user":
        return {"keys", "limits", "requests"}
    return {*of_team, "products", "stages"}


#: Lists and sums of what belongs to somebody.
LISTS = [f"/api/v1/{name}" for name in ("keys", "limits", "requests", "usage", "projects", "users", "subscriptions")]
LISTS.append("/api/v1/reports/cache")


def test_no_list_and_no_sum_tells_of_others(world: World) -> None:
    """Whatever a principal with a scope may read holds no word of what lies outside, however it is asked for."""
    paths = [path for (method, path), _ in routes_of(world.made) if method == "GET" and "{" not in path]
    blue = world.things["umbra", "blue"].ids
    queries = ["?organization=umbra", "?team=blue", f"?key={blue['keys']}", "?tag.env=umbra-blue"]
    queries += ["?by=organization,team,key", "?by=project,user,tag.env&interval=day", "?booked_after=req_umbra-blue"]
    asked = [*paths, *(path + query for path in LISTS for query in queries)]

    async def told(ask: Ask, path: str) -> tuple[list[str], set[str]]:
        found = await asyncio.gather(*(ask(name, "GET", path) for name in SCOPED))
        faults = []
        for name, answer in zip(SCOPED, found, strict=True):
            leaked = [word for word in foreign_words(world, name) if word in answer.body]
            if leaked or answer.status == 500:
                faults.append(f"{name}: {path}: {answer.status} {leaked}")
        return faults, {path for answer in found if answer.status == 200 and "acme-red" in answer.body}

    async def all_of_them() -> list[tuple[list[str], set[str]]]:
        async with asking(world) as ask:
            return [await told(ask, path) for path in asked]

    found = asyncio.run(all_of_them())

    assert [fault for faults, _ in found for fault in faults] == []
    # Neither sums nor reports name a resource where they are not asked to.
    sums = {"/api/v1/usage", "/api/v1/reports/cache"}
    assert set(LISTS) - sums <= {path for _, paths in found for path in paths}


def test_sums_are_those_of_the_scope(world: World) -> None:
    """Everybody's cost is one call of each team; each sees just as much of it as is his own."""
    calls = {}
    for name in ASKING:
        if "usage.read" in GRANTED[ASKING[name][0]]:
            rows = Api(world.made.app, world.asking[name]).get("/api/v1/usage")["data"]
            calls[name] = sum(row["requests"] for row in rows)

    assert calls == {
        "root": 4, "admin": 4, "finance": 4, "auditor": 4, "admin of acme": 2, "finance of acme": 2,
        "manager of red": 1, "user": 1, "auditor of red": 1,
    }  # fmt: skip


def test_a_cursor_is_of_whoever_it_was_given_to(world: World) -> None:
    """A page's end says nothing to somebody who sees another part of the list."""
    cursor = Api(world.made.app, world.asking["root"]).get("/api/v1/keys?limit=1")["next_cursor"]
    answer = Api(world.made.app, world.asking["admin of acme"]).call("GET", f"/api/v1/keys?limit=1&cursor={cursor}")

    assert (answer.status_code, answer.json()["code"]) == (400, "page_invalid")


# -- what is one's own -------------------------------------------------------------------------------------------------


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[World]:
    """Two organizations to change things in."""
    with parts(tmp_path) as made:
        root = create(made.console, NewKey(name="root", role="root"))[1]
        api = Api(made.app, root)
        asking = {"root": root}
        for organization in ORGANIZATIONS:
            for name, role, payers in (
                ("admin", "admin", {}),
                ("manager", "manager", {"team": "red"}),
                ("other manager", "manager", {"team": "blue"}),
                ("auditor", "auditor", {}),
            ):
                body = {"name": name, "role": role, "organization": organization, **payers}
                asking[f"{name} of {organization}"] = api.post("/api/v1/keys", body)["secret"]
        yield World(made, {}, asking)


def as_(world: World, name: str) -> Api:
    return Api(world.made.app, world.asking[name])


def test_a_manager_looks_after_the_keys_of_the_team(acme: World) -> None:
    """What is left out is the team's; making, changing, rotating and ending go as for an admin, in the team alone."""
    manager = as_(acme, "manager of acme")
    made = manager.post("/api/v1/keys", {"name": "ci", "project": "search", "user": "ada"})
    assert (made["organization"], made["team"], made["role"]) == ("acme", "red", "caller")
    path = f"/api/v1/keys/{made['id']}"

    assert manager.send("PATCH", path, {"name": "cd"})["name"] == "cd"
    assert manager.post(f"{path}/rotate", status=200)["secret"] != made["secret"]
    assert [row["name"] for row in manager.get("/api/v1/projects")["data"]] == ["search"]
    assert {row["name"] for row in manager.get("/api/v1/keys")["data"]} == {"cd", "manager"}
    assert manager.send("DELETE", path)["state"] == "revoked"
    assert as_(acme, "manager of umbra").get("/api/v1/keys?state=active")["data"][0]["name"] == "manager"


@pytest.mark.parametrize(
    ("asks", "body"),
    [
        ("manager of acme", {"role": "admin"}),
        ("manager of acme", {"role": "auditor"}),
        ("manager of acme", {"team": "blue"}),
        ("manager of acme", {"team": None}),
        ("manager of acme", {"organization": "umbra"}),
        ("manager of acme", {"organization": "nobody"}),
        ("manager of acme", {"product": "gold"}),
        ("manager of acme", {"product": "brass"}),
        ("manager of acme", {"project": "of-blue"}),
        ("manager of acme", {"user": "of-blue"}),
        ("manager of acme", {"stage": "new"}),
        ("manager of acme", {"may_set": ["project"]}),
        ("admin of acme", {"role": "root"}),
        ("admin of acme", {"role": "admin", "organization": "umbra"}),
        ("admin of acme", {"role": "admin", "organization": None}),
        ("admin of acme", {"role": "auditor", "organization": None}),
        ("auditor of acme", {}),
    ],
)
def test_nobody_makes_a_key_beyond_his_own(acme: World, asks: str, body: dict[str, object]) -> None:
    """More rights, another's payers or another organization: refused alike, whether those exist or not."""
    as_(acme, "other manager of acme").post("/api/v1/keys", {"name": "theirs", "project": "of-blue", "user": "of-blue"})
    as_(acme, "admin of acme").post("/api/v1/products", {"name": "gold"})

    answer = as_(acme, asks).call("POST", "/api/v1/keys", json={"name": "more", **body})

    assert (answer.status_code, answer.json()["code"]) == (403, "role_forbidden"), answer.text


def test_a_restricted_manager_makes_restricted_keys(acme: World) -> None:
    """Models and times are inherited where they are left out, and refused where they are wider."""
    admin = as_(acme, "admin of acme")
    until = "2026-12-01T00:00:00Z"
    body = {"name": "narrow", "role": "manager", "team": "red", "models": ["gpt-4o"], "expires_at": until}
    narrow = Api(acme.made.app, admin.post("/api/v1/keys", body)["secret"])
    wide = admin.post("/api/v1/keys", {"name": "wide", "team": "red"})

    made = narrow.post("/api/v1/keys", {"name": "ci"})
    assert (made["models"], made["expires_at"]) == (["gpt-4o"], until)
    path = f"/api/v1/keys/{made['id']}"
    for change in ({"models": None}, {"models": ["o3"]}, {"expires_at": None}, {"role": "admin"}):
        assert narrow.send("PATCH", path, change, status=403)["code"] == "role_forbidden"
    # Its secret would be a way around what binds whoever asks.
    assert narrow.post(f"/api/v1/keys/{wide['id']}/rotate", status=403)["code"] == "role_forbidden"
    assert narrow.send("PATCH", f"/api/v1/keys/{wide['id']}", {"state": "disabled"})["state"] == "disabled"


def test_a_restricted_key_gives_no_other_what_it_has_not_by_raising_or_enabling_it(acme: World) -> None:
    """Whoever makes more of a key, or lets it be used again, gives all that it then is; narrowed too, it is taken."""
    root, until = as_(acme, "root"), "2026-12-01T00:00:00Z"
    bound = {"networks": ["192.0.2.0/24"], "expires_at": until}
    ops = Api(acme.made.app, root.post("/api/v1/keys", {"name": "ops", "role": "admin", **bound})["secret"])
    narrow = {"name": "narrow", "role": "manager", "organization": "acme", "team": "red", **bound}
    manager = Api(acme.made.app, root.post("/api/v1/keys", narrow)["secret"])
    finance = root.post("/api/v1/keys", {"name": "finance", "role": "finance"})["id"]
    caller = root.post("/api/v1/keys", {"name": "ci", "organization": "acme", "team": "red"})["id"]

    for asks, key, role in ((ops, finance, "admin"), (manager, caller, "manager")):
        path = f"/api/v1/keys/{key}"
        for part in ({}, {"networks": bound["networks"]}, {"expires_at": until}):
            assert asks.send("PATCH", path, {"role": role, **part}, 403)["code"] == "role_forbidden"
        assert asks.send("PATCH", path, {"state": "disabled"})["state"] == "disabled"
        assert asks.send("PATCH", path, {"state": "active"}, 403)["code"] == "role_forbidden"
        assert asks.send("PATCH", path, {"name": f"named by {role}"})["state"] == "disabled"
        assert asks.send("PATCH", path, {"role": role, "state": "active", **bound})["role"] == role


def test_keys_above_ones_own_are_seen_and_left_alone(acme: World) -> None:
    """A manager reads the team's auditor's key and can neither change, rotate nor revoke it; nor root's an admin."""
    auditor = as_(acme, "root").post(
        "/api/v1/keys", {"name": "looks", "role": "auditor", "organization": "acme", "team": "red"}
    )["id"]
    manager = as_(acme, "manager of acme")

    assert manager.get(f"/api/v1/keys/{auditor}")["role"] == "auditor"
    refused = [
        manager.call("PATCH", f"/api/v1/keys/{auditor}", json={"name": "x"}),
        manager.call("POST", f"/api/v1/keys/{auditor}/rotate", json={}),
        manager.call("POST", f"/api/v1/keys/{auditor}/revoke", json={}),
        manager.call("DELETE", f"/api/v1/keys/{auditor}"),
    ]
    installed = Api(acme.made.app, as_(acme, "root").post("/api/v1/keys", {"name": "ops", "role": "admin"})["secret"])
    root = next(row["id"] for row in installed.get("/api/v1/keys?role=root")["data"])
    refused += [installed.call("DELETE", f"/api/v1/keys/{root}")]
    refused += [installed.call("POST", "/api/v1/keys", json={"name": "r", "role": "root"})]

    assert [(each.status_code, each.json()["code"]) for each in refused] == [(403, "role_forbidden")] * 6


def test_what_was_set_above_binds(acme: World) -> None:
    """A limit is changed by whoever set it and whoever is above; who comes after him has the last word no more."""
    root, admin, manager = (as_(acme, name) for name in ("root", "admin of acme", "manager of acme"))
    rest = {"unit": "usd", "window": "month"}
    whole = root.post("/api/v1/limits", {"select": {"organization": "acme"}, "amount": "100", **rest})
    team = admin.post("/api/v1/limits", {"select": {"team": "red"}, "amount": "10", **rest})
    inside = manager.post("/api/v1/limits", {"select": {"model": "gpt-4o"}, "amount": "1", **rest})

    assert team["select"] == {"organization": "acme", "team": "red"}
    assert inside["select"] == {"organization": "acme", "team": "red", "model": "gpt-4o"}
    assert {row["id"] for row in admin.get("/api/v1/limits")["data"]} == {whole["id"], team["id"], inside["id"]}
    assert {row["id"] for row in manager.get("/api/v1/limits")["data"]} == {team["id"], inside["id"]}
    for who, limit in ((admin, whole), (manager, team)):
        path = f"/api/v1/limits/{limit['id']}"
        assert who.send("PATCH", path, {"amount": None}, status=403)["code"] == "role_forbidden"
        assert who.send("DELETE", path, status=403)["code"] == "role_forbidden"
        raised = {"amount": "900", "until": "2026-11-25T00:00:00Z"}
        assert who.post(f"{path}/raises", raised, status=403)["code"] == "role_forbidden"
        again = {"select": limit["select"], "amount": None, **rest}
        assert who.post("/api/v1/limits", again, status=403)["code"] == "role_forbidden"
    deposit = {"operation": "deposit", "amount": "5"}
    assert admin.post(f"/api/v1/limits/{whole['id']}/entries", deposit, status=403)["code"] == "role_forbidden"
    elsewhere = {"select": {"organization": "umbra"}, "amount": "0", **rest}
    assert manager.post("/api/v1/limits", elsewhere, status=403)["code"] == "role_forbidden"

    assert manager.send("PATCH", f"/api/v1/limits/{inside['id']}", {"amount": "2"})["amount"] == "2"
    assert admin.send("PATCH", f"/api/v1/limits/{inside['id']}", {"amount": "3"})["amount"] == "3"
    assert manager.send("PATCH", f"/api/v1/limits/{inside['id']}", {"amount": "4"}, status=403)["status"] == 403


def test_who_is_of_an_organization_does_not_change_what_it_is(acme: World) -> None:
    """Its admin makes teams in it, and neither disables nor deletes itself, nor makes another organization."""
    admin = as_(acme, "admin of acme")
    own = admin.get("/api/v1/organizations")["data"]

    assert [row["name"] for row in own] == ["acme"]
    assert admin.post("/api/v1/teams", {"name": "green"})["organization"] == "acme"
    path = f"/api/v1/organizations/{own[0]['id']}"
    assert admin.send("PATCH", path, {"state": "disabled"}, status=403)["code"] == "role_forbidden"
    assert admin.send("DELETE", path, status=403)["code"] == "role_forbidden"
    assert admin.post("/api/v1/organizations", {"name": "third"}, status=403)["code"] == "role_forbidden"
    assert admin.post("/api/v1/teams", {"name": "x", "organization": "umbra"}, status=403)["code"] == "role_forbidden"


def test_every_request_is_judged_anew(acme: World) -> None:
    """Another role, a disabled organization, a revocation: the next request knows, and so does a session."""
    root, admin = as_(acme, "root"), as_(acme, "admin of acme")
    key = next(row for row in root.get("/api/v1/keys?organization=acme&role=admin")["data"])
    path = f"/api/v1/keys/{key['id']}"
    team = {"name": "one"}
    assert admin.post("/api/v1/teams", team)["name"] == "one"

    root.send("PATCH", path, {"role": "auditor"})
    assert admin.post("/api/v1/teams", {"name": "two"}, status=403)["code"] == "role_forbidden"
    assert admin.get("/api/v1/teams")["data"] != []
    root.send("PATCH", path, {"role": "caller"})
    assert admin.get("/api/v1/teams", status=403)["code"] == "role_forbidden"
    root.send("PATCH", path, {"role": "admin"})
    assert admin.get("/api/v1/teams")["data"] != []
    organization = f"/api/v1/organizations/{root.get('/api/v1/organizations?name=acme')['data'][0]['id']}"
    root.send("PATCH", organization, {"state": "disabled"})
    assert admin.get("/api/v1/teams", status=403)["code"] == "key_disabled"
    assert as_(acme, "admin of umbra").get("/api/v1/teams")["data"] != []
    root.send("PATCH", organization, {"state": "active"})
    root.send("DELETE", path)
    assert admin.get("/api/v1/teams", status=401)["code"] == "key_revoked"


def test_the_last_key_of_the_installation_stays(acme: World) -> None:
    """Whoever would lock himself out is told so; whoever has the socket is not."""
    root = as_(acme, "root")
    path = f"/api/v1/keys/{root.get('/api/v1/keys?role=root')['data'][0]['id']}"

    for change in ({"role": "auditor"}, {"state": "disabled"}):
        assert root.send("PATCH", path, change, status=422)["code"] == "invariant"
    assert root.send("DELETE", path, status=422)["code"] == "invariant"
    assert root.post(f"{path}/revoke", {}, status=422)["code"] == "invariant"
    second = root.post("/api/v1/keys", {"name": "ops", "role": "admin"})
    assert root.send("PATCH", path, {"role": "auditor"})["role"] == "auditor"
    local = Api(trusted(acme.made.app))
    assert local.send("DELETE", f"/api/v1/keys/{second['id']}")["state"] == "revoked"


def test_the_page_shows_what_its_reader_may_see(acme: World) -> None:
    """A manager signs in as an admin does, and finds no health of the installation and nothing of others."""
    who = WHO._replace(organization="umbra", team="secret-team")
    acme.made.journal.add(
        opened(),
        *settled_call("req_1", who=who),
        *settled_call("req_2", who=WHO._replace(organization="acme", team="red")),
    )
    acme.made.project()
    signed_in = Api(acme.made.app).call(
        "POST", "/login", content=f"key={acme.asking['manager of acme']}",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    cookie = signed_in.headers["set-cookie"].partition(";")[0]

    page = Api(acme.made.app).call("GET", "/", headers={"cookie": cookie}).text

    assert "red" in page
    assert "secret-team" not in page
    assert '<h2 id="health">' not in page
    assert Api(acme.made.app).call("GET", "/api/v1/health", headers={"cookie": cookie}).status_code == 403


class AskedGate:
    """A gate that keeps which limits it was asked for."""

    connected = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def nudge(self) -> None:
        """Nothing to do."""

    async def applied(self, within_s: float) -> bool:
        return True

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        self.asked.append(limits)
        return Allowances(())


def test_the_gate_is_asked_for_ones_own_limits_alone(tmp_path: Path) -> None:
    """Live figures of others are not even fetched; all of them, or the whole gate's, cannot be asked for."""
    gate = AskedGate()
    with parts(tmp_path, gate=cast(Gate, gate)) as made:
        api = Api(made.app, made.admin_key())
        rest = {"unit": "usd", "window": "month", "amount": "1"}
        own, other = (
            api.post("/api/v1/limits", {"select": {"organization": each}, **rest})["id"] for each in ORGANIZATIONS
        )
        body = {"name": "acme", "role": "admin", "organization": "acme"}
        acme = Api(made.app, api.post("/api/v1/keys", body)["secret"])
        gate.asked.clear()

        assert [row["id"] for row in acme.get("/api/v1/limits")["data"]] == [own]
        assert acme.get(f"/api/v1/limits/{other}", status=404)["code"] == "not_found"
        assert gate.asked == [(own,)]
        view = scoped(made.console, Principal("key_1", "admin", Scope("acme")))
        assert view.gate is not None
        assert asyncio.run(view.gate.allowances((other,))).allowances == ()
        assert gate.asked == [(own,)]
        for look in (lambda: asyncio.run(view.gate.allowances()), lambda: asyncio.run(view.gate.figures())):
            with pytest.raises(OutOfScope):
                look()


def test_what_cannot_be_told_of_a_part_is_an_error_and_no_data(acme: World) -> None:
    """Books and gate of a principal with a scope refuse what nobody has narrowed, so that it is found and not shown."""
    view = scoped(acme.made.console, Principal("key_1", "admin", Scope("acme")))

    for look in (
        lambda: view.books.totals(),
        lambda: view.books.tally("key", ("role",)),
        lambda: view.books.listing("price"),
        lambda: view.books.listing("limit_entry"),
        lambda: view.books.balances({}, (), "usd", 0),
    ):
        with pytest.raises(OutOfScope):
            look()
    assert scoped(acme.made.console, Principal("key_1", "admin")).books is acme.made.console.books
