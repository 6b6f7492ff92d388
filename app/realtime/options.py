"""What can be set about delivering and limiting, as one value: the settings that begin with RT_, without the prefix."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Options:
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
    def from_settings(cls, settings) -> "Options":
        return cls(**{field.name: getattr(settings, f"rt_{field.name}") for field in fields(cls)})
