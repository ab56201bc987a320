"""How commands reach the admin API: one code path, three ways to it.

``FAREGATE_URL`` with ``FAREGATE_ADMIN_KEY`` (unless ``--data`` is given), else the socket in the data folder where an
installation runs, else the same API in this process after taking the folder's lock. It also turns the API's problems
into the errors that the command line tells.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote

import httpx2
import typer

from faregate.cli.output import DATA_DEFAULT
from faregate.config.environment import process_environment
from faregate.config.folder import DataFolder, holder_of
from faregate.errors import ConfigError, Conflict, Failed, FaregateError, NotFound, Unavailable, Unsafe, UsageError

#: Where the installation is, for commands that can also be pointed to it by ``FAREGATE_URL``.
Where = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="FAREGATE_DATA",
        help=f"Data folder of the installation (default: FAREGATE_URL where it is set, else {DATA_DEFAULT}).",
    ),
]

#: A change waits up to a second for the gate; a verify of large books takes longest.
ANSWER_SECONDS_MAX: Final = 600.0
CONNECT_SECONDS_MAX: Final = 5.0

#: ``sun_path`` holds 108 bytes; longer paths are reached through the folder's descriptor.
_SOCKET_PATH_BYTES_MAX: Final = 100

PAGE: Final = 1_000


class Refused(UsageError):
    """The API did not take what was sent; ``errors`` lists all mistakes with ``field``, ``code`` and ``detail``."""

    def __init__(self, message: str, code: str, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__(message, code=code)
        self.errors = tuple(errors)


class AdminClient:
    """Asks the admin API and gives back JSON. Make one with ``connect``."""

    def __init__(self, client: httpx2.AsyncClient, runner: asyncio.Runner, place: str, unread: str = "") -> None:
        """``unread`` is why the configuration is not known to whoever answers, where it is not."""
        self._client = client
        self._runner = runner
        self._place = place
        self._unread = unread

    def call(self, method: str, path: str, body: object = None, query: Mapping[str, str | None] | None = None) -> Any:
        """The JSON of ``method /api/v1{path}``; parameters of ``query`` that are ``None`` are left out.

        Raises:
            FaregateError: what the API told, as the error with the fitting exit code.
        """
        params = {name: value for name, value in (query or {}).items() if value is not None}
        return self._answered(
            self._client.send(self._client.build_request(method, f"/api/v1{path}", params=params, json=body))
        )

    def _answered(self, sending: Coroutine[Any, Any, httpx2.Response]) -> Any:
        try:
            answer = self._runner.run(sending)
        except httpx2.ConnectError as error:
            raise Unavailable(f"nobody answers at {self._place}", hint="is Faregate running?") from error
        except httpx2.TimeoutException as error:
            raise Unavailable(f"no answer from {self._place} in time", hint="try again") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Unavailable(f"{self._place} cannot be reached: {type(error).__name__}") from error
        try:
            return _told(answer, self._place)
        except (Refused, Unsafe) as refused:
            # What was refused may be in the file: without it there are no providers, and nothing is kept of contents.
            if self._unread and not refused.hint:
                refused.hint = f"the configuration could not be used here: {self._unread}"
            raise

    def watched(
        self,
        path: str,
        query: Mapping[str, str | None],
        progress: str,
        tell: Callable[[dict[str, Any]], None],
        every_s: float,
    ) -> Any:
        """As ``call`` with GET, for what takes long: meanwhile ``tell`` is given what ``progress`` answers.

        Raises:
            FaregateError: what the API told, as the error with the fitting exit code.
        """

        async def both() -> httpx2.Response:
            params = {name: value for name, value in query.items() if value is not None}
            request = self._client.build_request("GET", f"/api/v1{path}", params=params)
            asked = asyncio.ensure_future(self._client.send(request))
            while not (await asyncio.wait((asked,), timeout=every_s))[0]:
                with suppress(httpx2.HTTPError, FaregateError):
                    # To look is a courtesy: where it fails, the answer itself says what is wrong.
                    tell(_told(await self._client.get(f"/api/v1{progress}"), self._place))
            return asked.result()

        return self._answered(both())

    def pages(self, path: str, query: Mapping[str, str | None] | None = None) -> Iterator[dict[str, Any]]:
        """Every row of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.call("GET", path, query={**(query or {}), "limit": str(PAGE), "cursor": cursor})
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


class _Way(NamedTuple):
    """A way to an installation."""

    transport: httpx2.AsyncBaseTransport
    #: What messages call it.
    place: str
    close: Callable[[], None] | None = None
    #: Why its configuration could not be used, where the API runs in this process without it.
    unread: str = ""


@contextmanager
def connect(data: Path | None, *, make: bool = False) -> Iterator[AdminClient]:
    """A client for the installation that is meant; ``make`` lets a command set up a folder that does not exist yet.

    Raises:
        ConfigError: ``FAREGATE_URL`` is set and no key with it.
        NotFound: there is no installation at the data folder.
        Unavailable: the installation is starting or stopping.
    """
    environment = process_environment()
    url = environment.get("FAREGATE_URL", "")
    with asyncio.Runner() as runner:
        if data is None and url:
            way = _Way(_remote(), url)
            headers = _credential(environment.get("FAREGATE_ADMIN_KEY", ""))
        else:
            way = _local((data or DATA_DEFAULT).absolute(), make=make)
            url, headers = "http://localhost", {}
        client = httpx2.AsyncClient(
            base_url=url,
            headers={**headers, "accept": "application/json"},
            transport=way.transport,
            timeout=httpx2.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
            follow_redirects=False,
            trust_env=False,
        )
        try:
            yield AdminClient(client, runner, way.place, way.unread)
        finally:
            runner.run(client.aclose())
            if way.close is not None:
                way.close()


def _credential(secret: str) -> dict[str, str]:
    if not secret:
        raise ConfigError("FAREGATE_URL is set, but FAREGATE_ADMIN_KEY is not", hint="set it to an admin key")
    if not secret.isascii() or not secret.isprintable():
        raise ConfigError("FAREGATE_ADMIN_KEY is not a key", hint="was it copied whole?")
    return {"authorization": f"Bearer {secret}"}


def _remote() -> httpx2.AsyncBaseTransport:
    return httpx2.AsyncHTTPTransport(trust_env=False)


def _local(root: Path, *, make: bool) -> _Way:
    """The way to the installation in ``root``: its socket where it runs, else the API in this process."""
    folder = DataFolder(root)
    if not folder.books.exists() and not make:
        hint = "name its data folder with --data, or set FAREGATE_URL and FAREGATE_ADMIN_KEY"
        raise NotFound(f"there is no installation at {root}", hint=hint)
    if _is_socket(folder.console_socket) and holder_of(folder) is not None:
        return _Way(httpx2.AsyncHTTPTransport(uds=_short(folder.console_socket), trust_env=False), str(root))
    from faregate.assembly.offline import open_console

    try:
        app, close, unread = open_console(root)
    except Conflict as error:
        raise Unavailable(f"{root} is in use, and its console does not answer yet", hint="try again") from error
    return _Way(httpx2.ASGITransport(app), f"the books in {root}", close, unread)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _short(path: Path) -> str:
    """The path, or a shorter one to the same socket by an open descriptor of its folder."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
        return str(path)
    # The descriptor lives as long as the command does.
    return f"/proc/self/fd/{os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)}/{path.name}"


_ERRORS: Final[Mapping[str, type[FaregateError]]] = {
    "not_found": NotFound,
    "conflict": Conflict,
    "cache_off": Failed,
    # Of the key that is asked about, not of the one that asks.
    "priority_forbidden": Failed,
    "failed": Failed,
    "refused": Unsafe,
    "invariant": Unsafe,
    "unavailable": Unavailable,
    "storage_full": Unavailable,
}


def _told(answer: httpx2.Response, place: str) -> Any:
    """The JSON of an answer.

    Raises:
        FaregateError: it tells a problem, or is no answer of the admin API.
    """
    try:
        value = answer.json()
    except ValueError as error:
        raise Failed(f"{place} does not answer like Faregate's admin API", hint="is FAREGATE_URL right?") from error
    if answer.status_code < 300:
        return value
    if not isinstance(value, dict) or "code" not in value:
        raise Failed(f"{place} answered {answer.status_code}", hint="is FAREGATE_URL right?")
    raise error_of(str(value["code"]), answer.status_code, str(value.get("detail", "")), value.get("errors") or ())


def error_of(code: str, status: int, detail: str = "", errors: Sequence[Mapping[str, str]] = ()) -> FaregateError:
    """A problem of the API as the error of the command line that has the fitting exit code."""
    if code in _ERRORS:
        return _ERRORS[code](detail, code=code)
    if status in (401, 403):
        return Failed(detail, code=code, hint="set FAREGATE_ADMIN_KEY to an admin key of this installation")
    if status >= 500:
        return (Unavailable if status in (502, 503, 504) else Failed)(detail, code=code)
    return Refused(detail, code, errors)
