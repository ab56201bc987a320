"""The guide's nginx asks the gate before it lets anybody through to a service; not run where there is no nginx."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from gates import RunningGate, key, money, running_gate, scenario, secret
from installation import free_port
from little_service import LittleService, little_service

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "protect-any-service.md"

FRAME = """\
{user}worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port};
{locations}
  }}
}}
"""


@asynccontextmanager
async def nginx_before(folder: Path, running: RunningGate, service: LittleService) -> AsyncIterator[httpx2.AsyncClient]:
    """The locations of the guide, with our ports."""
    (locations,) = re.findall(r"^ *```nginx\n(.*?)^ *```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    locations = locations.replace("127.0.0.1:4000", urlsplit(running.url).netloc)
    locations = locations.replace("127.0.0.1:3000", urlsplit(service.url).netloc)
    port, user = free_port(), "user root;\n" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(FRAME.format(user=user, folder=folder, port=port, locations=locations))
    assert NGINX is not None
    log = (folder / "nginx.log").open("wb")
    process = await asyncio.create_subprocess_exec(NGINX, "-c", str(config), stdout=log, stderr=log)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            for _ in range(200):
                try:
                    await client.get("/nowhere")
                    break
                except httpx2.ConnectError:
                    await asyncio.sleep(0.05)
            yield client
    finally:
        process.terminate()
        await process.wait()
        log.close()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_lets_through_whom_the_gate_would(tmp_path: Path) -> None:
    """A good key passes and its id goes to the service, without the key; others and forged headers do not pass."""

    @scenario
    async def run() -> None:
        keys = (key(paths=("/grafana",)), key("off", state="disabled"), key("other", paths=("/else",)), key("poor"))
        limits = (money(0, selector={"key": "key_poor"}, id="lim_poor"),)
        async with (
            running_gate(tmp_path / "gate", keys=keys, limits=limits) as running,
            little_service() as service,
            nginx_before(tmp_path, running, service) as client,
        ):
            page = "/grafana/d/1?x=y"
            statuses = {
                name: (await client.get(page, headers={"authorization": f"Bearer {secret(name)}"})).status_code
                for name in ("caller", "nobody", "off", "other")
            }
            none = await client.get(page)
            forged = {
                "authorization": f"Bearer {secret('other')}",
                "x-forwarded-uri": "/else/x",
                "x-original-uri": "/else",
            }
            fooled = await client.get(page, headers=forged)
            poor = await client.get(page, headers={"authorization": f"Bearer {secret('poor')}"})
            (seen,) = service.seen

            assert statuses == {"caller": 200, "nobody": 401, "off": 403, "other": 403}
            assert (none.status_code, fooled.status_code) == (401, 403)
            # nginx knows no other refusal of what it asks, and makes an error of its own of them.
            assert poor.status_code == 500
            assert (seen.target, seen.values("x-caller"), seen.values("authorization")) == (
                "/d/1?x=y",
                ["key_caller"],
                [],
            )

    run()
