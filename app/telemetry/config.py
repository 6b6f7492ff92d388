"""What the SDKs ask before they send: how much to sample, how many events a batch, how often, which names."""

from typing import Any

from app.settings import Settings


class ConfigStore:
    def __init__(self, settings: Settings):
        self._default = {
            "sample_rate": settings.telemetry_sample_rate,
            "max_batch": min(settings.telemetry_max_batch, settings.telemetry_max_events),
            "flush_interval_ms": settings.telemetry_flush_interval_ms,
            "allow": settings.telemetry_allow,
            "deny": settings.telemetry_deny,
        }

    def for_app(self, app: str | None) -> dict[str, Any]:
        """`app` has no overrides of its own yet: every application gets the settings' values."""
        return self._default
