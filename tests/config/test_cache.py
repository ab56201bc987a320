"""The settings of the response cache: what is refused, what the gate is told, and what stages say."""

from pathlib import Path

import pytest

from commands import command
from faregate.assembly.declare import declared
from faregate.catalogue.compile import compile_catalogue
from faregate.config.cache_rules import cache_settings
from faregate.config.findings import Invalid
from faregate.config.load import load_text
from faregate.config.schema import Config
from faregate.config.settings import CacheSettings

PROVIDER = (
    'providers: [{name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "sk-of-a-test-1"}]\n'
)
ENVIRONMENT = {"REDIS": "redis://:a-password@cache.example:6379/0"}


def config(text: str, **environment: str) -> Config:
    return load_text((PROVIDER + text).encode(), "f.yaml", {**ENVIRONMENT, **environment}, Path("/")).config


def refused(text: str, **environment: str) -> list[tuple[str, str]]:
    """Code and key of everything that is wrong."""
    with pytest.raises(Invalid) as told:
        config(text, **environment)
    return [(finding.code, finding.key) for finding in told.value.findings]


def test_without_a_word_the_cache_is_there_and_nobody_uses_it() -> None:
    """A day, within a project, in memory and on disk; a hit is free, and given without credit, too."""
    settings = cache_settings(config(""))

    assert settings == CacheSettings()
    assert (settings.default, settings.ttl_ms, settings.share) == ("off", 86_400_000, "project")
    assert (settings.charge_percent, settings.without_credit, settings.disk_bytes_max) == (0, True, 1024**3)


def test_a_cache_that_is_switched_off_is_not_told_of() -> None:
    """Whatever else is said of it."""
    assert cache_settings(config('cache: {enabled: false, default: "on"}\n')) is None


def test_what_is_said_reaches_the_gate() -> None:
    """Each setting; without a disk nothing is kept there."""
    said = (
        'cache: {default: "on", ttl: 1h, share: end_user, deterministic_only: true, single_flight: true,\n'
        "  answer_bytes_max: 64KiB, charge: 50, without_credit: false, memory_bytes_max: 2MiB, disk: false}\n"
    )

    assert cache_settings(config(said)) == CacheSettings(
        default="on", ttl_ms=3_600_000, share="end_user", deterministic_only=True, single_flight=True,
        answer_bytes_max=65_536, charge_percent=50, without_credit=False, memory_bytes_max=2 * 1024**2,
        disk_bytes_max=0,
    )  # fmt: skip


def test_a_server_is_told_with_its_password_and_shown_without() -> None:
    """By `${NAME}`; settings that are logged hold none of it."""
    settings = cache_settings(config("cache: {store: redis, url: '${REDIS}', timeout: 20ms}\n"))

    assert settings is not None
    assert (settings.store, settings.url, settings.timeout_ms) == ("redis", ENVIRONMENT["REDIS"], 20)
    assert "a-password" not in repr(settings)


@pytest.mark.parametrize("url", ["redis://h", "rediss://user:pw@h:6380/1", "redis://[::1]:6379", "unix:///run/r.sock"])
def test_each_way_to_a_server_is_taken(url: str) -> None:
    """Plain, by TLS, by IPv6, and over a socket of this machine."""
    assert config("cache: {store: redis, url: '${REDIS}'}\n", REDIS=url).cache.url is not None


@pytest.mark.parametrize(
    "url",
    ["http://h:6379", "h:6379", "redis:///0", "redis://[", "redis://h:x", "redis://h:99999", "redis://h:0", "unix:"],
)
def test_what_leads_to_no_server_is_refused(url: str) -> None:
    """Another scheme, none, no host, or a port that there cannot be."""
    assert refused("cache: {store: redis, url: '${REDIS}'}\n", REDIS=url) == [("CFG-RANGE", "cache.url")]


@pytest.mark.parametrize(
    ("said", "code", "key"),
    [
        ("{store: redis}", "CFG-MISSING", "cache.url"),
        ("{url: '${REDIS}'}", "CFG-CONFLICT", "cache.url"),
        ("{store: memcached}", "CFG-RANGE", "cache.store"),
        ("{default: maybe}", "CFG-RANGE", "cache.default"),
        ("{default: on}", "CFG-TYPE", "cache.default"),
        ("{share: everybody}", "CFG-RANGE", "cache.share"),
        ("{ttl: 999ms}", "CFG-RANGE", "cache.ttl"),
        ("{ttl: 32d}", "CFG-RANGE", "cache.ttl"),
        ("{ttl: 60}", "CFG-TYPE", "cache.ttl"),
        ("{charge: 101}", "CFG-RANGE", "cache.charge"),
        ("{charge: -1}", "CFG-RANGE", "cache.charge"),
        ("{answer_bytes_max: 1023}", "CFG-RANGE", "cache.answer_bytes_max"),
        ("{answer_bytes_max: 2MiB}", "CFG-RANGE", "cache.answer_bytes_max"),
        ("{memory_bytes_max: 1KiB}", "CFG-RANGE", "cache.memory_bytes_max"),
        ("{disk_bytes_max: 2TiB}", "CFG-TYPE", "cache.disk_bytes_max"),
        ("{timeout: 6s}", "CFG-RANGE", "cache.timeout"),
        ("{tll: 1h}", "CFG-UNKNOWN", "cache.tll"),
        ("[1]", "CFG-TYPE", "cache"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(said: str, code: str, key: str) -> None:
    """With the key that is wrong."""
    assert refused(f"cache: {said}\n") == [(code, key)]


def test_check_says_what_is_wrong_and_shows_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each problem with its line and the way out."""
    monkeypatch.setenv("REDIS", "http://:a-password@cache.example")
    file = tmp_path / "faregate.yaml"
    file.write_text(PROVIDER + 'cache:\n  url: ${REDIS}\n  default: "yes"\n')
    file.chmod(0o600)
    wrong = command("check", "--config", file)
    file.write_text(PROVIDER + "cache:\n  url: ${REDIS}\n")
    unused = command("check", "--config", file)

    assert (wrong.code, unused.code) == (2, 2)
    assert wrong.err.splitlines() == [
        f'faregate: {file}:4:12 cache.default: "yes" does not fit; expected on or off [CFG-RANGE]',
    ]
    assert unused.err.splitlines() == [
        f"{file}:3:8 cache.url: is not used, because cache.store is not redis; expected store: redis [CFG-CONFLICT]",
        f"{file}:3:8 cache.url: is no URL of a Redis server; expected redis://, rediss:// or unix:// [CFG-RANGE]",
    ]
    assert "a-password" not in wrong.err + unused.err


def test_what_stages_say_of_it_is_in_the_catalogue_for_everybody() -> None:
    """Those that say nothing are not."""
    said = config('stages: {dev: {cache: "on"}, prod: {cache: "off"}, test: {}}\n')
    catalogue = compile_catalogue(declared(said, Path("/"), {})).catalogue

    assert catalogue.caching == (("stage", "", "dev", "on"), ("stage", "", "prod", "off"))
    assert refused("stages: {dev: {cache: sometimes}}\n") == [("CFG-RANGE", "stages.dev.cache")]
