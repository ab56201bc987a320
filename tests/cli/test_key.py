"""``faregate key``."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Told, command, program, served
from console_parts import Parts, parts
from faregate.console.doors import trusted
from faregate.core import keys


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of an installation that never ran."""
    return tmp_path / "data"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    """An installation whose console answers on its socket."""
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def created(told: Told) -> str:
    """The id of the key that was made."""
    return str(told.json["id"])


def test_a_created_key_is_told_as_the_contract_shows_it(data: Path) -> None:
    """These fields in this order, before the first ``serve``."""
    told = command("key", "create", "--name", "ci", "--team", "research", "--project", "search", "--stage", "dev",
                   "--json", "--data", data)  # fmt: skip
    assert list(told.json) == ["id", "name", "secret", "organization", "team", "project", "stage"]
    assert keys.is_well_formed(told.json["secret"])
    assert told.json["id"].startswith("key_")


def test_an_admin_key_is_made_before_the_first_serve(data: Path) -> None:
    """Its role is told because it is not the usual one."""
    told = command("key", "create", "--name", "root", "--role", "admin", "--json", "--data", data)
    assert told.json["role"] == "admin"
    assert stat.S_IMODE((data / "secrets.json").stat().st_mode) == 0o600


def test_commands_speak_to_the_console_that_runs(running: Parts) -> None:
    """The key is in the running console's books; the secret is nowhere in a list."""
    data = running.folder / "data"
    made = command("key", "create", "--name", "ci", "--json", "--data", data).json
    row = running.books.get("key", made["id"])
    assert row is not None
    listed = command("key", "list", "--data", data)
    assert made["secret"][:8] + "…" in listed.out
    assert made["secret"][:12] not in listed.out


def test_rotate_and_revoke_by_name_or_beginning_of_the_id(running: Parts) -> None:
    """What is typed may be shorter than the id, as long as it is one key."""
    data = running.folder / "data"
    key_id = created(command("key", "create", "--name", "ci", "--json", "--data", data))
    turned = command("key", "rotate", "ci", "--grace", "60", "--json", "--data", data).json
    assert turned["id"] == key_id
    assert command("key", "rotate", "ci", "--grace", "60", "--data", data).code == 1
    revoked = command("key", "revoke", key_id, "--yes", "--reason", "leaked", "--json", "--data", data).json
    assert (revoked["state"], revoked["revoked_reason"]) == ("revoked", "leaked")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["create", "--name", "x" * 200], 2, "128"),
        (["create", "--name", "a", "--expires", "soon"], 2, "RFC 3339"),
        (["create", "--name", "a", "--role", "owner"], 2, "role"),
        (["show", "key_0"], 1, "no such key"),
        (["rotate", "a/../b"], 1, "no such key"),
        (["list", "--state", "x" * 300], 2, "state"),
    ],
)
def test_what_cannot_be_is_told_on_standard_error(running: Parts, words: list[str], code: int, said: str) -> None:
    """The exit code says of what kind it is; nothing is printed as a result, no trace ever."""
    told = command("key", *words, "--data", running.folder / "data")
    assert (told.code, told.out) == (code, ""), told.err
    assert said in told.err
    assert "Traceback" not in told.err


def test_a_secret_goes_into_a_new_file_of_its_owner(running: Parts, tmp_path: Path) -> None:
    """It is in the file and not on the screen; an existing file is not replaced unasked."""
    out, data = tmp_path / "secret", running.folder / "data"
    told = command("key", "create", "--name", "ci", "--out", out, "--json", "--data", data)
    assert keys.is_well_formed(out.read_text().strip())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "secret" not in told.json
    assert command("key", "create", "--name", "b", "--out", out, "--data", data).code == 4
    # A key that cannot be made leaves no file, and one that may be replaced is.
    assert command("key", "create", "--name", "ci", "--out", tmp_path / "none", "--data", data).code == 1
    assert not (tmp_path / "none").exists()
    before = out.read_text()
    assert command("key", "create", "--name", "b", "--out", out, "--force", "--data", data).code == 0
    assert out.read_text() != before
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    command("key", "revoke", "b", "--yes", "--data", data)
    assert command("key", "list", "--json", "--data", data).json[0]["name"] == "ci"


def test_without_an_installation_there_is_nothing_to_list(tmp_path: Path) -> None:
    """A command that only looks makes no data folder."""
    told = command("key", "list", "--data", tmp_path / "nowhere")
    assert (told.code, "no installation" in told.err) == (1, True)
    assert not (tmp_path / "nowhere").exists()


def test_commands_go_through_no_proxy(tmp_path: Path) -> None:
    """Whatever the environment says for other programs: the admin key is sent to ``FAREGATE_URL`` alone."""
    nobody = "http://127.0.0.1:1"
    with parts(tmp_path) as made, served(made.app) as url:
        here = {"FAREGATE_URL": url, "FAREGATE_ADMIN_KEY": made.admin_key()}
        told = program(tmp_path, {**here, "HTTP_PROXY": nobody, "ALL_PROXY": nobody}, "key", "list", "--json")
    assert [row["name"] for row in told.json] == ["root"]


def test_a_console_elsewhere_is_spoken_to_with_its_admin_key(tmp_path: Path) -> None:
    """``FAREGATE_URL`` and ``FAREGATE_ADMIN_KEY`` lead there; a wrong key and a dead URL are told apart."""
    with parts(tmp_path) as made:
        secret = made.admin_key()
        with served(made.app) as url:
            here = {"FAREGATE_URL": url, "FAREGATE_ADMIN_KEY": secret}
            assert program(tmp_path, here, "key", "create", "--name", "ci", "--json").json["name"] == "ci"
            refused = program(tmp_path, {**here, "FAREGATE_ADMIN_KEY": keys.make(bytes(32))}, "key", "list")
            missing = program(tmp_path, {"FAREGATE_URL": url}, "key", "list")
        away = program(tmp_path, here, "key", "list")
    assert (refused.code, "FAREGATE_ADMIN_KEY" in refused.err) == (1, True)
    assert (missing.code, "FAREGATE_ADMIN_KEY" in missing.err) == (2, True)
    assert (away.code, "nobody answers" in away.err) == (3, True)
    assert secret not in refused.err + missing.err + away.err


def test_a_key_is_renamed_restricted_disabled_and_enabled(running: Parts) -> None:
    """What is not given stays; an empty text lifts a restriction."""
    data = running.folder / "data"
    key_id = created(command("key", "create", "--name", "ci", "--networks", "10.0.0.0/8", "--json", "--data", data))
    assert command("key", "rename", "ci", "nightly", "--json", "--data", data).json["name"] == "nightly"
    words = ("--paths", "/v1/chat", "--models", "a,b", "--expires", "2030-01-01", "--priorities", "101-1000")
    told = command("key", "set", "nightly", *words, "--json", "--data", data).json
    assert (told["id"], told["models"], told["networks"]) == (key_id, ["a", "b"], ["10.0.0.0/8"])
    told = command("key", "set", "nightly", "--models", "", "--expires", "", "--json", "--data", data).json
    assert (told["models"], told["expires_at"], told["paths"]) == (None, None, ["/v1/chat"])
    assert told["priorities"] == ["101-1000"]
    assert command("key", "disable", "nightly", "--data", data).out == f"disabled {key_id} (nightly)\n"
    assert command("key", "enable", "nightly", "--json", "--data", data).json["state"] == "active"
    assert command("key", "set", "nightly", "--data", data).code == 2


def test_a_secret_that_was_found_is_checked_without_standing_on_the_command_line(
    running: Parts, tmp_path: Path
) -> None:
    """It is read from a file or from standard input, and not repeated."""
    data = running.folder / "data"
    secret = command("key", "create", "--name", "ci", "--json", "--data", data).json["secret"]
    told = command("key", "check", "--data", data, typed=f"{secret}\n")
    assert ("ci" in told.out, secret[8:] in told.out) == (True, False)
    (tmp_path / "found").write_text("sk-proj-of-somebody-else\n")
    none = command("key", "check", tmp_path / "found", "--data", data)
    assert (none.code, "no key of this installation" in none.out) == (1, True)
    (tmp_path / "found").write_text("\n")
    assert command("key", "check", tmp_path / "found", "--data", data).code == 2


def test_keys_are_found_in_a_log_with_the_lines_they_stand_in(running: Parts, tmp_path: Path) -> None:
    """Whatever stands around them: each is told once, and those of other installations are not."""
    data = running.folder / "data"
    secrets = [
        command("key", "create", "--name", name, "--json", "--data", data).json["secret"] for name in ("one", "two")
    ]
    stranger = keys.make(bytes(keys.SECRET_BYTES))
    log = f"started\nlog: Authorization Bearer {secrets[0]}\n{{key={secrets[1]}}} {stranger}\nagain {secrets[0]}\n"
    (tmp_path / "log").write_text(log)
    told = command("key", "check", tmp_path / "log", "--json", "--data", data).json
    shown = command("key", "check", "--data", data, typed=log)

    assert [(each["line"], each.get("name"), each["found"]) for each in told["secrets"]] == [
        (2, "one", True),
        (3, "two", True),
        (3, None, False),
    ]
    assert (shown.code, [secret in shown.out for secret in secrets]) == (0, [False, False])


def test_a_created_key_shows_what_was_said_of_it_and_no_empty_stage(tmp_path: Path) -> None:
    """Offline, where a configuration keeps contents."""
    data = tmp_path / "data"
    plain = command("key", "create", "--name", "plain", "--data", data).out
    staged = command("key", "create", "--name", "staged", "--stage", "dev", "--content", "off", "--data", data).out

    assert "stage" not in plain
    assert ["stage", "dev"] in [line.split() for line in staged.splitlines()]
    assert ["content", "off"] in [line.split() for line in staged.splitlines()]


def test_what_is_refused_for_want_of_a_configuration_says_why_it_was_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first start a file that others may read says nothing about contents, and the hint says so."""
    file = tmp_path / "faregate.yaml"
    provider = "{name: sim, kind: openai, base_url: 'http://127.0.0.1:9/v1', api_key: sim}"
    file.write_text(f"providers: [{provider}]\ncontent: {{retention: 30d}}\n")
    file.chmod(0o644)
    monkeypatch.setenv("FAREGATE_CONFIG", str(file))
    words = ("key", "create", "--name", "watched", "--content", "full", "--data", tmp_path / "data")
    refused = command(*words)
    file.chmod(0o600)

    assert (refused.code, "the configuration could not be used here" in refused.err) == (4, True)
    assert command(*words).code == 0
