"""``faregate check``: all problems of a file at once, for people and for scripts; the schema for editors."""

import json
from pathlib import Path

import pytest

from faregate.cli.main import run

GOOD = """\
providers:
  - {name: sim, kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: sk-any-key-will-do}
"""


def write(tmp_path: Path, text: str) -> str:
    """A configuration file of its owner's alone."""
    file = tmp_path / "faregate.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


def test_a_good_file_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, and one line on what it declares."""
    code = run(["check", "--config", write(tmp_path, GOOD)])

    assert (code, "ok, 1 provider, bundled prices" in capsys.readouterr().out) == (0, True)


def test_issuers_and_services_are_counted_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is declared is named, so that whoever adds an issuer sees it."""
    issuer = "identity: {issuers: [{name: a, issuer: 'https://a.example', audiences: [x]}]}\n"
    run(["check", "--config", write(tmp_path, GOOD + issuer)])

    assert "ok, 1 provider, 1 issuer, bundled prices" in capsys.readouterr().out


def test_every_problem_has_its_line_and_the_exit_code_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """L22: `file:line:col key: problem; expected …; hint …`."""
    file = write(tmp_path, GOOD + "gateway: {port: x}\nconsol: {}\n")

    code = run(["check", "--config", file])

    assert code == 2
    assert capsys.readouterr().err.splitlines() == [
        f'{file}:3:17 gateway.port: "x" is not a whole number; expected a whole number [CFG-TYPE]',
        f"{file}:4:1 consol: no setting has this name; hint: did you mean console? [CFG-UNKNOWN]",
    ]


def test_scripts_get_the_problems_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With code, file, line, column and key of each."""
    code = run(["check", "--json", "--config", write(tmp_path, GOOD + "gateway: {port: 0}\n")])
    told = json.loads(capsys.readouterr().out)

    assert (code, told["ok"], [(each["code"], each["line"], each["key"]) for each in told["problems"]]) == (
        2,
        False,
        [("CFG-RANGE", 3, "gateway.port")],
    )


def test_five_hundred_problems_are_all_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """L85: nobody should have to start five hundred times."""
    file = write(tmp_path, GOOD + "models:\n" + "".join(f"  - {{name: m{n}, to: [nope]}}\n" for n in range(500)))

    code = run(["check", "--config", file])

    assert (code, len(capsys.readouterr().err.splitlines())) == (2, 500)


def test_a_declared_model_without_a_price_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C48: it would be refused at every call; the file is usable nevertheless."""
    code = run(["check", "--config", write(tmp_path, GOOD + "models: [{name: mine, to: [sim/my-own-model]}]\n")])
    said = capsys.readouterr().err

    assert code == 0
    assert "CFG-PRICE" in said
    assert "models[0] (mine)" in said


def test_a_price_for_input_only_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The half that is there is named, and what the model can be used for."""
    row = 'pricing: {overrides: [{provider: sim, model: mine, unit: input_tokens, per: 1000000, price: "1"}]}\n'
    code = run(["check", "--config", write(tmp_path, GOOD + row)])
    said = capsys.readouterr().err

    assert code == 0
    assert "pricing.overrides[0] (sim/mine.input_tokens)" in said
    assert "priced for input tokens only: it is offered for embeddings only" in said


def test_the_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """With every top key of the file."""
    code = run(["check", "--schema"])
    schema = json.loads(capsys.readouterr().out)

    assert (code, schema["title"], {"providers", "gateway", "limits"} <= set(schema["properties"])) == (
        0,
        "faregate.yaml",
        True,
    )
