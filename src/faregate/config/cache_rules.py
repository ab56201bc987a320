"""Rules of the response cache, and what the gate is told of it."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from faregate.config.findings import Ruled
from faregate.config.schema import Config
from faregate.config.settings import CacheSettings

_SCHEMES: Final = ("redis", "rediss", "unix")


def check_cache(config: Config) -> Iterator[Ruled]:
    """Everything that is wrong with ``cache``."""
    cache = config.cache
    if cache.store == "redis" and cache.url is None:
        yield Ruled("CFG-MISSING", ("cache", "url"), "is missing, and cache.store is redis", "redis://HOST:PORT/0")
    if cache.url is None:
        return
    if cache.store != "redis":
        yield Ruled("CFG-CONFLICT", ("cache", "url"), "is not used, because cache.store is not redis", "store: redis")
    if not _is_redis(cache.url.get_secret_value()):
        yield Ruled("CFG-RANGE", ("cache", "url"), "is no URL of a Redis server", "redis://, rediss:// or unix://")


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # To ask for the port is to check it.
        placed = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in _SCHEMES and placed


def cache_settings(config: Config) -> CacheSettings | None:
    """What the gate goes by; ``None`` where the cache is switched off for all."""
    cache = config.cache
    if not cache.enabled:
        return None
    return CacheSettings(
        cache.default,
        cache.ttl,
        cache.share,
        cache.deterministic_only,
        cache.single_flight,
        cache.answer_bytes_max,
        cache.charge,
        cache.without_credit,
        cache.store,
        cache.memory_bytes_max,
        cache.disk_bytes_max if cache.disk else 0,
        cache.url.get_secret_value() if cache.url is not None else "",
        cache.timeout,
    )
