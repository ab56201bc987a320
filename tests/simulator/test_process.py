"""The simulator as a process of its own: how it starts and ends, and what a kill leaves behind."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faregate.simulator import BlackHole, Refuser
from simulated import chat, hear, post


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A running simulator process and its port."""
    command = [sys.executable, "-m", "faregate.simulator", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            yield running, json.loads(running.stdout.readline())["port"]
        finally:
            running.kill()


def ends(answer: bytes) -> bool:
    """Whether the last byte of an answer has come."""
    if b"chunked" in answer:
        return answer.endswith(b"\r\n0\r\n\r\n")
    return answer.endswith(b"}")


@pytest.mark.parametrize("stream", [False, True])
def test_truth_is_on_disk_before_the_last_byte(tmp_path: Path, stream: bool) -> None:
    """A process killed as soon as the last byte is read has written the record."""
    path = tmp_path / "truth.jsonl"
    for number in range(3):
        with process("--truth", str(path)) as (running, port), socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(post(chat(stream=stream), request_id=f"req_{number}", close=False))
            answer = b""
            while not ends(answer):
                answer += caller.recv(1 << 16)
            running.kill()
            running.wait()

        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert (lines[-1]["request_id"], lines[-1]["complete"]) == (f"req_{number}", True)


def test_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    """A call under way when the process is told to stop is recorded as far as it went."""
    path = tmp_path / "truth.jsonl"
    with process("--truth", str(path)) as (running, port), socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(post(chat({"delay_ms": 600_000}, stream=True), request_id="req_open"))
        answer = b""
        while b'"the"' not in answer:
            answer += caller.recv(1 << 16)
        running.send_signal(signal.SIGTERM)

        assert running.wait(15) == 0
        assert hear(caller, 5).end in ("closed", "reset")
    (line,) = path.read_bytes().splitlines()
    record = json.loads(line)
    assert (record["request_id"], record["complete"], record["delivered_tokens"]) == ("req_open", False, 1)


def test_script_and_key_come_from_the_command_line(tmp_path: Path) -> None:
    """A script file steers every call, and only the given key is let in."""
    script = tmp_path / "script.json"
    script.write_text('[{"steer": {"output_tokens": 2}}]')
    with process("--script", str(script), "--key", "right") as (_, port):
        answers = []
        for key in ("right", "wrong"):
            with socket.create_connection(("127.0.0.1", port)) as caller:
                caller.sendall(post(chat(), key=key))
                answers.append(hear(caller, 10))

    assert [answer.status for answer in answers] == [200, 401]
    assert json.loads(answers[0].body)["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("text", ["{", '[{"steer": {"fault": "none"}}]'])
def test_wrong_script_is_told(tmp_path: Path, text: str) -> None:
    """A script that cannot be used ends the process with a sentence and status 2."""
    script = tmp_path / "script.json"
    script.write_text(text)
    command = [sys.executable, "-m", "faregate.simulator", "--script", str(script)]
    ended = subprocess.run(command, capture_output=True, timeout=30, check=False)

    assert ended.returncode == 2
    assert ended.stderr.startswith(b"faregate.simulator: ")
    assert b"Traceback" not in ended.stderr


def test_refuser_refuses() -> None:
    """F01: a connection is refused at once."""
    with Refuser() as refuser, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", refuser.port), timeout=5)


def test_black_hole_hangs() -> None:
    """F02: a connection neither comes about nor fails."""
    with BlackHole() as hole:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", hole.port), timeout=0.5)
        assert time.monotonic() - begun >= 0.4
