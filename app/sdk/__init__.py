"""The clients of /realtime that we ship: `realtime.js` for browsers, served by `routes`, and `python/` for services, a folder to copy."""

from app.sdk import routes

__all__ = ["routes"]
