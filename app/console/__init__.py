"""What Switchyard shows to people and gives to front-end teams: for now the browser's client of /realtime."""

from app.console import routes

__all__ = ["routes"]
