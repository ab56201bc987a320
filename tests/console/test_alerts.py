"""``/api/v1/alerts``, and raising what they show."""

from typing import Any

import pytest

from alert_parts import Delivery, Watched
from console_parts import DAY, HOUR, SECOND, Api, Parts, run
from faregate.console.alerts import raise_alert
from little_service import little_service


def raised(made: Parts, name: str, kind: str = "threshold", **more: str) -> bool:
    told: dict[str, Any] = {"severity": "warning", "message": "Something is up.", **more}
    return raise_alert(made.console, kind=kind, name=name, **told)


def test_an_alert_of_a_name_is_raised_once(made: Parts, api: Api) -> None:
    """Whoever raises it again is told that it was raised."""
    assert raised(made, "anomaly;key_1", "anomaly", key="key_1")
    assert not raised(made, "anomaly;key_1", "anomaly", message="Again.")
    (row,) = api.get("/api/v1/alerts")["data"]
    assert (row["kind"], row["key"], row["message"], row["state"]) == ("anomaly", "key_1", "Something is up.", "none")
    assert row["created_at"] == "2026-11-21T12:00:00Z"


@pytest.mark.parametrize("more", [{"kind": "weather"}, {"kind": "test", "severity": "grave"}])
def test_kinds_and_severities_are_closed_sets(made: Parts, more: dict[str, str]) -> None:
    """A typing error is seen by whoever makes it."""
    with pytest.raises(ValueError, match="no such alert"):
        raised(made, "a", **more)


def test_alerts_are_listed_newest_first_page_by_page_and_by_filters(made: Parts, api: Api) -> None:
    """Filters are kind, severity, state, limit, key and whether it was seen."""
    for number in range(5):
        made.clock.now += SECOND
        raised(made, f"n{number}", "unknowns" if number % 2 else "anomaly", key=f"key_{number}")
    every = api.pages("/api/v1/alerts?limit=2")
    assert [row["key"] for row in every] == ["key_4", "key_3", "key_2", "key_1", "key_0"]
    assert [row["key"] for row in api.get("/api/v1/alerts?kind=unknowns")["data"]] == ["key_3", "key_1"]
    assert [row["key"] for row in api.get("/api/v1/alerts?key=key_2")["data"]] == ["key_2"]
    api.send("PATCH", f"/api/v1/alerts/{every[0]['id']}", {"seen": True})
    assert [row["key"] for row in api.get("/api/v1/alerts?seen=true")["data"]] == ["key_4"]
    assert len(api.pages("/api/v1/alerts?seen=false&limit=2")) == 4
    assert api.get("/api/v1/alerts?seen=maybe", status=400)["code"] == "filter_invalid"
    assert api.get("/api/v1/alerts?colour=red", status=400)["code"] == "filter_invalid"


def test_seen_is_a_moment_and_can_be_taken_back(made: Parts, api: Api) -> None:
    """The first look counts."""
    raised(made, "a")
    path = f"/api/v1/alerts/{api.get('/api/v1/alerts')['data'][0]['id']}"
    assert api.send("PATCH", path, {"seen": True})["seen_at"] == "2026-11-21T12:00:00Z"
    made.clock.now += HOUR
    assert api.send("PATCH", path, {"seen": True})["seen_at"] == "2026-11-21T12:00:00Z"
    assert api.send("PATCH", path, {"seen": False})["seen_at"] is None


@pytest.mark.parametrize(
    ("body", "code"),
    [({"state": "sent"}, "field_enum"), ({"message": "x"}, "field_forbidden"), ({"sene": True}, "field_unknown")],
)
def test_nothing_else_of_an_alert_can_be_changed(made: Parts, api: Api, body: object, code: str) -> None:
    """What was told stays told."""
    raised(made, "a")
    row = api.get("/api/v1/alerts")["data"][0]
    assert api.send("PATCH", f"/api/v1/alerts/{row['id']}", body, status=422)["code"] == code


def test_an_alert_that_does_not_exist_is_not_found(api: Api) -> None:
    """Whatever is done with it."""
    for method, body in (("GET", None), ("PATCH", {"seen": True}), ("DELETE", None)):
        assert api.send(method, "/api/v1/alerts/alr_none", body, status=404)["code"] == "not_found"


def test_a_test_alert_goes_to_one_channel_or_to_all(made: Parts, api: Api) -> None:
    """Its state tells how that went; a channel that is not there is a mistake of the asker."""

    async def scene() -> None:
        async with little_service() as one, little_service() as other:
            delivery = Delivery(made)
            delivery.channel(one.url, "one")
            delivery.channel(other.url, "other")
            from faregate.console.alerts import NewAlert, try_channels

            row = try_channels(made.console, NewAlert(channel="one", message="Hello."))
            await delivery.once()
            assert (len(one.seen), len(other.seen)) == (1, 0)
            assert list(delivery.state(row["name"])["delivered"]) != []
            try_channels(made.console, NewAlert())
            await delivery.once()
            assert (len(one.seen), len(other.seen)) == (2, 1)

    run(scene())
    assert {row["state"] for row in api.get("/api/v1/alerts?kind=test")["data"]} == {"sent"}
    problem = api.post("/api/v1/alerts", {"channel": "nobody"}, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("field_enum", "channel")


def test_an_alert_goes_when_its_period_is_over_and_not_before(made: Parts, api: Api) -> None:
    """Before that it would be raised again at once."""
    watched = Watched(made)
    watched.limit("1", window="day")
    watched.spend(0.9)
    watched.look()
    path = f"/api/v1/alerts/{api.get('/api/v1/alerts')['data'][0]['id']}"
    problem = api.send("DELETE", path, status=409)
    assert "mark it as seen" in problem["detail"]
    made.clock.now += DAY
    assert api.send("DELETE", path)["deleted"] is True
    assert api.get("/api/v1/alerts")["data"] == []


def test_sending_once_more_needs_a_channel(made: Parts, api: Api) -> None:
    """And an alert that was not taken by all of them."""
    raised(made, "a")
    path = f"/api/v1/alerts/{api.get('/api/v1/alerts')['data'][0]['id']}"
    assert "make one first" in api.send("PATCH", path, {"state": "waiting"}, status=409)["detail"]
    made.clock.now += SECOND
    Delivery(made).channel("https://192.0.2.7/")
    assert api.send("PATCH", path, {"state": "waiting"})["state"] == "waiting"


def test_health_and_metrics_tell_how_the_telling_goes(made: Parts, api: Api) -> None:
    """Late alerts, and given up ones that nobody has seen, are trouble; readiness is another matter."""
    assert api.get("/api/v1/health")["alerts"] == {"ok": True, "waiting": 0, "failed": 0}

    async def scene(delivery: Delivery) -> None:
        await delivery.once()

    delivery = Delivery(made)
    delivery.channel("http://127.0.0.1:1/")
    row = delivery.alert()
    for _ in range(3):
        made.clock.now = delivery.state()["next_at"]
        run(scene(delivery))
    health = api.get("/api/v1/health")
    assert (health["status"], health["alerts"]["ok"], health["alerts"]["waiting"]) == ("degraded", False, 1)
    assert "it does not take connections" in health["alerts"]["detail"]
    assert api.get("/health/ready")["status"] == "ok"
    text = api.call("GET", "/metrics").text
    assert 'faregate_alerts_total{kind="threshold"} 1.0' in text
    assert "faregate_alerts_waiting 1.0" in text
    while delivery.state()["state"] == "waiting":
        made.clock.now = delivery.state()["next_at"]
        run(scene(delivery))
    assert api.get("/api/v1/health")["alerts"]["failed"] == 1
    api.send("PATCH", f"/api/v1/alerts/{row['id']}", {"seen": True})
    assert api.get("/api/v1/health")["status"] == "ok"
