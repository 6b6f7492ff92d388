"""Log lines: `configuration` renders them as JSON or for a terminal, `masking` hides credentials in them, `sampling` limits the lines
that clients can cause.
"""

from app.logs.configuration import configure_logs, get_logger, logging_config

__all__ = ["configure_logs", "get_logger", "logging_config"]
