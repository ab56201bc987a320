"""``Config`` → ``GateSettings``: what the gate process is told at its start."""

from pathlib import Path

from faregate.config.cache_rules import cache_settings
from faregate.config.content_rules import content_settings
from faregate.config.schema import Brake, Config, Gateway, Tls
from faregate.config.secrets import Secrets
from faregate.config.settings import GateSettings, TlsSettings
from faregate.core import money
from faregate.core.limits.denials import Denial
from faregate.core.limits.habits import BrakeRules


def gate_settings(config: Config, folder: Path, data_dir: Path, secrets: Secrets) -> GateSettings:
    """The gate's settings; relative file names in ``config`` start at ``folder``."""
    gateway, limits, journal = config.gateway, config.limits, config.journal
    return GateSettings(
        host=gateway.host,
        port=gateway.port,
        data_dir=str(data_dir),
        peppers=tuple((pepper.id, pepper.key) for pepper in secrets.peppers),
        durability=config.durability,
        tls=tls_settings(gateway.tls, folder),
        header_bytes_max=gateway.header_bytes_max,
        headers_max=gateway.headers_max,
        uri_bytes_max=gateway.uri_bytes_max,
        header_timeout_ms=gateway.header_timeout,
        body_bytes_max=gateway.body_bytes_max,
        upload_bytes_max=gateway.upload_bytes_max,
        body_grace_ms=gateway.body_grace,
        body_bytes_per_second_min=gateway.body_bytes_per_second_min,
        keep_alive_ms=gateway.keep_alive,
        slow_reader_ms=gateway.slow_reader,
        held_body_bytes_max=gateway.held_body_bytes_max,
        held_bodies_bytes_max=gateway.held_bodies_bytes_max,
        key_bodies_bytes_max=_share_of_key(gateway),
        realtime_session_ms=gateway.realtime_session,
        drain_ms=gateway.drain,
        drains_max=gateway.drains_max,
        drain_answer_ms=gateway.drain_answer,
        connections_max=gateway.connections_max,
        default_output_tokens=limits.default_output_tokens,
        min_answer_tokens=limits.min_answer_tokens,
        stream_hold=limits.stream_hold,
        limits_each_max=limits.each_max,
        fail_open_nanos=money.nanos(limits.fail_open),
        journal_backlog_max=journal.backlog_max,
        journal_segment_bytes=journal.segment,
        sync_interval_ms=journal.sync_interval,
        forbid_private_urls=gateway.forbid_private_urls,
        consumed_tokens_header=gateway.headers.consumed_tokens,
        remaining_tokens_header=gateway.headers.remaining_tokens,
        remaining_quota_tokens_header=gateway.headers.remaining_quota_tokens or "",
        stream_receipt=gateway.stream_receipt == "comment",
        refusal_statuses=limits.statuses.model_dump(exclude_none=True),
        refusal_denials=limits.denial.model_dump(exclude_none=True),
        denials={
            name: Denial(each.status or 0, each.body, tuple(each.headers.items()))
            for name, each in limits.denials.items()
        },
        brake=brake_rules(limits.brake),
        content=content_settings(config),
        cache=cache_settings(config),
        trusted_proxies=gateway.trusted_proxies,
    )


def brake_rules(brake: Brake) -> BrakeRules | None:
    """The anomaly brake as the core goes by it; ``None`` where it is switched off."""
    if not brake.enabled:
        return None
    return BrakeRules(
        money.nanos(brake.floor),
        brake.factor,
        brake.repeats,
        brake.duration * 1_000_000,
        brake.requests_per_minute,
    )


def _share_of_key(gateway: Gateway) -> int:
    """A quarter, so that it takes several keys to fill what all share, but never less than one body may have."""
    if gateway.key_bodies_bytes_max is not None:
        return gateway.key_bodies_bytes_max
    largest = max(gateway.body_bytes_max, gateway.upload_bytes_max)
    return max(gateway.held_bodies_bytes_max // 4, min(largest, gateway.held_bodies_bytes_max))


def tls_settings(tls: Tls | None, folder: Path) -> TlsSettings | None:
    """A listener's files by absolute names."""
    if tls is None:
        return None
    return TlsSettings(str(folder / tls.certificate_file), str(folder / tls.key_file))
