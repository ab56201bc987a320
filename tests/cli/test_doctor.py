"""``faregate doctor`` on installations that do not run; ``test_serve`` has the one that does."""

import asyncio
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from commands import served
from console_parts import parts
from faregate.cli.doctor import health_of
from faregate.cli.listening import Listener, keep_listeners, read_listeners
from faregate.cli.main import run
from faregate.config.folder import DataFolder, take_lock
from faregate.console.doors import trusted
from faregate.errors import Unavailable


def looks(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, list[Any]]]:
    """Exit code, and what was seen by name."""
    words = ["doctor", "--json", "--config", str(tmp_path / "faregate.yaml"), "--data", str(tmp_path / "data"), *more]
    code = run(words)
    seen: dict[str, list[Any]] = {}
    for look in json.loads(capsys.readouterr().out)["looks"]:
        seen.setdefault(look["name"], []).append(look)
    return code, seen


def init(tmp_path: Path, capsys: pytest.CaptureFixture[str], gateway: int = 0) -> None:
    """A configuration and secrets; a gateway port where the test needs a certain one."""
    run(["init", "--config", str(tmp_path / "faregate.yaml"), "--data", str(tmp_path / "data")])
    capsys.readouterr()
    if gateway:
        file = tmp_path / "faregate.yaml"
        file.write_text(file.read_text().replace("port: 4000", f"port: {gateway}"))


def test_nothing_at_all_is_told_in_full_and_unavailable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """L84: the whole list, exit 3."""
    code, seen = looks(tmp_path, capsys)

    assert (code, seen["data folder"][0]["state"], seen["processes"][0]["state"]) == (3, "failed", "skipped")
    assert {"configuration", "data folder", "open files", "clock"} <= set(seen)


def test_an_installation_that_could_start_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that can be looked at without it running is in order."""
    init(tmp_path, capsys)

    code, seen = looks(tmp_path, capsys)

    assert code == 3
    assert [seen[name][0]["state"] for name in ("configuration", "data folder", "secrets", "file modes")] == ["ok"] * 4


def test_a_file_open_to_others_is_named_with_the_way_to_close_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Secrets and keys are for their owner."""
    init(tmp_path, capsys)
    (tmp_path / "data" / "secrets.json").chmod(0o644)
    (tmp_path / "data" / "first-run.json").touch(0o644)

    _, seen = looks(tmp_path, capsys)

    assert "chmod 600" in seen["secrets"][0]["mend"]
    assert "first-run.json" in seen["file modes"][0]["detail"]


def test_a_port_that_somebody_has_is_told_before_the_start_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The port by its number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        init(tmp_path, capsys, gateway=port)

        _, seen = looks(tmp_path, capsys)

    assert (seen["gateway port"][0]["state"], str(port) in seen["gateway port"][0]["detail"]) == ("failed", True)


def test_a_broken_configuration_is_one_of_the_things_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rest is looked at nevertheless."""
    init(tmp_path, capsys)
    (tmp_path / "faregate.yaml").write_text("gateway: 1\n")

    _, seen = looks(tmp_path, capsys)

    assert (seen["configuration"][0]["state"], seen["data folder"][0]["state"]) == ("failed", "ok")


def test_a_console_that_is_still_starting_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A look right after the start finds an installation that is well, not one that is ill."""
    init(tmp_path, capsys)
    looked = threading.Event()

    def start_late(app: Any) -> None:
        time.sleep(0.5)
        with served(trusted(app), socket_in=tmp_path / "data", locked=True):
            looked.wait(30)

    lock = take_lock(DataFolder(tmp_path / "data"))
    with parts(tmp_path) as made:
        console = threading.Thread(target=start_late, args=(made.app,))
        console.start()
        _, seen = looks(tmp_path, capsys)
        looked.set()
        console.join()
    lock.release()

    assert (seen["console"][0]["state"], seen["gate"][0]["state"]) == ("ok", "ok")


def test_a_listener_that_is_gone_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the installation says that it listens it must accept connections: exit 1."""
    init(tmp_path, capsys)
    folder = DataFolder(tmp_path / "data")
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
        with parts(tmp_path) as made, served(trusted(made.app), socket_in=folder.root):
            keep_listeners(folder, os.getpid(), [Listener("gateway", "127.0.0.1", port, tls=False)])
            code, seen = looks(tmp_path, capsys)

    assert (code, [look["state"] for look in seen["gateway port"]], "console port" in seen) == (1, ["failed"], False)
    assert f"127.0.0.1:{port}" in seen["gateway port"][0]["detail"]
    assert f"127.0.0.1:{port}: only this machine" in seen["gateway access"][0]["detail"]


def test_what_another_process_wrote_of_its_listeners_is_not_believed(tmp_path: Path) -> None:
    """A file that a killed installation left, or a broken one, says nothing of the one that runs."""
    folder = DataFolder(tmp_path)
    before = read_listeners(folder, 7)
    keep_listeners(folder, 7, [Listener("console", "::1", 4001, tls=True)])
    found, others = read_listeners(folder, 7), read_listeners(folder, 8)
    folder.listening.write_text("{")

    assert (found, others) == ([Listener("console", "::1", 4001, tls=True)], [])
    assert before == read_listeners(folder, 7) == []


def test_a_console_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """The wait has an end, and it is told."""
    (tmp_path / "data").mkdir()

    with pytest.raises(Unavailable, match=r"does not answer.*waited 0\.3 s"):
        asyncio.run(health_of(DataFolder(tmp_path / "data"), within_s=0.3))
