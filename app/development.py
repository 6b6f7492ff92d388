"""What makes the first five minutes work: a secret and a write key made once, kept in DATA_DIR, printed ready to paste.

Only with APP_ENV=development. Production starts with a key of its own or not at all.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.identity.tokens import make_token
from app.identity.write_keys import WriteKey
from app.settings import Settings, SettingsError

TOKEN_TTL_S = 30 * 24 * 3600


@dataclass(frozen=True)
class Secrets:
    jwt_secret: str
    write_keys: Mapping[str, WriteKey]
    issuer: str | None
    audience: str | None

    def admin_token(self, now_s: float) -> str:
        claims = {"sub": "dev-admin", "role": "admin", "exp": int(now_s) + TOKEN_TTL_S, "iss": self.issuer, "aud": self.audience}
        return make_token(self.jwt_secret, {name: value for name, value in claims.items() if value is not None})

    def welcome(self, url: str) -> str:
        token, write_key = self.admin_token(time.time()), next(iter(self.write_keys), "")
        event = '{"app":"web","events":[{"type":"page","name":"/home"}]}'
        return f"""
  Switchyard is listening on {url}   (development: these secrets are kept in DATA_DIR, never use them elsewhere)

  admin token   {token}
  write key     {write_key}

  Try it:
  curl -X POST '{url}/api/telemetry/batch?writeKey={write_key}' -H 'Content-Type: application/json' -d '{event}'
  curl {url}/api/telemetry/events -H 'Authorization: Bearer {token}'
"""


def load(settings: Settings) -> Secrets:
    """What the environment gives wins; the rest is read from, or once written to, DATA_DIR/development.json."""
    kept = {}
    if not (settings.jwt_secret and settings.write_keys):
        kept = _read_or_make(settings.data_dir / "development.json")
    return Secrets(
        settings.jwt_secret or kept["jwtSecret"],
        settings.write_keys or {kept["writeKey"]: WriteKey("dev")},
        settings.jwt_issuer,
        settings.jwt_audience,
    )


def _read_or_make(path: Path) -> dict[str, str]:
    """Two processes starting together agree: whoever creates the file first decides."""
    try:
        if not path.exists():
            _make(path)
        kept = json.loads(path.read_text())
        if _is_usable(kept):
            return kept
    except OSError as error:
        raise SettingsError(f"switchyard: DATA_DIR {path.parent} is not usable: {error.strerror}") from None
    except ValueError:
        pass
    raise SettingsError(f"switchyard: {path} is damaged; delete it and a new secret is made")


def _make(path: Path) -> None:
    """Written whole under another name first, so that nobody ever reads half of it."""
    fresh = {"jwtSecret": secrets.token_hex(32), "writeKey": f"wk_{secrets.token_hex(12)}"}
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(fresh, indent=2) + "\n")
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _is_usable(kept: Any) -> bool:
    """An empty secret would be read as one, and anybody could sign with it."""
    if not isinstance(kept, dict):
        return False
    secret, write_key = kept.get("jwtSecret"), kept.get("writeKey")
    return isinstance(secret, str) and len(secret) >= 32 and isinstance(write_key, str) and len(write_key) >= 8
