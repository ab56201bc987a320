"""The first run: keys made once, kept for their owner only, and printed again at every later start.

Only ever on loopback: these keys are for trying things out, and a line on a terminal is not how secrets travel.
"""

import asyncio
import json
import shlex
import time
from typing import Any

import httpx2
import msgspec

from faregate.config.folder import DataFolder, short_path
from faregate.config.secrets import read_private, write_private
from faregate.errors import ConfigError, Failed, Unavailable

#: Keys of the first run by these names are ours to make again when the file with them is lost.
ADMIN_NAME, CALLER_NAME = "first-run-admin", "first-run-caller"

REQUEST_SECONDS_MAX = 30.0
READY_SECONDS_MAX = 60.0
KEYS_PAGE = 1_000


class FirstKeys(msgspec.Struct):
    """The content of ``first-run.json``."""

    admin: str
    caller: str
    #: The sample organization was made.
    demo: bool = False


class AdminApi:
    """The admin API over the data folder's socket, which needs no credential."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One call; its JSON.

        Raises:
            Unavailable: nobody answers.
            Failed: it was refused.
        """
        with short_path(self._folder.console_socket) as socket:
            transport = httpx2.AsyncHTTPTransport(uds=socket)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://console/api/v1", timeout=REQUEST_SECONDS_MAX, trust_env=False
            ) as client:
                try:
                    answer = await client.request(method, path, json=body)
                except httpx2.HTTPError as error:
                    raise Unavailable(f"the console does not answer: {type(error).__name__}") from error
        if answer.status_code >= 400:
            raise Failed(f"{method} {path}: {answer.json().get('detail', answer.status_code)}")
        return answer.json() if answer.content else None


async def wait_ready(gateway_url: str) -> None:
    """Wait until the gate accepts calls.

    Raises:
        Unavailable: it does not within ``READY_SECONDS_MAX``.
    """
    give_up_at = time.monotonic() + READY_SECONDS_MAX
    # The certificate need not name this address: nothing secret is sent.
    async with httpx2.AsyncClient(timeout=2.0, verify=False, trust_env=False) as client:
        while time.monotonic() < give_up_at:
            try:
                if (await client.get(f"{gateway_url}/health/ready")).status_code == 200:
                    return
            except httpx2.HTTPError:
                pass
            await asyncio.sleep(0.05)
    raise Unavailable(f"the gateway is not ready after {READY_SECONDS_MAX:.0f} s", hint="see the log")


async def first_keys(folder: DataFolder, api: AdminApi) -> FirstKeys:
    """The keys of the first run, made where there are none yet or where they were revoked since."""
    kept = read_first_keys(folder)
    rows = (await api.call("GET", f"/keys?limit={KEYS_PAGE}"))["data"]
    usable = {row["name"]: row["id"] for row in rows if row.get("state") == "active"}
    if kept is not None and ADMIN_NAME in usable and CALLER_NAME in usable:
        return kept
    for name in (ADMIN_NAME, CALLER_NAME):
        if name in usable:
            await api.call("POST", f"/keys/{usable[name]}/revoke", {"reason": "its secret was lost"})
    made = FirstKeys(
        admin=(await _new_key(api, {"name": ADMIN_NAME, "role": "admin"}))["secret"],
        caller=(await _new_key(api, {"name": CALLER_NAME}))["secret"],
    )
    keep_first_keys(folder, made)
    return made


async def _new_key(api: AdminApi, wanted: dict[str, str]) -> Any:
    return await api.call("POST", "/keys", wanted)


def read_first_keys(folder: DataFolder) -> FirstKeys | None:
    """What an earlier start left; ``None`` where there is nothing usable."""
    try:
        return msgspec.json.decode(read_private(folder.first_run), type=FirstKeys)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    except ConfigError as error:
        raise ConfigError(
            f"{error.message}; keys in it may be known to others", code=error.code, hint=error.hint
        ) from None


def keep_first_keys(folder: DataFolder, keys: FirstKeys) -> None:
    """Write ``first-run.json`` for its owner only."""
    write_private(folder.first_run, msgspec.json.format(msgspec.json.encode(keys)) + b"\n")


def curl_line(gateway_url: str, secret: str, model: str) -> str:
    """A request that works as pasted into a shell."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say hello."}]})
    words = ["curl", "-sS", f"{gateway_url}/v1/chat/completions"]
    words += ["-H", f"Authorization: Bearer {secret}", "-H", "Content-Type: application/json", "-d", body]
    return shlex.join(words)
