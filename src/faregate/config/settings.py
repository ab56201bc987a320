"""What the gate process is told at its start, ready to use.

The supervisor reads and checks ``faregate.yaml`` once and hands these settings to the gate as JSON on its standard
input, so that the gate loads neither a YAML parser nor a validation library and no secret stands on a command line.
"""

import msgspec

from faregate.core.limits.denials import Denial
from faregate.core.limits.habits import BrakeRules


class TlsSettings(msgspec.Struct, frozen=True):
    """Certificate chain and private key of a listener, PEM files."""

    certificate_file: str
    key_file: str


class ContentRuleSettings(msgspec.Struct, frozen=True):
    """Something to be found in texts; ``check`` names what a match must meet besides, empty for nothing."""

    name: str
    pattern: str
    #: ``redact``, ``block`` or ``warn``.
    action: str
    #: ``provider``, ``log`` or ``both``.
    apply: str
    check: str = ""


class ContentSettings(msgspec.Struct, frozen=True):
    """What is kept of prompts and answers, and what is looked for in them."""

    #: ``off``, ``metadata`` or ``full``, where key and product say nothing.
    default: str = "off"
    characters_max: int = 32_768
    #: 0 where no text may be kept at all.
    retention_ms: int = 0
    rules: tuple[ContentRuleSettings, ...] = ()


class CacheSettings(msgspec.Struct, frozen=True):
    """The response cache: who uses it, what is kept how long, and where."""

    #: ``on`` or ``off``, where stage, project, key and request say nothing.
    default: str = "off"
    ttl_ms: int = 86_400_000
    #: Whom an answer is shared with: one of ``core.caching.policy.SHARES``.
    share: str = "project"
    deterministic_only: bool = False
    single_flight: bool = False
    answer_bytes_max: int = 1024 * 1024
    #: Percent of what the call would be charged that a hit is charged.
    charge_percent: int = 0
    #: Hits are given though no budget would let the call through.
    without_credit: bool = True
    #: ``embedded`` or ``redis``.
    store: str = "embedded"
    memory_bytes_max: int = 64 * 1024 * 1024
    #: 0 keeps nothing on disk.
    disk_bytes_max: int = 1024 * 1024 * 1024
    #: Of the Redis or Valkey server; it may hold a password.
    url: str = ""
    timeout_ms: int = 50

    def __repr__(self) -> str:
        return f"CacheSettings(store={self.store!r}, default={self.default!r})"


class GateSettings(msgspec.Struct, frozen=True):
    """Everything the data plane needs besides the snapshot that the console sends. Durations are milliseconds."""

    host: str
    port: int
    data_dir: str
    #: HMAC keys by id, in hex; the first one makes new digests, all are tried.
    peppers: tuple[tuple[str, str], ...]
    #: ``process`` survives any crash of the process, ``power`` also waits for the disk.
    durability: str = "process"
    tls: TlsSettings | None = None
    header_bytes_max: int = 32 * 1024
    headers_max: int = 100
    uri_bytes_max: int = 8 * 1024
    header_timeout_ms: int = 10_000
    body_bytes_max: int = 10 * 1024 * 1024
    upload_bytes_max: int = 64 * 1024 * 1024
    body_grace_ms: int = 5_000
    body_bytes_per_second_min: int = 1024
    keep_alive_ms: int = 75_000
    slow_reader_ms: int = 300_000
    held_body_bytes_max: int = 16 * 1024 * 1024
    held_bodies_bytes_max: int = 256 * 1024 * 1024
    key_bodies_bytes_max: int = 64 * 1024 * 1024
    realtime_session_ms: int = 3_600_000
    drain_ms: int = 30_000
    drains_max: int = 64
    drain_answer_ms: int = 120_000
    connections_max: int = 10_000
    default_output_tokens: int = 4_096
    min_answer_tokens: int = 256
    #: ``whole`` holds all that a stream may cost, ``steps`` a part that grows while it comes.
    stream_hold: str = "whole"
    limits_each_max: int = 1_000_000
    fail_open_nanos: int = 0
    journal_backlog_max: int = 1024 * 1024 * 1024
    journal_segment_bytes: int = 32 * 1024 * 1024
    sync_interval_ms: int = 20
    forbid_private_urls: bool = True
    #: Names of headers of answers; without the last one the figure is not sent.
    consumed_tokens_header: str = "consumed-tokens"
    remaining_tokens_header: str = "remaining-tokens"
    remaining_quota_tokens_header: str = ""
    #: Streams end with a comment that tells their cost.
    stream_receipt: bool = False
    #: How refusals by limits are told: statuses and names of denials by code, and the denials by name.
    refusal_statuses: dict[str, int] = {}
    refusal_denials: dict[str, str] = {}
    denials: dict[str, Denial] = {}
    #: The anomaly brake, ``None`` where there is none.
    brake: BrakeRules | None = None
    #: Networks of reverse proxies whose X-Forwarded-For is believed.
    trusted_proxies: tuple[str, ...] = ()
    #: ``None`` where no content is ever kept or looked at.
    content: ContentSettings | None = None
    #: ``None`` where no answer is ever kept.
    cache: CacheSettings | None = None
    progress_ms: int = 1_000
    log_level: str = "info"
    #: ``json`` or ``console``.
    log_format: str = "json"
    #: Standard input stays open as long as the supervisor lives; its end means to stop.
    attached: bool = False


decode_settings = msgspec.json.Decoder(GateSettings).decode
