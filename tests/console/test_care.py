"""Verify, backup, health, metrics, payers, and what people may write."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from console_parts import NOON, SECOND, Api, Parts, opened, settled_call
from fakes import AwayGate
from faregate.console.app import create_app
from faregate.console.doors import trusted
from faregate.console.metrics import guarded
from faregate.console.state import Check
from faregate.console.texts import moment, text_fault, time_text
from faregate.control import Allowances, Figures, Histogram, Report, Reported, Resolve, Sample
from faregate.errors import Unavailable


class FigureGate(AwayGate):
    """A gate that knows figures, or is away."""

    def __init__(self, figures: Figures | None) -> None:
        self.told = figures

    async def figures(self) -> Figures:
        if self.told is None:
            raise Unavailable("the gate is not running")
        return self.told

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        return Allowances(())

    async def resolve(self, order: Resolve) -> bool:
        return False

    async def report(self, order: Report) -> Reported:
        return Reported()


LABELS = (("team", "research"), ("status", "ok"))
FIGURES = Figures(
    ready=True, draining=False, epoch=1, position=30, projected=10, sequence=4, open_exchanges=2, held_nanos=5_000_000,
    unknown_count=1, unknown_nanos=7, connections=3,
    samples=(
        Sample("faregate_requests_total", LABELS, 12),
        Sample("faregate_cost_nanos_total", LABELS, 1_750_000_001),
        Sample("faregate_tokens_total", (*LABELS, ("kind", "input")), 300),
        Sample("faregate_refusals_total", (("code", "budget_exhausted"),), 2),
    ),
    histograms=(Histogram("faregate_overhead_seconds", (), ((50, 1), (100, 3)), 400, 4),),
)  # fmt: skip


# -- verify and backup -------------------------------------------------------------------------------------------------


def test_verify_of_empty_books_is_ok(api: Api) -> None:
    """Nothing adds up to nothing."""
    found = api.get("/api/v1/verify")
    assert {name: found[name] for name in ("ok", "requests", "postings", "held", "unknown", "sum")} == {
        "ok": True, "requests": 0, "postings": 0, "held": "0", "unknown": "0", "sum": "0",
    }  # fmt: skip


def test_verify_counts_two_postings_for_each_charged_call(made: Parts, api: Api) -> None:
    """The figures are those of CONTRACT."""
    made.journal.add(opened(), *settled_call("req_1"), *settled_call("req_2"))
    made.project()
    found = api.get("/api/v1/verify")
    assert (found["ok"], found["requests"], found["postings"], found["sum"]) == (True, 2, 4, "0")


def test_verify_is_not_ok_when_the_journal_differs(made: Parts) -> None:
    """One failed check is enough, and it is named."""
    console = replace(made.console, check_journal=lambda: [Check("journal", False, "req_7 differs")])
    found = Api(create_app(console), made.admin_key()).get("/api/v1/verify")
    assert found["ok"] is False
    assert found["checks"][-1] == {"name": "journal", "ok": False, "detail": "req_7 differs"}


def test_verify_waits_until_the_books_hold_what_the_gate_wrote(made: Parts) -> None:
    """The comparison is of one moment."""
    made.journal.add(opened(), *settled_call("req_1"))
    made.project()
    console = replace(made.console, gate=FigureGate(FIGURES))
    checks = Api(create_app(console), made.admin_key()).get("/api/v1/verify")["checks"]
    assert checks[0] == {
        "name": "projection",
        "ok": True,
        "detail": "the books hold the journal up to 30; asked for 30",
    }


def test_a_backup_is_written_beside_the_running_books(made: Parts, api: Api) -> None:
    """Its digest is told; a file that exists is not replaced unasked."""
    target = made.folder / "copy.backup"
    told = api.post("/api/v1/backup", {"file": str(target)}, status=200)
    assert told["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert told["bytes"] == target.stat().st_size
    assert api.post("/api/v1/backup", {"file": str(target)}, status=409)["code"] == "refused"
    assert api.post("/api/v1/backup", {"file": str(target), "force": True}, status=200)["bytes"] > 0


def test_a_key_replaces_backups_alone(made: Parts, api: Api) -> None:
    """Not whatever else the service may write, or a link to nothing; on the Unix socket any file."""
    other, link = made.folder / "authorized_keys", made.folder / "link"
    other.write_text("ssh-ed25519 AAAA")
    link.symlink_to(made.folder / "nowhere")
    for file in (other, link):
        problem = api.post("/api/v1/backup", {"file": str(file), "force": True}, status=409)
        assert (problem["code"], "no backup" in problem["detail"]) == ("refused", True)
    assert (other.read_text(), link.is_symlink()) == ("ssh-ed25519 AAAA", True)

    told = Api(trusted(made.app)).post("/api/v1/backup", {"file": str(other), "force": True}, status=200)
    assert told["bytes"] == other.stat().st_size


def test_a_backup_that_cannot_be_leaves_nothing(made: Parts, api: Api) -> None:
    """Relative paths, folders, missing folders and the data folder itself are refused."""
    data = made.folder / "data"
    for file, code in (
        ("copy.backup", "field_range"),
        (str(made.folder), "field_range"),
        (str(data / "books.sqlite3"), "refused"),
        (str(data / "sub" / ".." / "copy"), "refused"),
        (str(made.folder / "nowhere" / "copy"), "failed"),
        ("/\0", "field_range"),
    ):
        assert (
            Api(made.app, made.admin_key(file.replace("\0", "0")[-40:])).send(
                "POST", "/api/v1/backup", {"file": file}, status=409 if code == "refused" else 422
            )["code"]
            == code
        ), file
    assert sorted(each.name for each in made.folder.iterdir()) == ["data"]


# -- health and metrics ------------------------------------------------------------------------------------------------


def test_probes_need_no_credential_and_tell_no_detail(made: Parts) -> None:
    """Alive is alive; ready says only yes or no."""
    for gate, status in ((FigureGate(FIGURES), 200), (FigureGate(None), 503)):
        app = create_app(replace(made.console, gate=gate))
        assert Api(app).call("GET", "/health/live").json() == {"status": "ok"}
        ready = Api(app).call("GET", "/health/ready")
        assert (ready.status_code, list(ready.json())) == (status, ["status"])


def test_health_tells_what_is_wrong_to_admins(made: Parts) -> None:
    """Each part by itself, with the gate's figures in dollars."""
    secret = made.admin_key()
    well = Api(create_app(replace(made.console, gate=FigureGate(FIGURES))), secret).get("/api/v1/health")
    assert (well["status"], well["gate"]["held"], well["gate"]["backlog_bytes"]) == ("ok", "0.005", 20)
    made.projector.trouble = "the journal is damaged at position 7"
    torn = replace(made.console, gate=FigureGate(None), damage=lambda: "row 3 missing from index")
    ill = Api(create_app(torn), secret).get("/api/v1/health")
    assert ill["status"] == "degraded"
    assert ill["gate"]["detail"] == "the gate is not running"
    assert "row 3 missing from index" in ill["books"]["detail"]
    assert ill["projector"]["detail"] == "the journal is damaged at position 7"


def metrics_of(app: Any, secret: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a scrape."""
    text = Api(app, secret).call("GET", "/metrics").text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for each in families
        for sample in each.samples
    }


def test_metrics_have_the_promised_names_in_dollars_and_seconds(made: Parts) -> None:
    """The gate's integers become what dashboards expect."""
    made.journal.add(opened(NOON - 40 * SECOND))
    found = metrics_of(create_app(replace(made.console, gate=FigureGate(FIGURES))), made.admin_key())
    labels = tuple(sorted(LABELS))
    assert found[("faregate_requests_total", labels)] == 12
    assert found[("faregate_cost_dollars_total", labels)] == 1.750000001
    assert found[("faregate_tokens_total", tuple(sorted((*LABELS, ("kind", "input")))))] == 300
    assert found[("faregate_refusals_total", (("code", "budget_exhausted"),))] == 2
    assert found[("faregate_overhead_seconds_bucket", (("le", "0.0001"),))] == 3
    assert found[("faregate_overhead_seconds_bucket", (("le", "+Inf"),))] == 4
    assert found[("faregate_overhead_seconds_sum", ())] == 0.0004
    assert found[("faregate_held_dollars", ())] == 0.005
    assert found[("faregate_unknown_dollars", ())] == 7e-9
    assert found[("faregate_gate_up", ())] == 1
    assert found[("faregate_journal_lag_seconds", ())] > 0


def test_facts_that_wait_to_be_copied_outward_are_counted(made: Parts) -> None:
    """One call that ended is one fact."""
    made.journal.add(opened(), *settled_call("req_1"))
    made.project()
    assert metrics_of(made.app, made.admin_key())[("faregate_outbox_backlog", ())] == 1


def test_metrics_of_a_gate_that_is_away_say_so(made: Parts) -> None:
    """A scrape never fails for it."""
    found = metrics_of(create_app(replace(made.console, gate=FigureGate(None))), made.admin_key())
    assert found[("faregate_gate_up", ())] == 0
    assert ("faregate_held_dollars", ()) not in found


@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["ok", "failed"]), st.integers(0, 1000)), max_size=60),
    st.integers(1, 10),
)
def test_the_cardinality_guard_loses_no_count(rows: list[tuple[int, str, int]], most: int) -> None:
    """Few label sets, the same sum, and closed labels keep their values."""
    samples = [Sample("x", (("team", f"t{team}"), ("status", status)), value) for team, status, value in rows]
    kept = dict(guarded(samples, most))
    assert sum(kept.values()) == sum(value for _, _, value in rows)
    assert len(kept) <= most + 2
    for status in ("ok", "failed"):
        found = sum(value for labels, value in kept.items() if ("status", status) in labels)
        assert found == sum(value for _, each, value in rows if each == status)


# -- payers ------------------------------------------------------------------------------------------------------------


def test_payers_are_made_listed_and_never_twice(api: Api) -> None:
    """The same name in another organization is another payer."""
    team = api.post("/api/v1/teams", {"name": "research"})
    assert (team["organization"], team["id"][:5]) == ("default", "team_")
    assert api.post("/api/v1/teams", {"name": "research"}, status=409)["code"] == "conflict"
    other = api.post("/api/v1/teams", {"name": "research", "organization": "acme"})
    assert other["id"] != team["id"]
    assert api.get("/api/v1/teams?organization=acme")["data"] == [other]
    assert api.get(f"/api/v1/teams/{team['id']}") == team
    assert api.get("/api/v1/teams/team_0", status=404)["code"] == "not_found"
    assert api.post("/api/v1/projects", {"name": "search", "team": "labs"})["team"] == "labs"
    assert [row["name"] for row in api.get("/api/v1/organizations")["data"]] == ["default", "acme"]
    assert api.post("/api/v1/organizations", {"name": "a", "team": "b"}, status=422)["code"] == "field_unknown"
    for kind in ("users", "products", "stages"):
        assert api.post(f"/api/v1/{kind}", {"name": "x"})["name"] == "x"


# -- texts -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4 * 10**18).map(lambda nanos: nanos - nanos % 1000))
def test_times_read_back_as_they_were_written(nanos: int) -> None:
    """To the microsecond, for every moment of the next century."""
    text = time_text(nanos)
    assert (0 if text is None else moment(text)) == nanos


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("2026-11-21T12:00:00Z", NOON),
        ("2026-11-21t13:00:00+01:00", NOON),
        ("2026-11-21 12:00:00.5z", NOON + SECOND // 2),
        ("2026-11-21", NOON - 12 * 3600 * SECOND),
    ],
)
def test_the_forms_of_rfc_3339_are_understood(text: str, nanos: int) -> None:
    """Offsets, fractions, small letters, and a plain date as its midnight in UTC."""
    assert moment(text) == nanos


@pytest.mark.parametrize(
    "text", ["", "now", "2026-02-30", "2026-11-21T12:00:00", "1795262400", "2026-13-01", "²026-11"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """A time without its zone is no time."""
    with pytest.raises(ValueError, match=r"RFC 3339|calendar"):
        moment(text)


@given(st.text(max_size=140))
def test_a_text_without_fault_is_one_visible_line(text: str) -> None:
    """Whatever passes has no control, invisible or direction characters and no blank ends."""
    if not text_fault(text, 128):
        assert text.isprintable()
        assert text == text.strip() != ""
        assert len(text) <= 128
