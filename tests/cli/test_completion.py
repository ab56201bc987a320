"""Completion in shells: the script, and what it is answered."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import command

PROGRAM = Path(sys.executable).with_name("faregate")


def completed(line: str, folder: Path) -> list[str]:
    """What bash is told may stand in the place of the last word of a line."""
    words = line.split(" ")
    environment = {
        "PATH": os.environ["PATH"],
        "_FAREGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [str(PROGRAM)], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_commands_options_and_nouns_are_completed(tmp_path: Path) -> None:
    """The first word, an option of a command, and a verb of a noun."""
    assert "apply" in completed("faregate app", tmp_path)
    assert "--prune" in completed("faregate apply --pr", tmp_path)
    assert completed("faregate key rot", tmp_path) == ["rotate"]


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "complete -o"), ("zsh", "#compdef faregate"), ("fish", "complete")]
)
def test_the_script_of_a_shell_is_shown(shell: str, words: str) -> None:
    """It names the program and the variable by which it asks."""
    told = command("--show-completion", shell)

    assert told.code == 0
    assert words in told.out
    assert "_FAREGATE_COMPLETE" in told.out


def test_it_is_installed_where_the_shell_finds_it(tmp_path: Path) -> None:
    """In the home folder of whoever asks; an unknown shell is told."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    done = subprocess.run(
        [str(PROGRAM), "--install-completion"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, "bash completion installed" in done.stdout) == (0, True)
    assert "faregate" in (tmp_path / ".bashrc").read_text()
    assert command("--show-completion", "cmd.exe").code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    """It can be read without a complaint."""
    script = tmp_path / "completion.sh"
    script.write_text(command("--show-completion", "bash").out)
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stderr) == (0, "")
