"""The data folder and its secrets: who may use it, who does, and what only its owner may read."""

import base64
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from faregate.config.folder import DataFolder, folder_problems, holder_of, prepare, short_path, take_lock
from faregate.config.secrets import Kept, keep_secrets, read_secrets
from faregate.errors import ConfigError, Conflict


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def counted(count: int) -> bytes:
    """Random bytes that are not."""
    return bytes(range(count))


#: As good as random: nobody typed it.
RANDOM = bytes(range(32))


def document(*peppers: tuple[str, str]) -> str:
    """A secrets file with these peppers."""
    return json.dumps({"peppers": [{"id": id, "key": key} for id, key in peppers], "session": RANDOM.hex()})


class TestFolder:
    """Before anything is started."""

    def test_a_new_folder_is_its_owners_alone(self, tmp_path: Path) -> None:
        """Journal and books hold what nobody else on the machine should read."""
        assert mode_of(prepare(tmp_path / "data").root) == 0o700

    def test_a_folder_without_a_parent_is_not_made(self, tmp_path: Path) -> None:
        """C60: a typing error in a path does not make a second, empty installation."""
        with pytest.raises(ConfigError) as caught:
            prepare(tmp_path / "nope" / "data")

        assert (caught.value.code, "nope does not exist" in caught.value.message) == ("CFG-STORE", True)

    def test_a_file_in_its_place_is_told(self, tmp_path: Path) -> None:
        """C60, the other way."""
        (tmp_path / "data").touch()

        with pytest.raises(ConfigError, match="not a directory"):
            prepare(tmp_path / "data")

    def test_a_folder_that_everybody_writes_to_is_refused(self, tmp_path: Path) -> None:
        """Whoever can replace the books can forge them."""
        tmp_path.chmod(0o777)

        assert "writable by everybody" in folder_problems(DataFolder(tmp_path))[0].message

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_a_folder_that_cannot_be_written_names_owner_mode_and_user(self, tmp_path: Path) -> None:
        """C61."""
        tmp_path.chmod(0o500)

        assert "uid" in folder_problems(DataFolder(tmp_path))[0].hint


class TestLock:
    """One installation uses a folder at a time."""

    def test_a_second_user_is_told_who_the_first_is(self, tmp_path: Path) -> None:
        """L20 and C70: the pid is what an operator needs next."""
        folder = DataFolder(tmp_path)
        lock = take_lock(folder)

        with pytest.raises(Conflict) as caught:
            take_lock(folder)
        lock.release()

        assert str(os.getpid()) in caught.value.message

    def test_a_released_folder_is_free_and_remembers_nobody(self, tmp_path: Path) -> None:
        """An orderly end leaves no trace that looks like a crash."""
        folder = DataFolder(tmp_path)
        take_lock(folder).release()

        again = take_lock(folder)
        again.release()

        assert again.recovered_pid is None

    def test_the_lock_of_a_killed_process_is_free_and_names_it(self, tmp_path: Path) -> None:
        """L21: the system gives the lock back, and the start can say whose it was."""
        script = (
            "import os, sys; from pathlib import Path; from faregate.config.folder import DataFolder, take_lock;"
            "take_lock(DataFolder(Path(sys.argv[1]))); os.kill(os.getpid(), 9)"
        )
        killed = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
        killed.wait(30)

        lock = take_lock(DataFolder(tmp_path))
        lock.release()

        assert lock.recovered_pid == killed.pid

    def test_looking_who_uses_a_folder_takes_nothing(self, tmp_path: Path) -> None:
        """Nobody before, the holder while it holds, nobody after."""
        folder = DataFolder(tmp_path)
        before = holder_of(folder)
        lock = take_lock(folder)
        during = holder_of(folder)
        lock.release()

        assert (before, during, holder_of(folder)) == (None, os.getpid(), None)


def test_a_socket_in_a_very_deep_folder_can_be_bound_and_reached(tmp_path: Path) -> None:
    """Addresses of Unix sockets have a hundred bytes; folders of users have as many as they like."""
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 8)
    deep.mkdir(parents=True)
    path = deep / "gate.sock"

    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with short_path(path) as address:
            server.bind(address)
        server.listen()
        with short_path(path) as address:
            client.connect(address)

    assert path.is_socket()


class TestSecrets:
    """Peppers and the session secret."""

    def test_they_are_made_once_and_read_back(self, tmp_path: Path) -> None:
        """The second start digests keys as the first did."""
        file = tmp_path / "secrets.json"
        first = keep_secrets(file, os.urandom)

        assert keep_secrets(file, os.urandom) == Kept(first.secrets, made=False)

    def test_only_their_owner_can_read_them(self, tmp_path: Path) -> None:
        """Whatever the mask of the process is."""
        file = tmp_path / "secrets.json"
        before = os.umask(0)
        try:
            keep_secrets(file, counted)
        finally:
            os.umask(before)

        assert mode_of(file) == 0o600

    def test_they_show_in_no_text(self, tmp_path: Path) -> None:
        """A log of the object holds no pepper."""
        kept = keep_secrets(tmp_path / "secrets.json", counted)

        assert kept.secrets.peppers[0].key not in repr(kept) + repr(kept.secrets.peppers)

    def test_a_file_open_to_others_is_refused(self, tmp_path: Path) -> None:
        """What others may have read is no secret any more; the hint is the command."""
        file = tmp_path / "secrets.json"
        keep_secrets(file, counted)
        file.chmod(0o640)

        with pytest.raises(ConfigError) as caught:
            read_secrets(file)

        assert (caught.value.code, caught.value.hint) == ("CFG-SECRET", f"chmod 600 {file}")

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            ("{", "CFG-SECRET"),
            ("{}", "CFG-SECRET"),
            (document(), "CFG-SECRET"),
            (document(("a", "00")), "CFG-SECRET"),
            (document(("a", "xx" * 32)), "CFG-SECRET"),
            (document(("a", RANDOM.hex()), ("a", RANDOM[::-1].hex())), "CFG-CONFLICT"),
        ],
    )
    def test_a_damaged_file_is_told_and_never_replaced(self, content: str, code: str, tmp_path: Path) -> None:
        """C37 and its kin: new secrets over old ones would make every key useless."""
        file = tmp_path / "secrets.json"
        file.write_text(content)
        file.chmod(0o600)

        with pytest.raises(ConfigError) as caught:
            keep_secrets(file, counted)

        assert (caught.value.code, file.read_text()) == (code, content)

    def test_an_older_file_gets_a_key_to_encrypt_with(self, tmp_path: Path) -> None:
        """Its peppers stay as they are, and the second start finds what the first one made."""
        file = tmp_path / "secrets.json"
        file.write_text(document(("p1", RANDOM.hex())))
        file.chmod(0o600)

        first = keep_secrets(file, os.urandom)

        assert (first.made, first.secrets.peppers[0].key) == (False, RANDOM.hex())
        assert len(first.secrets.encryption) == 1
        assert first.secrets.installation
        assert keep_secrets(file, os.urandom) == first
        assert first.secrets.encryption[0].key not in repr(first)

    @pytest.mark.parametrize(
        ("keys", "code"),
        [
            ([("e1", "AA==")], "CFG-SECRET"),
            ([("e1", "not base64")], "CFG-SECRET"),
            ([("e1", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")], "CFG-SECRET"),
            ([("e:1", base64.b64encode(RANDOM).decode())], "CFG-SECRET"),
            ([("e1", base64.b64encode(RANDOM).decode())] * 2, "CFG-CONFLICT"),
        ],
    )
    def test_an_encryption_key_that_cannot_be_is_told(
        self, keys: list[tuple[str, str]], code: str, tmp_path: Path
    ) -> None:
        """C38 and its kin: 32 bytes in base64, each under an id of its own."""
        file = tmp_path / "secrets.json"
        content = json.loads(document(("p1", RANDOM.hex())))
        content["encryption"] = [{"id": id, "key": key} for id, key in keys]
        file.write_text(json.dumps(content))
        file.chmod(0o600)

        with pytest.raises(ConfigError) as caught:
            keep_secrets(file, os.urandom)

        assert caught.value.code == code
