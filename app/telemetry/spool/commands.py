"""The commands `flask telemetry spool status|verify|repair`."""

from pathlib import Path

import click
from flask import current_app
from flask.cli import AppGroup

from app.json_values import to_iso
from app.settings import Settings
from app.storage.segments.segment import started_at, writer_of
from app.telemetry.cli_text import count_of, printable
from app.telemetry.spool import inspect
from app.telemetry.spool.event_lines import segments

EXISTING = click.Path(exists=True, dir_okay=False, readable=True, resolve_path=True, path_type=Path)

spool_group = AppGroup("spool", short_help="The files of the spool.", help="List, check and repair the files of the spool.")


@spool_group.command("status")
def spool_status() -> None:
    """List the files of the spool, their age, and the process that writes to each."""
    settings, folder = _spool()
    rows = inspect.status(folder)
    used, events = sum(row.bytes for row in rows), sum(row.events for row in rows)
    share = 100 * used / settings.spool_max_bytes
    size = f"{used:,} bytes ({share:.1f} % of SPOOL_MAX_BYTES)"
    click.echo(f"{folder}: {count_of(len(rows), 'segment')}, {size}, {count_of(events, 'event')}")
    for row in rows:
        click.echo(_status_line(row))
    rejected = inspect.rejected_lines(folder)
    for path, lines in rejected.items():
        click.echo(f"  {path.name}  {count_of(lines, 'rejected line')}")
    if rejected:
        click.echo("  `flask telemetry import FILE` tries such lines again, and reports afterwards which file may be deleted.")
    if rows:
        click.echo(f"oldest: {to_iso(started_at(rows[0].path))}")
    if not settings.mongo_uri:
        click.echo("MONGO_URI is not set: the spool is the store.")
    else:
        click.echo("These events wait for MongoDB." if rows else "No events wait for MongoDB.")


@spool_group.command("verify")
@click.argument("files", nargs=-1, type=EXISTING)
def spool_verify(files: tuple[Path, ...]) -> None:
    """Check every line of FILES (default: the whole spool); the exit code is 1 where a line is not an event."""
    paths, bad = list(files) or segments(_spool()[1]), 0
    for path in paths:
        for problem in inspect.problems(path):
            bad += 1
            click.echo(f"{printable(path)}:{problem.number}: {problem.reason}")
    click.echo(f"{count_of(len(paths), 'file')} checked, {count_of(bad, 'bad line')}")
    if bad:
        raise SystemExit(1)


@spool_group.command("repair")
@click.argument("files", nargs=-1, type=EXISTING)
def spool_repair(files: tuple[Path, ...]) -> None:
    """Move the lines of FILES (default: the whole spool) that are not events into FILE.rejected.

    A file that a running process writes to is skipped.
    """
    for path in list(files) or segments(_spool()[1]):
        try:
            moved = inspect.repair(path)
        except FileNotFoundError:
            continue  # the drainer has moved it in the meantime
        except OSError as error:
            raise click.ClickException(f"{printable(path)}: {error.strerror}") from None
        if moved is None:
            click.echo(f"{printable(path)}: in use, skipped")
        elif moved:
            click.echo(printable(f"{path}: {count_of(len(moved), 'line')} moved to {path.name}.rejected"))
    click.echo("done")


def _status_line(row: inspect.SegmentStatus) -> str:
    writer = f"written by process {writer_of(row.path)}" if row.is_held else "no writer"
    return f"  {row.path.name}  {row.bytes:,} bytes  {count_of(row.events, 'event')}  since {to_iso(started_at(row.path))}  {writer}"


def _spool() -> tuple[Settings, Path]:
    settings = current_app.extensions["switchyard"].settings
    return settings, settings.data_dir.resolve() / "spool"
