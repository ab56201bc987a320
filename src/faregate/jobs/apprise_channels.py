"""Sends an alert through apprise, which knows a hundred services: mail, Slack, Teams, ntfy and many more.

It is loaded (47 MB, a second) when the first channel needs it, and works in a thread, because it waits. What it tells
of a failure is that there was one; its log could name addresses with their credentials, so it is silenced.
"""

import asyncio
import contextlib
import logging
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

from faregate.core.alerts import AddressFault, Parcel
from faregate.dialects.urls import is_public_address

#: A thread is waited for so long; it may go on after that, and the alert is not sent again before it has ended.
DEADLINE_SECONDS: Final = 30.0

#: Fields of apprise's services that name the machine they speak to.
_HOSTS: Final = ("host", "smtp_host")

#: What these log names addresses, with tokens in their paths.
_SILENCED: Final = ("apprise", "requests", "urllib3")

_KINDS: Final = {"info": "info", "warning": "warning", "critical": "failure"}


class AppriseSender:
    """Sends through apprise."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._loading = threading.Lock()
        self._package: Any = None
        #: ``(alert, channel)`` of threads that have not ended.
        self._under_way: dict[tuple[str, str], asyncio.Future[str]] = {}

    async def send(self, parcel: Parcel) -> str:
        """Send once; why it was not taken, in a few words, or nothing where it was."""
        at = parcel.alert, parcel.channel.id
        work = self._under_way.get(at)
        if work is None:
            work = self._under_way[at] = _beside(lambda: self._send(parcel))
            work.add_done_callback(lambda _: self._under_way.pop(at, None))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await asyncio.shield(work)
        except TimeoutError:
            return f"no answer within {DEADLINE_SECONDS:g} s"

    def fault(self, url: str) -> AddressFault | None:
        """What is wrong with an address of apprise; loads it, so it is for threads."""
        service = self._service(url)
        if service is None:
            return AddressFault("field_range", "apprise knows no service for this address; see its documentation")
        if not self._allow_private and _reaches_inside(service):
            rule = "this address is private or on this machine; set alerts.allow_private: true to allow it"
            return AddressFault("url_forbidden", rule)
        return None

    def _send(self, parcel: Parcel) -> str:
        service = self._service(parcel.channel.url)
        if service is None or (not self._allow_private and _reaches_inside(service)):
            return "its address is private or cannot be used"
        told = parcel.told
        notify_type = self._package.NotifyType(_KINDS.get(str(told["severity"]), "info"))
        title = f"Faregate: {str(told['kind']).replace('_', ' ')}"
        body = f"{told['message']}\n\n{told['id']}"
        try:
            taken = service.notify(body=body, title=title, notify_type=notify_type)
        # Its services fail in ways of their own, and this one alert is tried again.
        except Exception as error:
            return f"the service failed ({type(error).__name__})"
        return "" if taken else "the service did not take it"

    def _service(self, url: str) -> Any:
        """The service behind an address; ``None`` where there is none."""
        with self._loading:
            if self._package is None:
                self._package = _load()
        package = self._package
        # No redirects: an address that was looked at must be the one that is spoken to.
        asset = package.AppriseAsset(http_redirects=False, secure_logging=True, app_id="Faregate", app_desc="Faregate")
        try:
            service = package.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        except Exception:  # What an address does to a parser of a hundred forms is not ours to know: no service.
            return None
        if service is not None:
            # Also where the address itself asks for them.
            service.redirects = False
        return service


def _beside(work: Callable[[], str]) -> asyncio.Future[str]:
    """Do something in a thread that nobody waits for when the process ends: a service may take its time."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def tell(result: str) -> None:
        if not done.done():
            done.set_result(result)

    def run() -> None:
        try:
            result = work()
        # Whoever waits must be told, whatever it was.
        except Exception as error:
            result = f"the service failed ({type(error).__name__})"
        with contextlib.suppress(RuntimeError):  # The loop has ended, and with it the interest.
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, name="apprise", daemon=True).start()
    return done


def _load() -> Any:
    for name in _SILENCED:
        log = logging.getLogger(name)
        log.propagate = False
        log.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        # It looks for modules that Python is about to lose, and its services are found at the first look.
        warnings.simplefilter("ignore")
        import apprise
        from apprise import manager_attachment

        # An address may name a template, a key or another file, also by a URL, which would be read from here and sent.
        files: Any = manager_attachment
        known = files.AttachmentManager()
        known.remove(*known.schemas())
        apprise.Apprise.instantiate("json://localhost")
    return apprise


#: They ask the host of their address where to go, or speak to this machine: what a look at the address cannot judge.
_LED_ELSEWHERE: Final = ("matrix", "bluesky", "syslog", "rsyslog", "dbus", "gnome", "macosx", "windows")


def _reaches_inside(service: Any) -> bool:
    """Whether a service speaks to a machine that its address names and that is not a public one.

    Looked at again before each alert, because a name may point elsewhere by then.
    """
    if type(service).__name__.lower().removeprefix("notify") in _LED_ELSEWHERE:
        return True
    if "host" not in getattr(service, "template_tokens", ()):
        # It has a place of its own; what it keeps as a host is a part of its credentials.
        return False
    return any(_is_inside(host) for name in _HOSTS if isinstance(host := getattr(service, name, None), str) and host)


def _is_inside(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # What does not resolve cannot be spoken to.
        return False
    return not all(is_public_address(str(each[4][0])) for each in found)
