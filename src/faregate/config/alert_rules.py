"""The rules of channels for alerts: what is sent to a webhook is signed, and goes where the network is not our own.

Names are not looked up here: what a name points to is looked at before each alert.
"""

import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from faregate.config.findings import Path, Ruled
from faregate.config.schema import AlertChannel, Config
from faregate.config.values import is_loopback, is_private
from faregate.core.alerts import CHANNEL_SECRET_CHARACTERS, CHANNEL_URL_CHARACTERS_MAX

#: As of channels that are made through the API: visible ASCII.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://[\x21-\x7e]+")


def check_channels(config: Config, folder: FilePath) -> Iterator[Ruled]:
    """What is wrong with the channels of a configuration, whose relative files start at ``folder``."""
    ca_file = config.alerts.ca_file
    if ca_file and not (folder / ca_file).is_file():
        yield Ruled("CFG-REF", ("alerts", "ca_file"), f"{folder / ca_file} is not a file", "a PEM file")
    named: dict[str, int] = {}
    for index, channel in enumerate(config.alerts.channels):
        path: Path = ("alerts", "channels", index)
        if channel.name in named:
            problem = f"{channel.name} is the name of alerts.channels[{named[channel.name]}] already"
            yield Ruled("CFG-CONFLICT", (*path, "name"), problem, "names that differ")
        named.setdefault(channel.name, index)
        yield from _address(channel, path, allow_private=config.alerts.allow_private)


def _address(channel: AlertChannel, path: Path, *, allow_private: bool) -> Iterator[Ruled]:
    url = channel.url.get_secret_value()
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        usable = _ADDRESS.fullmatch(url) is not None and len(url) <= CHANNEL_URL_CHARACTERS_MAX and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        expected = "https://…, or an address of apprise such as mailto://…"
        yield Ruled("CFG-RANGE", (*path, "url"), "this is not an address that alerts can go to", expected)
        return
    if parts.scheme not in ("http", "https"):
        if channel.secret is not None:
            yield Ruled("CFG-CONFLICT", (*path, "secret"), "only what is sent to a webhook is signed", "it left out")
        return
    if not host or "@" in parts.netloc:
        problem = "a webhook has a host, and neither user nor password"
        yield Ruled("CFG-RANGE", (*path, "url"), problem, "e.g. https://example.com/alerts")
    elif not allow_private and (is_private(host) or is_loopback(host)):
        hint = "set alerts.allow_private: true to allow it"
        yield Ruled("CFG-UNSAFE", (*path, "url"), "this address is private or on this machine", hint=hint)
    fewest, most = CHANNEL_SECRET_CHARACTERS
    if channel.secret is None:
        hint = "make one with `openssl rand -hex 32` and write ${NAME} or file:PATH here"
        yield Ruled("CFG-MISSING", (*path, "secret"), "is missing: what is sent to a webhook is signed", hint=hint)
    elif not fewest <= len(channel.secret.get_secret_value()) <= most:
        expected = f"{fewest} to {most} characters"
        yield Ruled("CFG-SECRET", (*path, "secret"), "its length does not fit", expected)
