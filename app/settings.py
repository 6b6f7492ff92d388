"""Everything that can be set from outside, read once and frozen.

A wrong value or a misspelt name stops the boot with one sentence that names it: a typo should stop a deployment,
not its first user. `.env.example` carries the same list for people to copy; a test keeps the two equal.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from limits import parse as parse_rate
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

OUR_PREFIXES = ("RT_", "TELEMETRY_", "SPOOL_", "FLAGS_", "JWT_")


class SettingsError(SystemExit):
    """A setting is missing, misspelt or out of range. Uncaught, it ends the process with its sentence alone."""


def _split(value):
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _rate(value: str) -> str:
    try:
        parse_rate(value)
    except ValueError:
        raise ValueError("is not a rate; write it like 50/second or 600/minute") from None
    return value


def _write_keys(value):
    """`web:wk_abc,ios:wk_def` -> {"wk_abc": "web", "wk_def": "ios"}."""
    if not isinstance(value, str):
        return value
    keys = {}
    for pair in _split(value):
        name, colon, key = pair.partition(":")
        if not (colon and name and key):
            raise ValueError("is a list of name:key pairs, like web:wk_abc,ios:wk_def")
        keys[key] = name
    return keys


def _pem(value: str) -> str:
    """A PEM text (its line breaks may be written as backslash n, as .env files need) or the path of one."""
    text = value.replace("\\n", "\n")
    if "-----BEGIN" not in text:
        try:
            text = Path(value).read_text()
        except OSError:
            raise ValueError("is neither a PEM text nor the path of a readable PEM file") from None
    return text


CommaList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Rate = Annotated[str, AfterValidator(_rate)]
WriteKeys = Annotated[dict[str, str], NoDecode, BeforeValidator(_write_keys)]
Pem = Annotated[str, AfterValidator(_pem)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1024)]
Milliseconds = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """One frozen value. Field names are the environment's names in lower case; units are in the names."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, frozen=True, extra="ignore")

    app_env: Literal["development", "production"] = "development"
    host: str = "0.0.0.0"  # noqa: S104 - a server in a container listens on every address; `flask run` has its own --host
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    data_dir: Path = Path("./var")
    mongo_uri: str | None = None
    mongo_timeout_ms: Milliseconds = 1500
    redis_url: str | None = None
    cors_origins: CommaList = ["*"]
    rate_limit_http: Rate = "100/second"
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    http_max_body_bytes: Bytes = 512_000
    drain_timeout_ms: Milliseconds = 5000
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] | None = None
    metrics_token: str | None = None

    jwt_secret: Annotated[str, Field(min_length=32)] | None = None
    jwt_public_key: Pem | None = None
    jwt_jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_leeway_s: Annotated[int, Field(ge=0, le=300)] = 10
    write_keys: WriteKeys = {}

    telemetry_max_events: Count = 1000
    telemetry_ttl_days: Annotated[int, Field(ge=0, le=3650)] = 90
    telemetry_sample_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    telemetry_max_batch: Count = 100
    telemetry_flush_interval_ms: Milliseconds = 5000
    telemetry_allow: CommaList = []
    telemetry_deny: CommaList = []

    spool_max_bytes: Bytes = 1_073_741_824
    spool_segment_bytes: Bytes = 8_388_608
    spool_known_ids: Annotated[int, Field(ge=0)] = 100_000

    flags_refresh_ms: Milliseconds = 2000

    rt_ping_interval_ms: Annotated[int, Field(ge=1000)] = 25_000
    rt_ping_timeout_ms: Annotated[int, Field(ge=1000)] = 20_000
    rt_max_topics: Count = 128
    rt_max_payload_bytes: Bytes = 65_536
    rt_log_max_messages: Count = 1000
    rt_log_max_bytes: Bytes = 4_194_304
    rt_log_max_topics: Count = 10_000

    @property
    def is_production(self) -> bool:
        return self.app_env == "production"

    @property
    def can_verify_tokens(self) -> bool:
        return bool(self.jwt_secret or self.jwt_public_key or self.jwt_jwks_url)


def load_settings(env_file: str | Path | None = ".env", **overrides) -> Settings:
    """Read the environment, then `.env`; keyword arguments win over both. Raises SettingsError with one sentence."""
    _refuse_unknown_names(env_file)
    try:
        settings = Settings(_env_file=env_file, **overrides)
    except ValidationError as error:
        raise SettingsError("switchyard: " + "; ".join(_sentence(problem) for problem in error.errors())) from None
    if settings.is_production and not settings.can_verify_tokens:
        raise SettingsError(
            "switchyard: APP_ENV=production needs a key to verify tokens with: set JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL"
        )
    return settings


def read_app_env(default: str, env_file: str | Path | None = ".env") -> str:
    """APP_ENV where it is given, else `default`: gunicorn means production where nobody said anything, `flask run` does not."""
    return os.environ.get("APP_ENV") or (env_file and dotenv_values(env_file).get("APP_ENV")) or default


def _refuse_unknown_names(env_file: str | Path | None) -> None:
    known = {name.upper() for name in Settings.model_fields}
    given = {*os.environ, *(dotenv_values(env_file) if env_file else {})}
    unknown = sorted(name for name in given if name.upper().startswith(OUR_PREFIXES) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"switchyard: unknown setting {', '.join(unknown)}; .env.example names every one there is")


def _sentence(problem) -> str:
    name = str(problem["loc"][0]).upper() if problem["loc"] else "the settings"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name} {message if message.startswith('is ') else 'is wrong: ' + message}"
