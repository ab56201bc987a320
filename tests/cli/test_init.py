"""``faregate init``: what it writes works as it is, keeps its secrets, and replaces nothing unasked."""

import json
import re
import stat
from pathlib import Path

import pytest

from faregate.cli.main import run
from faregate.config.load import load
from faregate.config.secrets import read_secrets


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """``init`` into a folder of the test's."""
    return ["init", "--config", str(tmp_path / "faregate.yaml"), "--data", str(tmp_path / "data")]


def test_the_file_that_it_writes_is_a_good_configuration(tmp_path: Path, words: list[str]) -> None:
    """Without a change and without a variable of the environment, and without so much as a warning."""
    run(words)

    assert load(tmp_path / "faregate.yaml", {}).warnings == ()


def test_every_example_in_its_comments_works_when_uncommented(tmp_path: Path, words: list[str]) -> None:
    """A comment that is an example is code that nobody runs; here it is."""
    run(words)
    written = (tmp_path / "faregate.yaml").read_text()
    examples = re.sub(r"^( *)# (?=- |[a-z_]+:| +)", r"\1", written, flags=re.MULTILINE)
    text = re.sub(r"^  tls:.*$", "", examples, flags=re.MULTILINE)
    file = tmp_path / "examples.yaml"
    file.write_text(text)
    file.chmod(0o600)

    loaded = load(file, {"OPENAI_API_KEY": "sk-one", "AZURE_OPENAI_API_KEY": "two"})

    assert [provider.name for provider in loaded.config.providers] == ["simulator", "openai", "azure-weu"]
    assert loaded.config.pricing.overrides[1].price == "10"


def test_secrets_are_made_for_their_owner_only(tmp_path: Path, words: list[str]) -> None:
    """The console on an address that others reach needs them made on purpose."""
    run(words)
    file = tmp_path / "data" / "secrets.json"

    assert (stat.S_IMODE(file.stat().st_mode), len(read_secrets(file).peppers)) == (0o600, 1)


def test_nothing_is_replaced_unasked(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """L39's rule: refused, with the flag that allows it; the secrets never."""
    run(words)
    secrets = (tmp_path / "data" / "secrets.json").read_bytes()
    (tmp_path / "faregate.yaml").write_text("mine")

    refused = run(words)
    said = capsys.readouterr().err
    kept = (tmp_path / "faregate.yaml").read_text()
    forced = run([*words, "--force"])

    assert (refused, "--force" in said, kept, forced) == (4, True, "mine", 0)
    assert (tmp_path / "data" / "secrets.json").read_bytes() == secrets


def test_scripts_are_told_what_was_made(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, and whether the secrets are new."""
    run([*words, "--json"])

    assert json.loads(capsys.readouterr().out) == {
        "config": str(tmp_path / "faregate.yaml"),
        "secrets": str(tmp_path / "data" / "secrets.json"),
        "secrets_made": True,
    }


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error in a path makes nothing."""
    code = run(["init", "--config", str(tmp_path / "nope" / "f.yaml"), "--data", str(tmp_path / "data")])

    assert (code, "does not exist" in capsys.readouterr().err, (tmp_path / "data").exists()) == (1, True, False)
