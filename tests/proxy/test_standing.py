"""What stops a key beside its own state: disabled payers, networks, paths; over real sockets."""

from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from faregate.control import Load
from faregate.core.ledger.events import Intended
from faregate.core.metering.service import ServiceTerms
from gates import deployment, key, provider, running_gate, scenario, secret

PAYERS: dict[str, Any] = {"user": "ada", "product": "gold", "stage": "dev", "subscription": "sub_1"}


@pytest.mark.parametrize(
    ("halted", "said"),
    [
        (("organization", "", "default"), "Organization default is disabled"),
        (("team", "default", "research"), "Team research is disabled"),
        (("project", "default", "search"), "Project search is disabled"),
        (("user", "default", "ada"), "User ada is disabled"),
        (("product", "default", "gold"), "Product gold is disabled"),
        (("stage", "default", "dev"), "Stage dev is disabled"),
        (("subscription", "default", "sub_1"), "Subscription sub_1 is disabled"),
    ],
)
@scenario
async def test_a_disabled_payer_stops_its_keys_and_no_others(
    tmp_path: Path, halted: tuple[str, str, str], said: str
) -> None:
    """The next call on the same connection is refused, a key of others passes, and enabling lifts it."""
    other = key("other", team="sales", project="other", organization="else")
    async with running_gate(tmp_path, keys=[key(**PAYERS), other]) as running:
        assert (await running.chat()).status_code == 200
        await running.ask(Load(2, halted=(halted,)))
        refused = await running.chat()
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "key_disabled"
        assert said in refused.json()["error"]["message"]
        assert (await running.chat(name="other")).status_code == 200
        # What changes beside it leaves it in force; that nobody is disabled is told like anything else.
        await running.ask(Load(3, keys=(key("third", team="ops"),)))
        assert (await running.chat()).status_code == 403
        await running.ask(Load(4, halted=()))
        assert (await running.chat()).status_code == 200


@scenario
async def test_the_same_name_in_another_organization_is_not_meant(tmp_path: Path) -> None:
    """Names belong to their organization."""
    async with running_gate(tmp_path) as running:
        await running.ask(Load(2, halted=(("team", "else", "research"), ("product", "default", ""))))
        assert (await running.chat()).status_code == 200


@scenario
async def test_a_project_that_a_call_names_itself_is_looked_at_too(tmp_path: Path) -> None:
    """A key that may choose its project does not get around a disabled one."""
    async with running_gate(tmp_path, keys=[key(may_set=("project",))]) as running:
        await running.ask(Load(2, halted=(("project", "default", "other"),)))
        refused = await running.chat(headers={"x-faregate-project": "other"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "key_disabled")
        assert (await running.chat()).status_code == 200


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ("search", ""),
        ("other", ""),
        ("theirs", "of another team"),
        ("abroad", "no such project"),
        ("nowhere", "no such project"),
    ],
)
@scenario
async def test_a_call_names_projects_of_its_keys_team_and_organization(tmp_path: Path, project: str, said: str) -> None:
    """So that what a team used is what its projects used; another organization's project is as none."""
    async with running_gate(tmp_path, keys=[key(may_set=("project",))]) as running:
        catalogue = msgspec.structs.replace(
            running.gate.snapshot.catalogue,
            projects=("search", "other", "theirs", "abroad"),
            project_teams=(
                *(("default", "search", "research"), ("default", "other", ""), ("default", "theirs", "sales")),
                ("else", "abroad", ""),
            ),
        )
        await running.ask(Load(2, catalogue=catalogue))
        answer = await running.chat(headers={"x-faregate-project": project})
        assert answer.status_code == (400 if said else 200)
        assert said in answer.text


@pytest.mark.parametrize(
    ("networks", "trusted", "forwarded", "status"),
    [
        (("127.0.0.0/8",), (), None, 200),
        (("10.0.0.0/8",), (), None, 403),
        (("10.0.0.0/8",), (), "10.1.2.3", 403),
        (("10.0.0.0/8",), ("127.0.0.1",), "10.1.2.3", 200),
        (("10.0.0.0/8",), ("127.0.0.1",), "10.1.2.3, 198.51.100.7", 403),
        (("10.0.0.0/8",), ("127.0.0.1",), "198.51.100.7, 10.1.2.3", 200),
        (("10.0.0.0/8",), ("127.0.0.1",), None, 403),
        (("127.0.0.0/8", "10.0.0.0/8"), ("127.0.0.1",), "nonsense", 403),
    ],
)
@scenario
async def test_a_key_is_used_from_its_networks_alone(
    tmp_path: Path, networks: tuple[str, ...], trusted: tuple[str, ...], forwarded: str | None, status: int
) -> None:
    """By the peer's address; X-Forwarded-For counts only where a trusted proxy wrote it, and nothing is sent on."""
    async with running_gate(tmp_path, keys=[key(networks=networks)], trusted_proxies=trusted) as running:
        headers = {"x-forwarded-for": forwarded} if forwarded is not None else {}
        answers = [await running.chat(headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [status, status]
        if status == 403:
            assert answers[0].json()["error"]["code"] == "ip_denied"
            assert running.of(Intended) == []


@scenario
async def test_a_large_body_from_another_network_is_not_received(tmp_path: Path) -> None:
    """It is refused by its head, before the body comes."""
    async with running_gate(tmp_path, keys=[key(networks=("10.0.0.0/8",))]) as running:
        answer = await running.chat("x" * 2_000_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ip_denied")


def post(running: Any, path: str) -> Any:
    """A call of the usual caller at a path."""
    body = {"model": "sim-1", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 20}
    return running.client.post(path, json=body, headers={"authorization": f"Bearer {secret('caller')}"})


@pytest.mark.parametrize(
    ("paths", "path", "status"),
    [
        (("/v1/chat",), "/v1/chat/completions", 200),
        (("/v1/chat/completions",), "/v1/chat/completions?x=1", 200),
        (("/v1/cha",), "/v1/chat/completions", 403),
        (("/v1/embeddings",), "/v1/chat/completions", 403),
        (("/",), "/v1/chat/completions", 200),
        (("/v1/models",), "/v1/chat/completions", 403),
        (("/v1/chat",), "/v1/chat/deployments/sim-1/chat/completions", 403),
        (("/openai/deployments/sim-1/chat",), "/v1/chat/deployments/sim-1/chat/completions", 200),
        (("/deployments/sim-1",), "/openai/deployments/sim-1/chat/completions", 200),
        (("/deployments/other",), "/openai/deployments/sim-1/chat/completions", 403),
    ],
)
@scenario
async def test_a_key_calls_its_paths_alone(tmp_path: Path, paths: tuple[str, ...], path: str, status: int) -> None:
    """By whole segments; what stands before an Azure path means nothing, so it allows nothing."""
    async with running_gate(tmp_path, keys=[key(paths=paths)]) as running:
        answer: httpx2.Response = await post(running, path)
        assert answer.status_code == status, answer.text
        if status == 403:
            assert answer.json()["error"]["code"] == "path_forbidden"
            assert path.partition("?")[0].removeprefix("/v1/chat").split("/")[-1] in answer.json()["error"]["message"]


@scenario
async def test_a_service_that_comes_later_is_for_keys_of_all_services_alone(tmp_path: Path) -> None:
    """A key limited to one service is refused at another one; a key without a list may call both."""

    def service(name: str, url: str) -> Any:
        return deployment(name, provider=name, upstream_model="", model="", operations=(name,), cards=(),
                          service=ServiceTerms())  # fmt: skip

    keys = [key(operations=("ocr",)), key("all")]
    async with running_gate(tmp_path, keys=keys) as running:
        catalogue = running.gate.snapshot.catalogue
        places = [service(name, running.simulator.url) for name in ("ocr", "speech")]
        providers = [provider(running.simulator.url, name=name, kind="http") for name in ("ocr", "speech")]
        later = msgspec.structs.replace(
            catalogue,
            providers=(*catalogue.providers, *providers),
            deployments=(*catalogue.deployments, *places),
        )
        await running.ask(Load(2, catalogue=later))

        async def call(name: str, service: str) -> Any:
            headers = {"authorization": f"Bearer {secret(name)}"}
            answer = await running.client.get(f"/services/{service}/health", headers=headers)
            return answer.json().get("error", {}).get("code") if answer.status_code == 403 else "passed"

        assert [await call("caller", "ocr"), await call("caller", "speech")] == ["passed", "operation_forbidden"]
        assert [await call("all", "ocr"), await call("all", "speech")] == ["passed", "passed"]
