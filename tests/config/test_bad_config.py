"""How bad configurations are told: all at once, in order, without secrets. The catalogue itself is ``bad_input``'s."""

from pathlib import Path

import pytest

from bad_input.config_rows import CANARY, ENVIRONMENT, GOOD
from faregate.config.findings import Finding, Invalid
from faregate.config.load import load, load_text


def findings(text: str, tmp_path: Path) -> tuple[Finding, ...]:
    with pytest.raises(Invalid) as caught:
        load_text(text.encode(), "faregate.yaml", ENVIRONMENT, tmp_path)
    assert CANARY not in str(caught.value)
    return caught.value.findings


@pytest.mark.parametrize(
    ("variable", "value", "code", "words"),
    [
        ("HTTPS_PROXY", "socks5://proxy:1080", "CFG-RANGE", "not a proxy that Faregate can use"),
        ("https_proxy", "https://proxy:3128", "CFG-RANGE", "not a proxy that Faregate can use"),
        ("ALL_PROXY", "proxy", "CFG-RANGE", "expected http://[user:password@]host:port"),
        ("HTTPS_PROXY", "http://a..b:3128", "CFG-RANGE", "host name"),
        ("HTTPS_PROXY", "http://proxy:port", "CFG-RANGE", "its port must be a number"),
        ("HTTPS_PROXY", f"http://u:{CANARY}@x@h:1", "CFG-TYPE", "write %40 for @"),
    ],
)
def test_a_proxy_of_the_environment_obeys_the_rules_of_a_configured_one(
    variable: str, value: str, code: str, words: str, tmp_path: Path
) -> None:
    """It is told once, at its variable, with two ways out; a password in it is not shown."""
    with pytest.raises(Invalid) as caught:
        load_text(GOOD.encode(), "faregate.yaml", {**ENVIRONMENT, variable: value}, tmp_path)

    (finding,) = caught.value.findings
    assert finding.line().startswith(f"environment:{variable}: ")
    assert finding.code == code
    assert words in finding.line()
    assert 'or set providers[0].proxy ("" for none)' in finding.line()
    assert CANARY not in finding.line()


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Mistakes of different kinds, a tag, a type, an unknown key and a variable, come in one message."""
    text = GOOD.replace("name: openai\n", "name: !x openai\n", 1).replace("port: 4000", "port: x, prot: 1")
    text = text.replace("${KEY}", "${NOPE}", 1)

    assert [(finding.code, finding.place.line) for finding in findings(text, tmp_path)] == [
        ("CFG-SYNTAX", 2),
        ("CFG-ENV", 5),
        ("CFG-TYPE", 20),
        ("CFG-UNKNOWN", 20),
    ]


def test_a_model_that_leads_to_more_places_than_can_be_followed_is_told(tmp_path: Path) -> None:
    """Over other models too, where each of them names no more than it may."""
    names = [[f"openai/m{at}-{each}" for each in range(64)] for at in range(5)]
    models = "".join(f"  - {{name: m{at}, to: [{', '.join(to)}]}}\n" for at, to in enumerate(names))
    text = GOOD.replace("models:\n", f"models:\n{models}  - {{name: all, to: [m0, m1, m2, m3, m4]}}\n", 1)

    (finding,) = findings(text, tmp_path)
    assert (finding.code, finding.key) == ("CFG-RANGE", "models[5].to")
    assert "more than 256 places" in finding.line()


class TestFiles:
    """What can be wrong with the file itself."""

    def read(self, file: Path) -> Finding:
        with pytest.raises(Invalid) as caught:
            load(file, ENVIRONMENT)
        return caught.value.findings[0]

    def test_a_pipe_does_not_hold_the_start(self, tmp_path: Path) -> None:
        """A named pipe without a writer is refused instead of being waited for."""
        import os

        os.mkfifo(tmp_path / "pipe")

        assert self.read(tmp_path / "pipe").problem == "this is not a regular file"

    def test_a_secret_file_is_read_beside_the_configuration_and_its_last_line_feed_dropped(
        self, tmp_path: Path
    ) -> None:
        """C30: relative names start where the configuration stands."""
        file = tmp_path / "faregate.yaml"
        file.write_text(GOOD.replace("${KEY}", "file:openai.key", 1))
        (tmp_path / "openai.key").write_text(CANARY + "\n")

        key = load(file, ENVIRONMENT).config.providers[0].api_key

        assert key is not None
        assert key.get_secret_value() == CANARY
