"""Alerts reach their channels at least once, signed, whatever receivers and restarts do meanwhile."""

import asyncio
import hashlib
import hmac
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from alert_parts import SECRET, Delivery
from console_parts import HOUR, NOON, SECOND, Parts, parts, run
from faregate.console.alerts import AlertChange, change
from faregate.console.channels import ChannelChange
from faregate.console.channels import change as change_channel
from faregate.core.alerts import GIVEN_UP_AFTER_NANOS, Parcel, pause_nanos
from faregate.jobs.apprise_channels import AppriseSender
from faregate.jobs.deliver_alerts import MISSES_IN_A_ROW_MAX, AlertDelivery
from little_service import LittleService, Seen, little_service


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as each:
        yield each


def events(service: LittleService) -> list[str]:
    """Ids of the events that a receiver was sent, in their order."""
    return [seen.values("x-faregate-event-id")[0] for seen in service.seen]


def signed(seen: Seen, secret: str = SECRET) -> bool:
    """Whether a receiver that knows the secret finds the signature right."""
    (timestamp,), (told,) = seen.values("x-faregate-timestamp"), seen.values("x-faregate-signature")
    wanted = hmac.new(secret.encode(), f"{timestamp}.".encode() + seen.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(told, f"v1={wanted}")


def test_a_webhook_is_sent_signed_json_once(made: Parts) -> None:
    """The signature is over the time and the body; when it is taken the alert is sent, and no second one comes."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made)
            delivery.channel(f"{receiver.url}/alerts?a=b")
            row = delivery.alert(details={"percent": 80}, key="key_1")
            await delivery.once()
            await delivery.once()
            (seen,) = receiver.seen
        assert (seen.method, seen.target) == ("POST", "/alerts?a=b")
        assert signed(seen)
        assert not signed(seen, "another-secret-of-some-length")
        assert seen.values("x-faregate-timestamp") == [str(NOON // SECOND)]
        assert seen.values("content-type") == ["application/json"]
        assert seen.values("host") == [f"127.0.0.1:{receiver.port}"]
        body = json.loads(seen.body)
        assert body["id"] == row["id"] == seen.values("x-faregate-event-id")[0]
        assert (body["kind"], body["key"], body["details"]) == ("threshold", "key_1", {"percent": 80})
        assert body["message"] == "80 percent are spent."
        after = delivery.state()
        assert (after["state"], after["tries"], after["trouble"]) == ("sent", 0, "")

    run(scene())


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("status=500", "it answered 500"),
        ("status=404", "it answered 404"),
        ("status=302&location=http://127.0.0.1:1/", "it answered 302; redirects are not followed"),
        ("wait=2000", "no answer within 0.5 s"),
        ("end=reset", "it could not be asked"),
        ("end=half_head", "it could not be asked"),
    ],
)
def test_what_a_receiver_does_not_take_is_tried_again_after_growing_waits(made: Parts, wish: str, said: str) -> None:
    """Five seconds, ten, twenty …; the trouble says what it was, and the id stays the same."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made)
            channel = delivery.channel(f"{receiver.url}/?{wish}")
            row = delivery.alert()
            waits = []
            for tries in (1, 2, 3):
                await delivery.once()
                await delivery.once()
                now = delivery.state()
                assert (now["state"], now["tries"]) == ("waiting", tries)
                assert now["trouble"].startswith(f"ops: {said}"), now["trouble"]
                waits.append((now["next_at"] - made.clock.now) // SECOND)
                made.clock.now = now["next_at"]
            assert waits == [5, 10, 20]
            assert events(receiver) == [row["id"]] * 3
            # It comes to its senses.
            receiver.seen.clear()
            change_channel(made.console, channel["id"], ChannelChange(url=receiver.url))
            await delivery.once()
            assert events(receiver) == [row["id"]]
            assert delivery.state()["state"] == "sent"

    run(scene())


def test_a_receiver_that_says_very_much_has_taken_it(made: Parts) -> None:
    """Its status counts; nobody reads the rest."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made)
            delivery.channel(f"{receiver.url}/?size=2000000&end=half_body")
            delivery.alert()
            await delivery.once()
        assert delivery.state()["state"] == "sent"

    run(scene())


def test_after_a_day_an_alert_is_given_up_and_can_be_sent_once_more(made: Parts) -> None:
    """The last try is a day after it was raised; then it is ``failed`` until somebody wants it sent."""

    async def scene() -> None:
        async with little_service() as receiver:
            port = receiver.port
        delivery = Delivery(made)
        channel = delivery.channel(f"http://127.0.0.1:{port}/")
        row = delivery.alert()
        tries = 0
        while delivery.state()["state"] == "waiting":
            made.clock.now = delivery.state()["next_at"]
            await delivery.once()
            tries += 1
        failed = delivery.state()
        assert (failed["state"], failed["tries"]) == ("failed", tries)
        assert made.clock.now == NOON + GIVEN_UP_AFTER_NANOS
        assert failed["trouble"] == "ops: it does not take connections"
        made.clock.now += HOUR
        await delivery.once()
        assert delivery.state()["tries"] == tries
        async with little_service() as receiver:
            change_channel(made.console, channel["id"], ChannelChange(url=receiver.url))
            change(made.console, row["id"], AlertChange(state="waiting"))
            await delivery.once()
            assert events(receiver) == [row["id"]]
        assert delivery.state()["state"] == "sent"

    run(scene())


def test_waits_grow_to_an_hour_and_no_further() -> None:
    """However often it was tried."""
    assert [pause_nanos(tries) // SECOND for tries in (1, 2, 3, 9, 10, 11, 10**6)] == [
        5,
        10,
        20,
        1280,
        2560,
        3600,
        3600,
    ]


def test_a_channel_that_is_away_holds_up_no_other(made: Parts) -> None:
    """Each has its own tries: what the one took is not sent to it again while the other is tried."""

    async def scene() -> None:
        async with little_service() as good, little_service() as bad:
            delivery = Delivery(made)
            delivery.channel(good.url, "good")
            channel = delivery.channel(f"{bad.url}/?status=503", "bad")
            row = delivery.alert()
            await delivery.once()
            made.clock.now += HOUR
            await delivery.once()
            assert (events(good), events(bad)) == ([row["id"]], [row["id"]] * 2)
            assert delivery.state()["state"] == "waiting"
            change_channel(made.console, channel["id"], ChannelChange(state="disabled"))
            made.clock.now += HOUR
            await delivery.once()
            assert delivery.state()["state"] == "sent"
            assert len(bad.seen) == 2

    run(scene())


def test_many_alerts_for_a_dead_channel_cost_few_tries(made: Parts) -> None:
    """After three misses in a row it is left alone until the next look."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made)
            delivery.channel(f"{receiver.url}/?status=500")
            for number in range(10):
                delivery.alert(f"limit_{number}")
            await delivery.once()
            assert len(receiver.seen) == MISSES_IN_A_ROW_MAX

    run(scene())


def test_a_restart_goes_on_where_it_stopped(made: Parts) -> None:
    """Waits, tries and what was taken are in the books."""

    async def scene() -> None:
        async with little_service() as good, little_service() as bad:
            first = Delivery(made)
            first.channel(good.url, "good")
            channel = first.channel(f"{bad.url}/?status=500", "bad")
            row = first.alert()
            await first.once()
            second = Delivery(made)
            await second.once()
            assert (len(good.seen), len(bad.seen)) == (1, 1)
            change_channel(made.console, channel["id"], ChannelChange(url=bad.url))
            made.clock.now += 5 * SECOND
            await second.once()
            assert (events(good), events(bad)) == ([row["id"]], [row["id"]] * 2)
        assert second.state()["state"] == "sent"

    run(scene())


def test_never_are_two_of_one_alert_and_channel_on_their_way(made: Parts) -> None:
    """However often the outbox is looked at while a receiver takes its time."""

    async def scene() -> None:
        under_way, most = 0, 0

        async def slow(parcel: Parcel) -> str:
            nonlocal under_way, most
            del parcel
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.05)
            under_way -= 1
            return ""

        delivery = Delivery(made)
        delivery.channel("http://127.0.0.1:1/")
        delivery.alert()
        job = AlertDelivery(delivery.outbox, {"webhook": slow})
        await asyncio.gather(*(job.once() for _ in range(5)))
        assert most == 1
        assert delivery.state()["state"] == "sent"

    run(scene())


def test_a_channel_is_told_only_of_its_kinds_and_of_nothing_from_before_it(made: Parts) -> None:
    """Whoever subscribes today is not flooded with last week."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made)
            delivery.alert("early")
            assert delivery.state("early")["state"] == "none"
            made.clock.now += SECOND
            delivery.channel(receiver.url, alerts=["anomaly", "test"])
            delivery.alert("late")
            assert delivery.state("late")["state"] == "none"
            row = delivery.alert("braked", kind="anomaly", severity="critical", message="Braked.")
            await delivery.once()
            assert events(receiver) == [row["id"]]

    run(scene())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.1.2.3", "[::1]", "169.254.169.254", "[::ffff:10.0.0.1]"]
)
def test_nothing_is_sent_to_private_addresses_unless_they_are_allowed(made: Parts, host: str) -> None:
    """Also where a name points there: what counts is the address that is connected to."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made, allow_private=False)
            delivery.channel(f"http://{host}:{receiver.port}/")
            delivery.alert()
            await delivery.once()
            assert receiver.seen == []
        assert delivery.state()["trouble"] == "ops: its address is private or cannot be used"

    run(scene())


def test_a_name_that_does_not_resolve_is_said_so(made: Parts) -> None:
    """It may resolve later, so it is tried again."""

    async def scene() -> None:
        delivery = Delivery(made)
        delivery.channel("https://nobody.invalid/")
        delivery.alert()
        await delivery.once()
        assert delivery.state()["trouble"] == "ops: its name does not resolve"

    run(scene())


CERTIFICATES = Path(__file__).parent.parent / "config" / "certificates"


@pytest.mark.parametrize(
    ("host", "ca_file", "trouble"),
    [
        # What is connected to is the address that was looked at, what is checked is the name.
        ("localhost", str(CERTIFICATES / "good.pem"), ""),
        ("localhost", "", "ops: its certificate is not trusted"),
    ],
)
def test_certificates_are_checked_for_the_name_of_the_receiver(
    made: Parts, host: str, ca_file: str, trouble: str
) -> None:
    """By the authorities of the system, or those of ``alerts.ca_file``; the connection goes where was looked at."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def scene() -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(CERTIFICATES / "good.pem", CERTIFICATES / "good.key")
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        async with server:
            port = server.sockets[0].getsockname()[1]
            delivery = Delivery(made, ca_file=ca_file, deadline_seconds=10)
            delivery.channel(f"https://{host}:{port}/")
            delivery.alert()
            await delivery.once()
        assert delivery.state()["trouble"] == trouble
        assert [f"host: {host}:{port}".encode() in head.lower() for head in asked] == ([] if trouble else [True])

    run(scene())


def test_apprise_delivers_to_the_services_that_it_knows(made: Parts) -> None:
    """Its plain JSON service stands for all of them; a failing one is tried again."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made)
            delivery.channel(f"json://127.0.0.1:{receiver.port}/hook")
            row = delivery.alert()
            await delivery.once()
            (seen,) = receiver.seen
            body = json.loads(seen.body)
            assert "80 percent are spent." in body["message"]
            assert (body["title"], body["type"]) == ("Faregate: threshold", "warning")
            assert row["id"] in body["message"]
        assert delivery.state()["state"] == "sent"
        made.clock.now += SECOND
        delivery.alert("another")
        await delivery.once()
        assert delivery.state("another")["trouble"] == "ops: the service did not take it"

    run(scene())


def test_apprise_goes_to_no_private_address_unless_that_is_allowed(made: Parts) -> None:
    """What an address names is looked at before each alert."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made, allow_private=False)
            delivery.channel(f"json://localhost:{receiver.port}/hook")
            delivery.alert()
            await delivery.once()
            assert receiver.seen == []
        assert delivery.state()["trouble"] == "ops: its address is private or cannot be used"

    run(scene())


def test_no_log_names_an_address(made: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """Neither ours nor those of the libraries, at any level: paths and passwords of channels are secrets."""

    async def scene() -> None:
        async with little_service() as receiver:
            place = f"127.0.0.1:{receiver.port}"
            delivery = Delivery(made)
            delivery.channel(f"json://user:PASSWORD@{place}/T0KEN?-status=500", "json")
            delivery.channel("mailto://user:PASSWORD@127.0.0.1:1/T0KEN", "mail")
            delivery.channel(f"http://{place}/T0KEN?status=500", "hook")
            row = delivery.alert()
            await delivery.once()
            assert len(receiver.seen) == 2
        assert sorted(made.books.get("alert", row["id"])["details"]["tries"]) != []  # type: ignore[index]

    caplog.set_level(0)
    run(scene())
    assert len([each for each in caplog.records if each.msg == "alert_not_delivered"]) == 3
    told = "\n".join(f"{each.getMessage()} {vars(each)}" for each in caplog.records if not each.name.startswith("http"))
    assert [secret for secret in ("T0KEN", "PASSWORD") if secret in told] == []


@pytest.mark.parametrize("address", ["matrix://user:password@example.com/#room", "syslog://local0"])
def test_services_that_are_led_elsewhere_need_the_private_right(address: str) -> None:
    """They ask their host where to go, or speak to this machine, which no look at the address can judge."""
    fault = AppriseSender(allow_private=False).fault(address)
    assert fault is not None
    assert fault.code == "url_forbidden"


def test_apprise_reads_no_file_that_an_address_names(made: Parts) -> None:
    """Neither from this machine nor by a URL: a template would be sent to whoever wrote the address."""

    async def scene() -> None:
        async with little_service() as elsewhere:
            sender = AppriseSender(allow_private=True)
            webhook = "discord://1234567890/abcdefghijklmnop"
            assert await asyncio.to_thread(sender.fault, webhook) is None
            for named in (f"{elsewhere.url}/x", str(made.folder / "data" / "secrets.json")):
                fault = await asyncio.to_thread(sender.fault, f"{webhook}?template={named}")
                assert fault is not None
                assert fault.code == "field_range"
            assert elsewhere.seen == []

    run(scene())


def test_apprise_follows_no_redirect(made: Parts) -> None:
    """A public receiver must not be able to send it elsewhere, not even where its own address asks for it."""

    async def scene() -> None:
        async with little_service() as elsewhere, little_service() as receiver:
            delivery = Delivery(made)
            # A dash before a name passes it on.
            wish = f"-status=307&-location={elsewhere.url}/"
            delivery.channel(f"json://127.0.0.1:{receiver.port}/?redirect=yes&{wish}")
            delivery.alert()
            await delivery.once()
            assert [seen.target.startswith("/?status=307") for seen in receiver.seen] == [True]
            assert elsewhere.seen == []
        assert delivery.state()["state"] == "waiting"

    run(scene())


def test_the_running_job_delivers_by_itself(made: Parts) -> None:
    """It looks again and again until it is cancelled."""

    async def scene() -> None:
        async with little_service() as receiver:
            delivery = Delivery(made)
            delivery.channel(receiver.url)
            delivery.alert()
            job = asyncio.create_task(delivery.job.run())
            async with asyncio.timeout(20):
                while delivery.state()["state"] != "sent":  # noqa: ASYNC110 - looks at the books, as a user would
                    await asyncio.sleep(0.02)
            job.cancel()
            await asyncio.wait([job])
            assert len(receiver.seen) == 1

    run(scene())
