"""Everything that can be set from outside, read once and frozen.

A wrong value or a misspelt name stops the boot with one sentence that names it: a typo should stop a deployment,
not its first user. `.env.example` carries the same list for people to copy; a test keeps the two equal.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import setting_names
from app.identity.origins import is_pattern
from app.identity.write_keys import SHORTEST_IN_PRODUCTION, WriteKey, read_write_keys


class SettingsError(SystemExit):
    """A setting is missing, misspelt or out of range. Uncaught, it ends the process with its sentence alone."""


QUOTES = ("'", '"')


def _unquoted(text: str) -> str:
    """`docker --env-file` and Kubernetes hand on the quotes that a shell would have taken away."""
    is_pair = len(text) >= 2 and text[0] == text[-1] in QUOTES and text[0] not in text[1:-1]
    return text[1:-1] if is_pair else text


def _bare(text: str) -> str:
    """Raises ValueError for what is left of a pair of quotes."""
    text = _unquoted(text)
    if text.startswith(QUOTES) or text.endswith(QUOTES):
        raise ValueError("is wrong: a quote at one end belongs to nothing; write the value without quotes")
    return text


def _split(value):
    return tuple(part for part in (_bare(part.strip()) for part in value.split(",")) if part) if isinstance(value, str) else value


def _rate(value: str) -> str:
    try:
        (rate,) = parse_many(value)
    except ValueError:  # no rate at all, or several
        raise ValueError("is not a rate; write one like 50/second or 600/minute") from None
    if rate.amount < 1 or rate.get_expiry() < 1:
        raise ValueError("is a rate of nothing; write one like 50/second or 600/minute")
    return value


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not is_pattern(value):
            raise ValueError(f"must be a list of origins like https://app.example.com or https://*.example.com, or *; {value!r} is none")
    return values


def _header_names(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'+.^_`|~-]+\*?|\*", value):
            raise ValueError(f"must be a list of header names like X-Tenant or X-Corp-*; {value!r} is none")
    return values


def _write_keys(value):
    if isinstance(value, str) and any(quote in part for part in _split(value) for quote in QUOTES):
        raise ValueError("is wrong: a quote inside; write the value without quotes")
    return read_write_keys(_split(value)) if isinstance(value, str) else value


def _retention(value):
    """`chat:*=5000/16777216/604800` -> (("chat:*", 5000, 16777216, 604800),): messages, bytes and seconds of a topic or a prefix."""
    if not isinstance(value, str):
        return value
    rows = []
    for part in _split(value):
        found = re.fullmatch(r"([A-Za-z0-9:._/-]*\*?)=([1-9]\d{0,9})/([1-9]\d{0,11})/(\d{1,9})", part)
        if not found or not found[1]:
            raise ValueError("must be a list like chat:*=5000/16777216/604800: a topic or prefix*, then messages, bytes and seconds")
        rows.append((found[1], int(found[2]), int(found[3]), int(found[4])))
    return tuple(rows)


def _public_key(value: str) -> str:
    """A PEM text (its line breaks may be written as backslash n, as .env files need) or the path of one."""
    text = value.replace("\\n", "\n")
    if "-----BEGIN" not in text:
        try:
            text = Path(value).read_text()
        except (OSError, ValueError):
            raise ValueError("is neither a PEM text nor the path of a readable PEM file") from None
    _refuse_weak_key(text)
    return text


def _refuse_weak_key(pem: str) -> None:
    """A key that cannot verify would turn every token away, one by one, with a message about the token."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except Exception:
        raise ValueError("is not a PEM that begins with BEGIN PUBLIC KEY and can be read") from None
    is_rsa = isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not (is_rsa or is_p256):
        raise ValueError("is neither an RSA key of at least 2048 bits (RS256) nor one on the curve P-256 (ES256)")


def _url_with(*schemes: str):
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            if not parts.scheme.startswith("mongodb"):  # which may have several hosts; its driver checks them
                parts.port  # noqa: B018 - raises where it is no number
            if "redis" in schemes and "@" in parts.path + parts.fragment:
                raise ValueError("a password that ended too early")
        except ValueError:  # its words would show a part of the password
            raise ValueError("cannot be read; in a user's name and password, signs like @ : / are written %40 %3A %2F") from None
        if parts.scheme not in schemes or not (value.startswith("unix://") and parts.path if parts.scheme == "unix" else parts.netloc):
            raise ValueError(f"is not an address that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return value

    return AfterValidator(check)


def _lower(value):
    return value.lower() if isinstance(value, str) else value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
HeaderNames = Annotated[CommaList, AfterValidator(_header_names)]
Origins = Annotated[CommaList, AfterValidator(_origins)]
Rate = Annotated[str, AfterValidator(_rate)]
WriteKeys = Annotated[Mapping[str, WriteKey], NoDecode, BeforeValidator(_write_keys), AfterValidator(MappingProxyType)]
Retention = Annotated[tuple[tuple[str, int, int, int], ...], NoDecode, BeforeValidator(_retention)]
PublicKey = Annotated[str, AfterValidator(_public_key)]
MongoUri = Annotated[str, _url_with("mongodb", "mongodb+srv")]
RedisUrl = Annotated[str, _url_with("redis", "rediss", "unix")]
HttpUrl = Annotated[str, _url_with("https", "http")]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1024)]
Milliseconds = Annotated[int, Field(ge=1)]

# Settings that may carry a password; they never show in the text form of the whole.
_SECRET = {"jwt_secret", "metrics_token", "mongo_uri", "redis_url", "write_keys"}
_LISTS = {"cors_origins", "write_keys", "telemetry_allow", "telemetry_deny", "rt_log_retention", "rt_durable_topics"}


# Where TELEMETRY_*_BYTE_RATE are not set: what a request stores on average, and how many busy addresses share a key or an app.
BYTES_A_REQUEST = 20_000
LEAST_BYTES_PER_S = 2_000_000
ADDRESSES_A_KEY = 10


def _per_second(rate: str | None) -> float:
    if rate is None:
        return 0.0
    (limit,) = parse_many(rate)
    return limit.amount / limit.get_expiry()


class Settings(BaseSettings):
    """One frozen value. Field names are the environment's names in lower case; units are in the names."""

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
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    log_format: Annotated[Literal["json", "console"], BeforeValidator(_lower)] | None = None
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
    def _without_quotes(cls, value, info: ValidationInfo):
        """Lists look at their parts themselves; a secret may begin with any character."""
        if not isinstance(value, str):
            return value
        plain = (_unquoted if info.field_name in _SECRET | _LISTS else _bare)(value)
        is_empty = value and not plain
        return cls.model_fields[info.field_name].get_default(call_default_factory=True) if is_empty else plain

    def __repr_args__(self):
        return [(name, "***" if name in _SECRET and value else value) for name, value in super().__repr_args__()]

    def byte_rates(self) -> tuple[float, float, float]:
        """How many bytes per second one address or user, one write key and one application may store."""
        usual = max(LEAST_BYTES_PER_S, _per_second(self.rate_limit_http) * BYTES_A_REQUEST)
        address = _per_second(self.telemetry_address_byte_rate) or usual
        shared = address * ADDRESSES_A_KEY
        return address, _per_second(self.telemetry_key_byte_rate) or shared, _per_second(self.telemetry_app_byte_rate) or shared

    @property
    def named_apps(self) -> frozenset[str]:
        """The applications that some write key is bound to."""
        return frozenset(app for key in self.write_keys.values() for app in key.apps or ())

    @property
    def is_production(self) -> bool:
        return self.app_env == "production"

    @property
    def can_verify_tokens(self) -> bool:
        return bool(self.jwt_secret or self.jwt_public_key or self.jwt_jwks_url)


def load_settings(env_file: str | Path | None = ".env", **overrides) -> Settings:
    """Read the environment, then `.env`; keyword arguments win over both. Raises SettingsError with one sentence."""
    _refuse_unknown_names(env_file)
    if not overrides.keys() <= Settings.model_fields.keys():
        raise TypeError(f"no such settings: {', '.join(sorted(overrides.keys() - Settings.model_fields.keys()))}")
    try:
        settings = Settings(_env_file=env_file, **overrides)
    except ValidationError as error:
        raise SettingsError("switchyard: " + "; ".join(_sentence(problem) for problem in error.errors())) from None
    _refuse_too_little_room(settings)
    if settings.rt_durable_topics and not settings.mongo_uri:
        raise SettingsError("switchyard: RT_DURABLE_TOPICS needs MONGO_URI: that is where these topics are kept")
    if settings.is_production and not settings.can_verify_tokens:
        raise SettingsError(
            "switchyard: APP_ENV=production needs a key to verify tokens with: set JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL"
        )
    if settings.is_production:
        _refuse_short_secrets(settings)
    refuse_lonely_workers(settings.web_concurrency, settings)
    return settings


def _refuse_short_secrets(settings: Settings) -> None:
    """Anybody may send us guesses. Never shows the value."""
    short = [f"the write key of {key.name} (WRITE_KEYS)" for text, key in settings.write_keys.items() if len(text) < SHORTEST_IN_PRODUCTION]
    if settings.metrics_token is not None and len(settings.metrics_token) < SHORTEST_IN_PRODUCTION:
        short.append("METRICS_TOKEN")
    if short:
        raise SettingsError(
            f"switchyard: {' and '.join(short)} can be guessed: APP_ENV=production needs at least {SHORTEST_IN_PRODUCTION} characters, "
            "such as those that `openssl rand -hex 12` prints"
        )


def _refuse_too_little_room(settings: Settings) -> None:
    """Less than a few bodies, and one that is sent slowly would always make room for another."""
    for name in ("http_max_unfinished_bytes", "http_max_unknown_bytes"):
        if getattr(settings, name) < 4 * settings.http_max_body_bytes:
            raise SettingsError(f"switchyard: {name.upper()} must be at least four times HTTP_MAX_BODY_BYTES")


def refuse_lonely_workers(workers: int, settings: Settings) -> None:
    """Raises SettingsError where more than one worker has nothing to talk through."""
    if workers > 1 and not settings.redis_url:
        raise SettingsError(
            f"switchyard: {workers} workers need REDIS_URL: they share rate limits and POST /api/realtime/emit through it. "
            "Set it, or run one worker (WEB_CONCURRENCY=1, and no -w)"
        )


def read_app_env(default: str, env_file: str | Path | None = ".env") -> str:
    """APP_ENV where it is given, else `default`: gunicorn means production where nobody said anything, `flask run` does not."""
    return os.environ.get("APP_ENV") or _read(env_file).get("APP_ENV") or default


def _read(env_file: str | Path | None) -> dict[str, str | None]:
    try:
        if env_file:
            _refuse_unreadable_lines(Path(env_file))
        return dotenv_values(env_file) if env_file else {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"switchyard: {env_file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None


def _refuse_unreadable_lines(env_file: Path) -> None:
    """The library skips a line that it cannot read, half a pair of quotes for example, and a server would start without that setting."""
    if not env_file.is_file():
        return
    with env_file.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error:
                raise SettingsError(f"switchyard: {env_file}, line {binding.original.line}: cannot be read; write NAME=value")


def misspelt_names(env_file: str | Path | None = ".env") -> dict[str, str]:
    """Names that are like a setting, and not certainly meant as one, with that setting: no reason to refuse a start."""
    return setting_names.lookalikes({**_read(env_file), **os.environ}, _names())


def _refuse_unknown_names(env_file: str | Path | None) -> None:
    unknown = setting_names.unknown({**_read(env_file), **os.environ}, _names())
    if unknown:
        names = ", ".join(f"{name} ({meant}?)" if meant else name for name, meant in unknown.items())
        raise SettingsError(f"switchyard: unknown setting {names}; .env.example names every one there is")


def _names() -> set[str]:
    return {name.upper() for name in Settings.model_fields}


def _sentence(problem) -> str:
    """Never the value itself: it may be a secret."""
    name = str(problem["loc"][0]).upper() if problem["loc"] else "the settings"
    expected = _EXPECTED.get(problem["type"])
    message = expected.format(**problem.get("ctx", {})) if expected else problem["msg"].removeprefix("Value error, ")
    return f"{name} {message if re.match('(is|gives|must be) ', message) else 'is wrong: ' + message}"


# What pydantic finds wrong, in our words; what a check above finds has them already.
_EXPECTED = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "must be at least {ge:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "string_too_short": "must be at least {min_length} characters long",
    "literal_error": "must be {expected}",
}
