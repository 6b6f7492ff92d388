"""Reads the settings from the environment and `.env`, and checks what depends on several of them.

A wrong value or a misspelt name stops the start with one sentence that names the setting, so that the mistake is found by the
deployment and not by the first user.
"""

import os
import re
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import ValidationError

from app.identity.write_keys import SHORTEST_IN_PRODUCTION
from app.settings import unknown_names
from app.settings.settings import Settings, SettingsError


def load_settings(env_file: str | Path | None = ".env", **overrides: Any) -> Settings:
    """Return the settings: keyword arguments win over the environment, which wins over `.env`. Raises SettingsError."""
    _refuse_unknown_names(env_file)
    if not overrides.keys() <= Settings.model_fields.keys():
        raise TypeError(f"no such settings: {', '.join(sorted(overrides.keys() - Settings.model_fields.keys()))}")
    try:
        settings = Settings(_env_file=env_file, **overrides)  # type: ignore[call-arg]  # an argument that pydantic-settings adds
    except ValidationError as error:
        raise SettingsError("switchyard: " + "; ".join(_sentence(problem) for problem in error.errors())) from None
    _refuse_small_limits(settings)
    if settings.rt_durable_topics and not settings.mongo_uri:
        raise SettingsError("switchyard: RT_DURABLE_TOPICS needs MONGO_URI, where these topics are stored")
    if settings.is_production:
        _refuse_missing_key(settings)
        _refuse_short_secrets(settings)
    refuse_workers_without_redis(settings.web_concurrency, settings)
    return settings


def _refuse_missing_key(settings: Settings) -> None:
    if not settings.can_verify_tokens:
        raise SettingsError(
            "switchyard: APP_ENV=production needs a key to verify tokens with: set JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL"
        )


def _refuse_short_secrets(settings: Settings) -> None:
    """Any client may send guesses. The sentence never shows the value."""
    short = [f"the write key of {key.name} (WRITE_KEYS)" for text, key in settings.write_keys.items() if len(text) < SHORTEST_IN_PRODUCTION]
    if settings.metrics_token is not None and len(settings.metrics_token) < SHORTEST_IN_PRODUCTION:
        short.append("METRICS_TOKEN")
    if short:
        raise SettingsError(
            f"switchyard: {' and '.join(short)} can be guessed: APP_ENV=production needs at least {SHORTEST_IN_PRODUCTION} characters, "
            "such as those that `openssl rand -hex 12` prints"
        )


def _refuse_small_limits(settings: Settings) -> None:
    """With room for fewer than four bodies, a body that arrives slowly would always be rejected in favour of another."""
    for name in ("http_max_unfinished_bytes", "http_max_unknown_bytes"):
        if getattr(settings, name) < 4 * settings.http_max_body_bytes:
            raise SettingsError(f"switchyard: {name.upper()} must be at least four times HTTP_MAX_BODY_BYTES")


def refuse_workers_without_redis(workers: int, settings: Settings) -> None:
    """Raise SettingsError if there are several workers and no Redis through which they share their state."""
    if workers > 1 and not settings.redis_url:
        raise SettingsError(
            f"switchyard: {workers} workers need REDIS_URL: they share rate limits and POST /api/realtime/emit through it. "
            "Set it, or run one worker (WEB_CONCURRENCY=1, and no -w)"
        )


def read_app_env(default: str, env_file: str | Path | None = ".env") -> str:
    """Return APP_ENV, or `default` if it is not set: gunicorn's default is production, that of `flask run` is development."""
    return os.environ.get("APP_ENV") or _read(env_file).get("APP_ENV") or default


def _read(env_file: str | Path | None) -> dict[str, str | None]:
    try:
        if env_file:
            _refuse_unreadable_lines(Path(env_file))
        return dotenv_values(env_file) if env_file else {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"switchyard: {env_file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None


def _refuse_unreadable_lines(env_file: Path) -> None:
    """The library skips a line that it cannot read, such as one with an unpaired quote, and the server would start without that setting."""
    if not env_file.is_file():
        return
    with env_file.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error:
                raise SettingsError(f"switchyard: {env_file}, line {binding.original.line}: cannot be read; write NAME=value")


def misspelt_names(env_file: str | Path | None = ".env") -> dict[str, str]:
    """Return names that resemble a setting, with that setting. They may belong to another program, so the start is not refused."""
    return unknown_names.similar_names({**_read(env_file), **os.environ}, _names())


def _refuse_unknown_names(env_file: str | Path | None) -> None:
    unknown = unknown_names.unknown_settings({**_read(env_file), **os.environ}, _names())
    if unknown:
        names = ", ".join(f"{name} ({meant}?)" if meant else name for name, meant in unknown.items())
        raise SettingsError(f"switchyard: unknown setting {names}; .env.example lists all settings")


def _names() -> set[str]:
    return {name.upper() for name in Settings.model_fields}


def _sentence(problem: Any) -> str:
    """Return the sentence for a problem that pydantic found. It never shows the value, which may be a secret."""
    name = str(problem["loc"][0]).upper() if problem["loc"] else "the settings"
    expected = _EXPECTED.get(problem["type"])
    message = expected.format(**problem.get("ctx", {})) if expected else problem["msg"].removeprefix("Value error, ")
    return f"{name} {message if re.match('(is|gives|must be) ', message) else 'is wrong: ' + message}"


# Our words for what pydantic finds wrong. The checks in `field_types` have words of their own.
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
