"""The table of all settings. A new setting is a field here, two lines in `.env.example` and a row in docs/reference/settings.md."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.settings.field_types import (
    Bytes,
    CommaList,
    Count,
    HeaderNames,
    HttpUrl,
    InAnyCase,
    Milliseconds,
    MongoUri,
    Origins,
    PublicKey,
    Rate,
    RedisUrl,
    Retention,
    WriteKeys,
    parse_rate,
    without_paired_quotes,
    without_quotes,
)

# Settings that may contain a password. They are masked when the settings are printed.
_SECRET = {"jwt_secret", "metrics_token", "mongo_uri", "redis_url", "write_keys"}
_LISTS = {"cors_origins", "write_keys", "telemetry_allow", "telemetry_deny", "rt_log_retention", "rt_durable_topics"}

# The defaults of TELEMETRY_*_BYTE_RATE: what a request stores on average, and how many busy addresses share a write key or an app.
BYTES_PER_REQUEST = 20_000
MIN_BYTES_PER_S = 2_000_000
ADDRESSES_PER_KEY = 10


class SettingsError(SystemExit):
    """A setting is missing, misspelt or out of range. If it is not caught, the process ends and prints only its sentence."""


class Settings(BaseSettings):
    """All settings, frozen. A field is the environment's name in lower case and ends with its unit."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, frozen=True, extra="ignore")

    app_env: Literal["development", "production"] = "development"
    host: str = "0.0.0.0"  # noqa: S104 - a server in a container listens on every address; `flask run` has its own --host
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    data_dir: Path = Path("./var")
    web_concurrency: Annotated[int, Field(ge=1, le=256)] = 1
    mongo_uri: MongoUri | None = None
    mongo_timeout_ms: Milliseconds = 1500
    redis_url: RedisUrl | None = None
    cors_origins: Origins = ("*",)
    cors_allow_headers: HeaderNames = ()
    rate_limit_http: Rate = "100/second"
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    http_max_body_bytes: Bytes = 512_000
    http_max_unfinished_bytes: Bytes = 67_108_864
    http_max_unknown_bytes: Bytes = 16_777_216
    http_connections_per_address: Annotated[int, Field(ge=0)] = 4000
    http_read_timeout_ms: Annotated[int, Field(ge=100)] = 60_000
    http_idle_timeout_ms: Annotated[int, Field(ge=100)] = 75_000
    drain_timeout_ms: Milliseconds = 5000
    log_level: Annotated[Literal["debug", "info", "warning", "error"], InAnyCase] = "info"
    log_format: Annotated[Literal["json", "console"], InAnyCase] | None = None
    metrics_token: str | None = None

    jwt_secret: Annotated[str, Field(min_length=32)] | None = None
    jwt_public_key: PublicKey | None = None
    jwt_jwks_url: HttpUrl | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_leeway_s: Annotated[int, Field(ge=0, le=300)] = 10
    jwt_max_length: Annotated[int, Field(ge=256, le=65_536)] = 8192
    write_keys: WriteKeys = Field(default_factory=dict, validate_default=True)

    telemetry_max_events: Count = 1000
    telemetry_max_in_flight: Count = 256
    telemetry_ttl_days: Annotated[int, Field(ge=0, le=3650)] = 90
    telemetry_address_byte_rate: Rate | None = None
    telemetry_key_byte_rate: Rate | None = None
    telemetry_app_byte_rate: Rate | None = None
    telemetry_byte_burst_s: Annotated[int, Field(ge=1, le=3600)] = 30
    telemetry_rollups_flush_ms: Annotated[int, Field(ge=50)] = 2000
    telemetry_rollups_max_bytes: Annotated[int, Field(ge=1_048_576)] = 536_870_912
    telemetry_config_refresh_ms: Milliseconds = 2000
    telemetry_sample_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    telemetry_max_batch: Count = 50
    telemetry_flush_interval_ms: Milliseconds = 10_000
    telemetry_allow: CommaList = ()
    telemetry_deny: CommaList = ()

    spool_max_bytes: Bytes = 1_073_741_824
    spool_app_share: Annotated[float, Field(ge=0.1, le=1)] = 0.8
    spool_segment_bytes: Bytes = 8_388_608
    spool_known_ids: Annotated[int, Field(ge=0)] = 100_000
    spool_drain_events_per_second: Count = 10_000

    flags_refresh_ms: Milliseconds = 2000

    rt_ping_interval_ms: Annotated[int, Field(ge=1000)] = 25_000
    rt_ping_timeout_ms: Annotated[int, Field(ge=1000)] = 20_000
    rt_max_topics: Count = 128
    rt_max_payload_bytes: Bytes = 65_536
    rt_ack_default: bool = True
    rt_ack_window_messages: Count = 256
    rt_ack_window_bytes: Bytes = 262_144
    rt_ack_timeout_ms: Annotated[int, Field(ge=50)] = 5000
    rt_ack_max_retries: Annotated[int, Field(ge=0, le=20)] = 5
    rt_send_buffer_bytes: Bytes = 1_048_576
    rt_socket_buffer_bytes: Annotated[int, Field(ge=4096)] = 131_072
    rt_slow_consumer_ms: Annotated[int, Field(ge=100)] = 30_000
    rt_connection_rate: Rate = "50/second"
    rt_connection_burst: Count = 100
    rt_flood_ms: Annotated[int, Field(ge=1000)] = 10_000
    rt_topic_rate: Rate = "200/second"
    rt_token_grace_ms: Milliseconds = 30_000
    rt_handshake_rate: Rate = "100/second"
    rt_handshake_burst: Count = 1000
    rt_polling_rate: Rate = "1000/second"
    rt_join_timeout_ms: Annotated[int, Field(ge=100)] = 10_000
    rt_log_max_messages: Count = 1000
    rt_log_max_bytes: Bytes = 4_194_304
    rt_log_max_topics: Count = 10_000
    rt_log_max_age_s: Annotated[int, Field(ge=0)] = 86_400
    rt_log_max_total_bytes: Bytes = 268_435_456
    rt_log_retention: Retention = ()
    rt_durable_topics: CommaList = ()
    rt_durable_ttl_days: Annotated[int, Field(ge=0, le=3650)] = 30
    rt_durable_spool_bytes: Bytes = 268_435_456
    rt_durable_buffer_bytes: Bytes = 16_777_216

    @field_validator("*", mode="before")
    @classmethod
    def _without_quotes(cls, value: Any, info: ValidationInfo) -> Any:
        """Remove the quotes around a value. Lists check the quotes of their parts; a secret may begin with any character."""
        if not isinstance(value, str):
            return value
        plain = (without_quotes if info.field_name in _SECRET | _LISTS else without_paired_quotes)(value)
        is_empty = value and not plain
        return cls.model_fields[str(info.field_name)].get_default(call_default_factory=True) if is_empty else plain

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(name, "***" if name in _SECRET and value else value) for name, value in super().__repr_args__()]

    def byte_rates(self) -> tuple[float, float, float]:
        """Return the bytes per second that one address or user, one write key and one app may store."""
        per_request = max(MIN_BYTES_PER_S, _per_second(self.rate_limit_http) * BYTES_PER_REQUEST)
        address = _per_second(self.telemetry_address_byte_rate) or per_request
        shared = address * ADDRESSES_PER_KEY
        return address, _per_second(self.telemetry_key_byte_rate) or shared, _per_second(self.telemetry_app_byte_rate) or shared

    @property
    def named_apps(self) -> frozenset[str]:
        """The apps to which a write key is bound."""
        return frozenset(app for key in self.write_keys.values() for app in key.apps or ())

    @property
    def is_production(self) -> bool:
        """Whether APP_ENV is production."""
        return self.app_env == "production"

    @property
    def can_verify_tokens(self) -> bool:
        """Whether a key is set with which tokens can be verified."""
        return bool(self.jwt_secret or self.jwt_public_key or self.jwt_jwks_url)


def _per_second(rate: str | None) -> float:
    if rate is None:
        return 0.0
    limit = parse_rate(rate)
    return limit.amount / limit.get_expiry()
