"""The settings that the pure parts of realtime need, as one value."""

from dataclasses import dataclass, fields

from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Options:
    """Limits and timeouts of delivery. Each field is the setting of the same name with the prefix RT_."""

    max_topics: int = 128
    max_payload_bytes: int = 65_536
    ack_default: bool = True
    ack_window_messages: int = 256
    ack_window_bytes: int = 262_144
    ack_timeout_ms: int = 5000
    ack_max_retries: int = 5
    send_buffer_bytes: int = 1_048_576
    slow_consumer_ms: int = 30_000
    connection_rate: str = "50/second"
    connection_burst: int = 100
    flood_ms: int = 10_000
    topic_rate: str = "200/second"
    token_grace_ms: int = 30_000

    @classmethod
    def from_settings(cls, settings: Settings) -> "Options":
        """Return the values of the RT_ settings."""
        return cls(**{field.name: getattr(settings, f"rt_{field.name}") for field in fields(cls)})
