"""The group of commands `flask telemetry …`: for events that lie in files."""

from flask.cli import AppGroup

from app.telemetry.importing.command import import_events
from app.telemetry.spool.commands import spool_group

telemetry_group = AppGroup("telemetry", short_help="Events that lie in files.", help="Import events from files, and maintain the spool.")
telemetry_group.add_command(import_events)
telemetry_group.add_command(spool_group)
