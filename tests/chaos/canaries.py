"""An installation that is sent mixed requests full of canaries, and all its outputs searched for them afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import re
import tarfile
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from chaos.canary_requests import CONSOLE, GATE, STRANGE_KEY, Caller, Job, Mix, words_of
from chaos.connections import Line
from installation import OPENAI_AND_AZURE, UPSTREAM_SECRET, VISIBLE_SECONDS, Installation, nanos
from system import natives
from system.calls import until
from wire import Answer, NoAnswer, Silence

#: A load without end on keys without a past is what the anomaly brake is for, so that its floor is far above it.
#: Contents can be kept, and only those of one key are.
_MORE = """\
limits: {{brake: {{floor: "10000"}}}}
content: {{default: "off", retention: 30d}}
deployments:
  - {{name: azure-sim, provider: sim-azure, deployment: sim-1, model: sim-1}}
models:
  - {{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096, max_context_tokens: 8192}}
  - {{name: sim-embed, to: [sim/sim-embed]}}
  - {{name: dall-e-3, to: [sim/dall-e-3]}}
  - {{name: tts-1, to: [sim/tts-1]}}
  - {{name: whisper-1, to: [sim/whisper-1]}}
  - {{name: omni-moderation-latest, to: [sim/omni-moderation-latest]}}
"""
_MEDIA = """\
    - {{provider: sim, model: dall-e-3, unit: images, variant: "1024x1024", per: 1, price: "0.04"}}
    - {{provider: sim, model: tts-1, unit: characters, per: 1000000, price: "15"}}
    - {{provider: sim, model: whisper-1, unit: seconds, per: 1, price: "0.0001"}}
    - {{provider: sim, model: omni-moderation-latest, unit: requests, per: 1, price: "0"}}
"""
CONFIG: Final = (
    # Errors are provoked one after the other, and the calls between them shall be answered.
    "breaker: {{enabled: false}}\n"
    + natives.CONFIG.replace("providers:\n", OPENAI_AND_AZURE).replace("models:\n", _MORE)
    + "{prices}"
    + _MEDIA
)

#: A whole key, whoever's it is.
KEY: Final = re.compile(rb"sk-fg-[0-9A-Za-z_-]{49}")
#: Where texts of a key whose contents are kept may stand, and answers of calls that may be repeated.
CONTENTS: Final = re.compile(r"(^|/)contents")
ANSWERS: Final = re.compile(r"(^|/)answers|\.answers$")
#: What ends a line or moves a cursor where somebody reads a log.
RAW: Final = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
#: What ``serve`` prints for whoever started it.
ADDRESS: Final = re.compile(rb"(gateway|console)  http://[\w.:]+")
LOOK_SECONDS: Final = 30.0
BROKEN_SECONDS: Final = 20.0


class Hit(NamedTuple):
    """Something that was found where it must not be."""

    where: str
    what: str
    around: str

    def __str__(self) -> str:
        return f"{self.what} in {self.where}: {self.around}"


class Run(NamedTuple):
    """What a run did, and what it found."""

    requests: int
    statuses: Counter[int]
    kinds: Counter[str]
    #: Answers that a request should not get, whatever is in them.
    faults: list[str]
    hits: list[Hit]
    #: Bytes of all that was searched at the end, by output.
    searched: dict[str, int]


class Search:
    """Looks for the words of callers, and for secrets, in bytes."""

    def __init__(self, callers: Iterable[Caller]) -> None:
        known = [word for caller in callers for word in (*caller.words.texts, caller.secret)]
        self._words = [word.encode() for word in (*known, UPSTREAM_SECRET)]

    def hits(self, where: str, data: bytes, allowed: Iterable[str] = (), *, texts: bool = False) -> list[Hit]:
        """What of all stands in ``data`` and is not ``allowed`` there.

        Where ``texts`` of callers are kept, what they made up and what only looks like a key is one of them.
        """
        welcome = {word.encode() for word in allowed}
        places = [(word, at) for word in self._words if word not in welcome for at in places_of(word, data)]
        if not texts:
            strange = (each for each in KEY.finditer(data) if each[0] not in (*welcome, *self._words))
            places += [(each[0], each.start()) for each in strange]
        return [Hit(where, word.decode(), repr(data[max(0, at - 120) : at + len(word) + 60])) for word, at in places]


def places_of(word: bytes, data: bytes) -> Iterator[int]:
    """Where a word stands; one search for each is far faster than one expression for all."""
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


class Site:
    """One installation with callers of several sorts: plain ones, one whose contents are kept, one that repeats."""

    def __init__(self, running: Installation, seed: int) -> None:
        self.running = running
        chance = random.Random(seed)
        made = {}
        for name, fields in {"one": {}, "two": {}, "kept": {"content": "full"}, "again": {}}.items():
            secret = running.admin("POST", "/api/v1/keys", {"name": name, **fields})["secret"]
            made[name] = Caller(name, secret, words_of(name, chance), repeats=name == "again")
        self.callers = made
        admin = running.admin("POST", "/api/v1/keys", {"name": "desk", "role": "admin"})["secret"]
        self.desk = Caller("desk", admin, words_of("desk", chance))
        self.search = Search((*made.values(), self.desk))
        self.mix = Mix(tuple(made.values()), self.desk, seed)
        self._pids = running.gate_pid(), running.console_pid()
        self._faults: list[str] = []
        self._hits: list[Hit] = []
        self._statuses: Counter[int] = Counter()
        self._kinds: Counter[str] = Counter()

    async def send(self, requests: int, clients: int) -> None:
        """So many mixed requests by so many clients at once; every answer is looked at."""
        left = requests

        async def client() -> None:
            nonlocal left
            ports = {GATE: self.running.gateway_port, CONSOLE: self.running.console_port}
            lines = {name: Line(port) for name, port in ports.items()}
            while left > 0:
                left -= 1
                job = self.mix.job()
                # A broken request may have eaten the next one's head, so its connection is nobody else's.
                line = Line(ports[job.port]) if job.broken else lines[job.port]
                self._look(job, await self._answer(line, job))
            for line in lines.values():
                line.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    async def _answer(self, line: Line, job: Job) -> Answer | None:
        try:
            return await line.ask(job.data, last=job.broken, seconds=BROKEN_SECONDS if job.broken else LOOK_SECONDS)
        except Silence:
            self._faults.append(f"{job.kind}: left waiting: {job.data[:300]!r}")
        except NoAnswer as error:
            # A stream that its provider cut ends without its end, and so may what is no HTTP.
            if not job.broken and not job.kind.startswith("fault"):
                self._faults.append(f"{job.kind}: {error}: {job.data[:300]!r}")
        finally:
            if job.broken:
                line.close()
        return None

    def _look(self, job: Job, answer: Answer | None) -> None:
        self._kinds[job.kind.partition(":")[0]] += 1
        self._statuses[0 if answer is None else answer.status] += 1
        if answer is None:
            return
        if answer.status >= 500 and not job.kind.startswith("fault"):
            self._faults.append(f"{job.kind}: {answer.status} {answer.body[:300]!r} to {job.data[:600]!r}")
        own = job.caller.words
        # What a caller hears is the completion; what was sent comes back in a good answer, or named in a refusal.
        allowed: tuple[str, ...] = own.texts if answer.status < 400 else (own.completion,)
        if job.echoes:
            allowed = (*own.texts, job.caller.secret, STRANGE_KEY)
        told = answer.body + b"\n" + repr(answer.headers).encode()
        self._hits += self.search.hits(f"the answer to {job.kind}", told, allowed)

    # -- everything that is there afterwards ---------------------------------------------------------------------------

    def finish(self, *, commands: bool) -> Run:
        """Wait until all is booked, and search every output; of commands, too, which are processes to be started."""
        running = self.running
        until(lambda: running.admin("GET", "/api/v1/verify"), nothing_is_open, VISIBLE_SECONDS)
        if (running.gate_pid(), running.console_pid()) != self._pids:
            self._faults.append("a process ended and was started again")
        searched = Counter[str]()
        for where, data in self._outputs(commands):
            searched[where.partition(":")[0]] += len(data)
            self._hits += self.search.hits(where, data)
        kept = b""
        for where, data, allowed in self._files(running.data):
            searched["data folder"] += len(data)
            self._hits += self.search.hits(where, data, allowed, texts=bool(allowed))
            kept = data if where.endswith("contents.sqlite3") else kept
        if not self.search.hits("contents", kept):
            self._faults.append("not even the contents that were to be kept were found: the search is blind")
        self._faults += faults_of_log((running.folder / "serve.log").read_bytes())
        return Run(self._kinds.total(), self._statuses, self._kinds, self._faults, self._hits, dict(searched))

    def _outputs(self, commands: bool) -> Iterator[tuple[str, bytes]]:
        running = self.running
        yield "log", (running.folder / "serve.log").read_bytes()
        with urllib.request.urlopen(running.console_url + "/metrics") as answer:
            yield "metrics", answer.read()
        for path in admin_lists(running):
            yield from (("admin API: " + path, page) for page in pages(running, path))
        for words in (("export",), ("doctor",), ("audit",), ("requests",)) if commands else ():
            done = running.cli_raw(*words)
            yield f"command: {words[0]}", (done.stdout + done.stderr).encode()
        backup = running.folder / "backup.tar"
        running.admin("POST", "/api/v1/backup", {"file": str(backup)})
        with tarfile.open(backup) as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None and not ANSWERS.search(member.name):
                    yield f"backup: {member.name}", file.read()
        backup.unlink()

    def _files(self, data: Path) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
        """Every file with what may stand in it."""
        kept, again = self.callers["kept"], self.callers["again"]
        for path in sorted(data.rglob("*")):
            name = str(path.relative_to(data))
            if path.is_file():
                # A mutant whose head runs into its body has its caller's own key in what is kept as its text.
                allowed = (*kept.words.texts, kept.secret) if CONTENTS.search(name) else ()
                allowed = again.words.texts if ANSWERS.search(name) else allowed
                yield f"data folder: {name}", path.read_bytes(), allowed


def admin_lists(running: Installation) -> list[str]:
    """Every path of the admin API that reads without an id."""
    paths: dict[str, dict[str, Any]] = running.admin("GET", "/api/openapi.json")["paths"]
    found = [path for path, methods in paths.items() if "get" in methods and "{" not in path and "/api/v1/" in path]
    # Where a call would go is told for a name.
    return [f"{path}?model=sim-1" if path == "/api/v1/route" else path for path in found]


def pages(running: Installation, path: str) -> Iterator[bytes]:
    """All pages of a list; what is no list is one page."""
    cursor = ""
    # Contents are where texts may stand, and are searched as files.
    while path != "/api/v1/contents":
        found = running.admin("GET", f"{path}{cursor}")
        yield json.dumps(found).encode()
        more = found.get("next_cursor") if isinstance(found, dict) else None
        if not more:
            return
        cursor = f"?cursor={more}" + ("&limit=1000" if len(found["data"]) >= 100 else "")


def faults_of_log(log: bytes) -> list[str]:
    """Lines that are no JSON objects, raw control characters, and tracebacks."""
    faults = [f"a control character in the log: {line[:300]!r}" for line in log.split(b"\n") if RAW.search(line)]
    for line in log.splitlines():
        if ADDRESS.fullmatch(line):
            continue
        try:
            if not isinstance(json.loads(line), dict):
                faults.append(f"no object in the log: {line[:300]!r}")
        except ValueError:
            faults.append(f"no JSON in the log: {line[:300]!r}")
    if b"Traceback" in log:
        at = log.index(b"Traceback")
        faults.append(f"a traceback in the log: {log[max(0, at - 300) : at + 900]!r}")
    return faults


def nothing_is_open(verified: dict[str, Any]) -> bool:
    """Whether every call has ended."""
    return not nanos(verified["held"]) and not nanos(verified["unknown"])


def run(folder: Path, requests: int, clients: int, seed: int, *, commands: bool = True) -> Run:
    """The whole of it."""
    with Installation(folder, config=CONFIG) as running:
        site = Site(running, seed)
        asyncio.run(site.send(requests, clients))
        return site.finish(commands=commands)
