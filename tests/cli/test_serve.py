"""``faregate serve`` from the outside, with real processes: what it prints, what it survives, and how it ends."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command
from faregate.cli.built_in import SIMULATED_PRICES
from faregate.config.folder import DataFolder, take_lock
from faregate.simulator.steering import PROFILES

PROGRAM = Path(sys.executable).with_name("faregate")

#: Generous: nothing here asserts speed, and the machine may be busy.
START_SECONDS, STOP_SECONDS = 90.0, 60.0

CALL = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]}


def environment(**more: str) -> dict[str, str]:
    """Without anything that would reconfigure an installation behind the test's back."""
    outside = re.compile(r"FAREGATE_|OPENAI_|AZURE_|https?_proxy$", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not outside.match(name)} | more


def eventually(holds: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    """What ``holds`` returns once it is true."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError):
            if value := holds():
                return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def lives(pid: int) -> bool:
    """Whether a process of that id runs and is one of ours."""
    try:
        return b"faregate.assembly" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


class Served:
    """A running ``faregate serve`` and what it printed."""

    def __init__(self, folder: Path, *words: str, **variables: str) -> None:
        self.data = folder / "data"
        self.log = folder / "log.txt"
        self.printed = folder / "printed.txt"
        with self.log.open("ab") as log, self.printed.open("wb") as printed:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--data", str(self.data), *words],
                cwd=folder,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=log,
            )

    def line(self, start: str) -> str:
        """The printed line that starts so, waited for."""

        def look() -> str | None:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {self.log.read_text()}")
            return next((line for line in self.printed.read_text().splitlines() if line.startswith(start)), None)

        found: str = eventually(look)
        return found

    @property
    def gateway(self) -> str:
        return self.line("gateway").split()[-1]

    @property
    def console(self) -> str:
        return self.line("console").split()[-1]

    def pid(self, role: str) -> int:
        """The process of a role, by what the supervisor logged last."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        pids = [line["pid"] for line in lines if line["event"] == "process_listens" and line["role"] == role]
        return int(pids[-1])

    def ask(self, secret: str, body: object = None, path: str = "/v1/chat/completions", base: str = "") -> Any:
        """The JSON of one call through the gateway."""
        request = urllib.request.Request(
            (base or self.gateway) + path,
            json.dumps(body).encode() if body is not None else None,
            {"authorization": f"Bearer {secret}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            raise

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


FREE = ("--gateway", "127.0.0.1:0", "--console", "127.0.0.1:0")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``serve --demo`` on free ports, ready and with its sample made."""
    served = Served(tmp_path_factory.mktemp("demo"), "--demo", *FREE)
    try:
        served.line("curl")
        eventually(lambda: "sample_made" in served.log.read_text())
        yield served
    finally:
        served.stop()


class TestDemo:
    """What a newcomer gets."""

    def test_the_curl_line_works_as_pasted(self, demo: Served) -> None:
        """Its words, given to a client, are a request that is answered."""
        words = shlex.split(demo.line("curl"))
        headers = dict(word.split(": ", 1) for at, word in enumerate(words) if words[at - 1] == "-H")
        body = words[words.index("-d") + 1].encode()
        url = next(word for word in words if word.startswith("http"))
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            told = json.load(answer)

        assert told["object"] == "chat.completion"

    def test_the_admin_key_opens_the_console(self, demo: Served) -> None:
        """On the network, where it is asked for."""
        secret = demo.line("admin").split()[-1]

        assert demo.ask(secret, path="/api/v1/health", base=demo.console)["status"] == "ok"

    def test_without_a_key_the_console_is_closed(self, demo: Served) -> None:
        """Closed by default, on loopback too."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{demo.console}/api/v1/keys", timeout=10)

        caught.value.close()

        assert caught.value.code == 401

    def test_the_sample_has_a_history_with_costs_and_a_refusal(self, demo: Served) -> None:
        """Made by real calls, so everything about it can be looked into."""
        secret = demo.line("admin").split()[-1]

        def sample() -> list[Any] | None:
            rows = demo.ask(secret, path="/api/v1/requests?limit=1000", base=demo.console)["data"]
            return rows if len([row for row in rows if row["team"]]) >= 25 else None

        rows = eventually(sample)

        assert {row["status"] for row in rows} == {"ok", "refused"}
        assert all(row["charge"] != "0" for row in rows if row["status"] == "ok")

    def test_keys_are_kept_for_their_owner_only(self, demo: Served) -> None:
        """A later start prints them again; nobody else reads them."""
        assert (demo.data / "first-run.json").stat().st_mode & 0o777 == 0o600

    def test_no_secret_stands_in_the_log(self, demo: Served) -> None:
        """Neither keys of callers nor the pepper nor a provider's credential."""
        secrets = json.loads((demo.data / "secrets.json").read_text())
        log = demo.log.read_text()

        assert "sk-" not in log
        assert secrets["peppers"][0]["key"] not in log
        assert secrets["session"] not in log

    def test_every_line_of_the_log_is_one_json_object(self, demo: Served) -> None:
        """From all processes alike: a time, a level, who speaks."""
        lines = [json.loads(line) for line in demo.log.read_text().splitlines()]

        assert all({"event", "level", "timestamp", "process"} <= set(line) for line in lines)

    def test_the_doctor_finds_it_well(self, demo: Served) -> None:
        """A running installation speaks for itself."""
        words = [str(PROGRAM), "doctor", "--json", "--data", str(demo.data)]
        done = subprocess.run(words, cwd=demo.data, env=environment(), capture_output=True, text=True, timeout=60)
        told = json.loads(done.stdout)

        assert (done.returncode, told["running"], told["pid"]) == (0, True, demo.process.pid)
        # Of books that are a minute old there is no backup yet, and it says so.
        assert {look["state"] for look in told["looks"] if look["name"] != "backup"} <= {"ok", "skipped"}

    def test_the_doctor_looks_where_it_listens_and_not_where_the_file_says(self, demo: Served, tmp_path: Path) -> None:
        """Options overrule the configuration: its ports are nobody's business here."""
        command("init", "--config", tmp_path / "faregate.yaml", "--data", tmp_path / "other")
        words = [str(PROGRAM), "doctor", "--json", "--data", str(demo.data)]
        done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
        ports = [look for look in json.loads(done.stdout)["looks"] if look["name"].endswith(" port")]

        assert [(look["name"], look["detail"].split()[0]) for look in ports] == [
            ("gateway port", demo.gateway),
            ("console port", demo.console),
        ]
        assert (done.returncode, {look["state"] for look in ports}) == (0, {"ok"})
        assert (demo.data / "listening.json").stat().st_mode & 0o777 == 0o600

    def test_every_model_of_the_simulator_has_a_price(self, demo: Served) -> None:
        """What its page documents is answered as it is."""
        secret, embed = demo.line("caller").split()[-1], {"model": "sim-embed", "input": "one two"}
        told = {
            name: demo.ask(secret, {**CALL, "model": name})["model"] for name in SIMULATED_PRICES if name != "sim-embed"
        }
        vectors = demo.ask(secret, embed, "/v1/embeddings")["data"]

        assert set(SIMULATED_PRICES) == set(PROFILES)
        assert told == {name: name for name in told}
        assert len(vectors) == 1

    def test_the_simulator_says_where_it_is(self, demo: Served) -> None:
        """Its doors are open to whoever tries something out."""
        url = demo.line("simulator").split()[-1]
        with urllib.request.urlopen(f"{url}/simulator/state", timeout=10) as answer:
            assert answer.status == 200

    def test_a_second_one_on_the_same_folder_is_told_the_first_ones_pid(self, demo: Served) -> None:
        """L20: exit 1."""
        words = [str(PROGRAM), "serve", "--demo", *FREE, "--data", str(demo.data)]
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)

        assert (done.returncode, str(demo.process.pid) in done.stderr) == (1, True)

    def test_a_killed_gate_comes_back_on_its_port(self, demo: Served) -> None:
        """kill -9 of the data plane: the supervisor starts another, which recovers the journal."""
        secret = demo.line("caller").split()[-1]
        before = demo.pid("gate")
        os.kill(before, signal.SIGKILL)

        told = eventually(lambda: demo.ask(secret, CALL))

        assert told["object"] == "chat.completion"
        assert demo.pid("gate") != before

    def test_a_killed_console_stops_no_call_and_comes_back(self, demo: Served) -> None:
        """The gate answers while there is no console at all."""
        secret, admin = demo.line("caller").split()[-1], demo.line("admin").split()[-1]
        before = demo.pid("console")
        os.kill(before, signal.SIGKILL)

        answered_meanwhile = demo.ask(secret, CALL)["object"]

        def is_well() -> bool:
            status = demo.ask(admin, path="/api/v1/health", base=demo.console)["status"]
            return bool(status == "ok")

        assert answered_meanwhile == "chat.completion"
        assert eventually(is_well)
        assert demo.pid("console") != before

    def test_a_hangup_without_a_file_reads_the_secrets_again_and_says_so(self, demo: Served) -> None:
        """L30: a new pepper digests what is made from then on, the built-in configuration stays, and nothing stops."""
        admin = demo.line("admin").split()[-1]
        made = command("secrets", "rotate-pepper", "--json", "--data", demo.data).json["id"]
        demo.process.send_signal(signal.SIGHUP)

        def newest() -> bool:
            rows = demo.ask(admin, path="/api/v1/peppers", base=demo.console)["data"]
            return any(row["id"] == made and row["newest"] for row in rows)

        assert eventually(newest)
        assert eventually(lambda: "config_reloaded" in demo.log.read_text())
        assert "the built-in configuration stays" in demo.log.read_text()
        assert demo.process.poll() is None


def test_a_first_run_keeps_its_keys_over_a_restart_and_ends_with_0(tmp_path: Path) -> None:
    """Ctrl-C drains and stops; the next start prints the same keys, and they work. In a very long path, too."""
    folder = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 5)
    folder.mkdir(parents=True)
    first = Served(folder, "--first-run", *FREE)
    first.line("curl")
    keys = first.line("admin"), first.line("caller")
    ended = first.stop(signal.SIGINT)
    second = Served(folder, "--first-run", *FREE)
    try:
        second.line("curl")
        again = second.line("admin"), second.line("caller")
        answer = second.ask(keys[1].split()[-1], CALL)
    finally:
        second.stop()

    assert (ended, again, answer["object"]) == (0, keys, "chat.completion")


def test_a_drain_lets_a_call_finish_and_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """L29: while the provider holds its answer a stop waits; asked twice it ends with 130, the journal whole."""
    served = Served(tmp_path, "--first-run", *FREE)
    served.line("curl")
    secret = served.line("caller").split()[-1]
    held = {**CALL, "messages": [{"role": "user", "content": 'sim: {"first_delay_ms": 60000}'}]}
    host, port = served.gateway.removeprefix("http://").split(":")
    body = json.dumps(held).encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        admin = served.line("admin").split()[-1]

        def held_open() -> bool:
            gate = served.ask(admin, path="/api/v1/health", base=served.console)["gate"]
            return bool(gate["open_exchanges"])

        eventually(held_open)
        served.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        waits = served.process.poll() is None
        ended = served.stop(signal.SIGINT)
    verified = subprocess.run(
        [PROGRAM, "verify", "--json", "--data", str(served.data)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (waits, ended, json.loads(verified.stdout)["ok"]) == (True, 130, True)


def test_processes_of_a_killed_supervisor_end_and_the_next_start_recovers(tmp_path: Path) -> None:
    """kill -9 of the supervisor leaves no gate behind that would hold the port or the journal; L21 for the lock."""
    first = Served(tmp_path, "--first-run", *FREE)
    first.line("curl")
    children = [first.pid(role) for role in ("simulator", "gate", "console")]
    port = int(first.gateway.rsplit(":", 1)[1])
    first.process.kill()
    first.process.wait()
    second = Served(tmp_path, "--first-run", "--gateway", f"127.0.0.1:{port}", "--console", "127.0.0.1:0")
    try:
        second.line("curl")
        answer = second.ask(second.line("caller").split()[-1], CALL)
    finally:
        ended = second.stop()

    assert (answer["object"], ended) == ("chat.completion", 0)
    assert f"recovered lock of dead pid {first.process.pid}" in second.log.read_text()
    assert eventually(lambda: not any(lives(pid) for pid in children))


class TestRefusedStarts:
    """What ends a start before any process is made."""

    CONFIG = 'providers: [{name: sim, kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: "${KEY}"}]\n'

    def start(self, folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (folder / "faregate.yaml").write_text(self.CONFIG)
        return subprocess.run(
            [PROGRAM, "serve", "--data", str(folder / "data"), *words],
            cwd=folder,
            env=environment(KEY="sk-one", **variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_a_port_in_use_is_named(self, tmp_path: Path) -> None:
        """L16: exit 3, with the process that has it."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]

            done = self.start(tmp_path, "--gateway", f"127.0.0.1:{port}", "--console", "127.0.0.1:0")

        by = f"port {port} (gateway) is in use by process {os.getpid()}"
        assert (done.returncode, by in done.stderr) == (3, True), done.stderr

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may use every port")
    def test_a_privileged_port_is_refused(self, tmp_path: Path) -> None:
        """L17: exit 4."""
        done = self.start(tmp_path, "--gateway", "127.0.0.1:81", "--console", "127.0.0.1:0")

        assert (done.returncode, "1024" in done.stderr) == (4, True)

    def test_a_host_that_is_not_here_is_told(self, tmp_path: Path) -> None:
        """L18: exit 2; the documentation range belongs to nobody."""
        done = self.start(tmp_path, "--gateway", "192.0.2.1:4000", FAREGATE_GATEWAY_BEHIND_PROXY="true")

        assert (done.returncode, "192.0.2.1" in done.stderr) == (2, True)

    def test_a_bad_configuration_lists_everything_and_makes_nothing(self, tmp_path: Path) -> None:
        """L22: never a partial start."""
        done = self.start(tmp_path, FAREGATE_GATEWAY_PORT="x", FAREGATE_LIMITS_REQUIRE="perhaps")

        assert (done.returncode, len(done.stderr.splitlines()), (tmp_path / "data").exists()) == (2, 2, False)

    def test_a_console_that_others_reach_wants_init_first(self, tmp_path: Path) -> None:
        """Refused as unsafe, with the command that allows it."""
        variables = {"FAREGATE_CONSOLE_BEHIND_PROXY": "true"}
        words = ("--gateway", "127.0.0.1:0", "--console", "0.0.0.0:0")

        done = self.start(tmp_path, *words, **variables)

        assert (done.returncode, "faregate init" in done.stderr) == (4, True)

    def test_a_console_that_others_reach_wants_a_key_that_opens_it(self, tmp_path: Path) -> None:
        """C33: with the command that makes one."""
        command("init", "--config", tmp_path / "other.yaml", "--data", tmp_path / "data")
        variables = {"FAREGATE_CONSOLE_BEHIND_PROXY": "true"}

        done = self.start(tmp_path, "--gateway", "127.0.0.1:0", "--console", "0.0.0.0:0", **variables)

        assert (done.returncode, "faregate key create --name admin --role admin" in done.stderr) == (4, True)

    def test_a_secret_that_somebody_typed_is_refused(self, tmp_path: Path) -> None:
        """C34: with the command that makes a better one."""
        command("init", "--config", tmp_path / "other.yaml", "--data", tmp_path / "data")
        file = tmp_path / "data" / "secrets.json"
        kept = json.loads(file.read_text())
        file.write_text(json.dumps(kept | {"session": "ab" * 32}))

        done = self.start(tmp_path, *FREE)

        assert (done.returncode, "openssl rand -hex 32" in done.stderr) == (2, True)

    def test_a_first_run_prints_keys_only_on_loopback(self, tmp_path: Path) -> None:
        """A key on a terminal is for this machine."""
        variables = {"FAREGATE_GATEWAY_BEHIND_PROXY": "true"}

        done = self.start(tmp_path, "--first-run", "--gateway", "0.0.0.0:0", **variables)

        assert (done.returncode, "sk-fg-" in done.stdout + done.stderr) == (4, False)

    def test_a_folder_in_use_by_a_command_is_told(self, tmp_path: Path) -> None:
        """Whoever has the lock is named, be it a server or not."""
        (tmp_path / "data").mkdir(mode=0o700)
        lock = take_lock(DataFolder(tmp_path / "data"))

        done = self.start(tmp_path, *FREE)
        lock.release()

        assert (done.returncode, str(os.getpid()) in done.stderr) == (1, True)

    def test_books_without_their_secrets_are_not_opened_with_new_ones(self, tmp_path: Path) -> None:
        """C35: a new pepper would make every key useless, silently."""
        (tmp_path / "data").mkdir(mode=0o700)
        (tmp_path / "data" / "books.sqlite3").touch(0o600)

        done = self.start(tmp_path, *FREE)

        assert (done.returncode, "pepper" in done.stderr, (tmp_path / "data" / "secrets.json").exists()) == (
            2,
            True,
            False,
        )

    def test_secrets_of_another_installation_are_refused(self, tmp_path: Path) -> None:
        """C36: with another pepper than the books' every key would fail, so nothing is started."""
        command("key", "create", "--name", "ci", "--data", tmp_path / "data")
        secrets = tmp_path / "data" / "secrets.json"
        told = json.loads(secrets.read_text())
        told["peppers"][0]["key"] = bytes(range(32)).hex()
        secrets.write_text(json.dumps(told))

        done = self.start(tmp_path, *FREE)
        looked = command("doctor", "--data", tmp_path / "data")

        assert (done.returncode, "all keys would fail" in done.stderr, "old pepper" in done.stderr) == (2, True, True)
        assert "FAIL  peppers" in looked.out
