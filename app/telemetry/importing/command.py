"""The command `flask telemetry import`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from app.settings import Settings
from app.storage import mongo
from app.storage.errors import StorageUnavailable
from app.storage.leader_lock import LeaderLock
from app.storage.segments.rejected import REJECTED
from app.telemetry.cli_text import count_of, printable
from app.telemetry.importing.checkpoints import Checkpoints
from app.telemetry.importing.destination import Destination, DryRun, MongoDestination
from app.telemetry.importing.importer import COUNTED, IMPORTED, KNOWN, REJECTED_LINES, Importer
from app.telemetry.importing.line_reader import LineReader
from app.telemetry.importing.source import STDIN, Source
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.spool.event_lines import segments
from app.telemetry.spool.progress import Progress
from app.telemetry.stats.import_counts import ImportedCounts
from app.telemetry.stats.store.mongo import MongoRollups

IMPORTABLE = click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True, path_type=Path)
WRITABLE_FOLDER = click.Path(exists=True, file_okay=False, writable=True, resolve_path=True, path_type=Path)
NO_RETRY = "The numbers above include what could be read. Another run on this file does not help; a whole copy of it does."
INTERRUPTED = 130  # the exit code that shells use for Ctrl-C

HELP = """Bring FILES (default: the whole spool) into MongoDB.

FILES are lines or JSON, plain or .gz, or pipes; - is standard input. The import reads lines of the spool, answers of
GET /api/telemetry/events, the output of mongoexport (lines, --jsonArray, --pretty), and the .rejected files of an earlier import;
their events keep their ids. It also reads what an SDK sends: a batch, or an event with its app:

\b
  {"app": "web", "type": "event", "name": "signup", "ts": "2026-01-31T08:00:00Z",
   "eventId": "…", "userId": "u1", "props": {"plan": "pro"}}      (all in one line)

app, type and name are required. ts is epoch milliseconds or ISO 8601; without it the event is dated now. Two events with the same
app and eventId are one event. An event without an eventId is recognized by its bytes and its place in the file of this name (of
standard input, which has no name, by its first 64 kB).

The command does not change the files. Events that are already stored are neither stored nor counted again, so a second run does no
harm. An interrupted import continues where it stopped, if the file and the collection are still the same ones. Lines that are not
events are kept in FILE.rejected, each with the reason (those of a pipe in DATA_DIR). Of a file that was cut off, the command imports
what can be read, and reports the cut. The numbers at the end are those of this run. The exit code is 1 if lines were rejected, or if
the import could not finish.

A server counts events for the statistics when it accepts them. So the import does not count the events of a spool file, which it
recognizes by the name (events-TIME-PID-RANDOM.jsonl), and counts those of any other file. If the statistics of the server that wrote
a spool are lost, import copies of its files under other names.
"""


@click.command("import", help=HELP)
@click.argument("files", nargs=-1, type=IMPORTABLE)
@click.option("--dry-run", is_flag=True, help="read and count everything and write nothing; compares with MongoDB where it answers")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="chunks of 500 events under way at once")
@click.option("--no-count", is_flag=True, help="add no event to the statistics, which have the events of these files already")
@click.option(
    "--rejected-dir", type=WRITABLE_FOLDER, help="keep FILE.rejected in this folder and not beside FILE, whose folder may be read-only"
)
@with_appcontext
def import_events(files: tuple[Path, ...], dry_run: bool, concurrency: int, no_count: bool, rejected_dir: Path | None) -> None:
    """Run one import; HELP describes it."""
    parts = current_app.extensions["switchyard"]
    settings, database = parts.settings, _database(parts, is_dry_run=dry_run)
    sources = [Source(path) for path in dict.fromkeys(map(_resolved, files)) or segments(settings.data_dir.resolve() / "spool")]
    sizes = {source: source.size for source in sources}
    sink = MongoSink(database) if database is not None else None
    with _only_import(settings), _statistics(parts, database) as statistics:
        destination: Destination = DryRun(sink)
        progress = checkpoints = None
        if not dry_run and sink is not None and statistics is not None:
            progress = _progress(settings)
            destination, checkpoints = MongoDestination(sink, statistics.note), Checkpoints(progress, sink, click.echo)
        importer = Importer(
            destination,
            checkpoints,
            LineReader(parts.clock()),
            concurrency=concurrency,
            is_counting=not no_count,
            rejects=rejected_dir,
            stdin_rejects=settings.data_dir,
        )
        counts = _run(importer, sources, "reading" if dry_run else "importing")
    if progress is not None:
        progress.remove()
    click.echo(_summary(len(sources), counts, dry_run, is_compared=database is not None))
    if not dry_run:
        _report_deletable(importer, sizes)
    for shown, damage in importer.damaged.items():
        click.echo(printable(f"not finished: {damage}: {shown}. {NO_RETRY}"), err=True)
    if counts[REJECTED_LINES] or importer.damaged or (statistics and statistics.failure):
        raise SystemExit(1)


def _database(parts: Any, *, is_dry_run: bool) -> Any | None:
    """Return None where a dry run has no MongoDB to compare with. Raises ClickException where an import has none."""
    trouble = "MONGO_URI is not set; set it to the database that the events should go to"
    if parts.database is not None:
        try:
            with mongo.driver_errors():
                mongo.check(parts.database)
            return parts.database
        except StorageUnavailable as error:
            trouble = f"nothing was imported. {error}"
    if is_dry_run:
        return None
    raise click.ClickException(trouble)


@contextmanager
def _only_import(settings: Settings) -> Iterator[None]:
    lock = LeaderLock(settings.data_dir / ".import.lock")
    if not lock.acquire():
        raise click.ClickException("another import is running in this DATA_DIR; let it finish, or stop it first")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _statistics(parts: Any, database: Any | None) -> Iterator[ImportedCounts | None]:
    """Yield None without MongoDB. Flushes the counts at the end, also of an import that was interrupted."""
    if database is None:
        yield None
        return
    flush_every_s = parts.settings.telemetry_rollups_flush_ms / 1000
    statistics = ImportedCounts(MongoRollups(database), parts.clock, parts.metrics, flush_every_s=flush_every_s)
    try:
        yield statistics
    finally:
        statistics.finish()
        if statistics.failure:
            click.echo(f"The statistics lack the events that were imported last: {statistics.failure}", err=True)


def _progress(settings: Settings) -> Progress:
    progress = Progress(settings.data_dir / ".import.progress", mongo.target(settings.mongo_uri or ""))
    progress.load()
    if progress.state:
        click.echo("Continuing an import that was interrupted.")
    return progress


def _run(importer: Importer, sources: list[Source], label: str) -> dict[str, int]:
    try:
        with click.progressbar(length=sum(source.size for source in sources), label=label) as bar:
            return importer.run(sources, bar.update)
    except (StorageUnavailable, OSError) as error:
        hint = "Run it again to continue from here."
        if str(getattr(error, "filename", "")).endswith(REJECTED):
            hint = "Rejected lines are kept there; name another place with --rejected-dir to continue from here."
        raise click.ClickException(f"not finished: {printable(error)}. {hint}") from None
    except KeyboardInterrupt:
        click.echo("\nInterrupted. Run it again to continue from here.", err=True)
        raise SystemExit(INTERRUPTED) from None


def _report_deletable(importer: Importer, sizes: dict[Source, int]) -> None:
    """Name the `.rejected` files that were imported and may be deleted: those that did not grow meanwhile. The command deletes none."""
    for source, size in sizes.items():
        if not source.shown.endswith(REJECTED) or source.shown in importer.damaged or source.size != size:
            continue
        kept = importer.rejected_to.get(source)
        elsewhere = f"its lines that are not events are in {kept}" if kept else "all its lines are in MongoDB"
        click.echo(printable(f"{source.shown} may be deleted: {elsewhere}."))


def _resolved(path: Path) -> Path:
    """Return the absolute path of a file. A pipe keeps its name: one of a shell's `<(…)` exists under no other."""
    return path.resolve() if path.is_file() and str(path) != STDIN else path


def _summary(files: int, counts: dict[str, int], dry_run: bool, is_compared: bool) -> str:
    new, known, rejected = counts[IMPORTED], counts[KNOWN], counts[REJECTED_LINES]
    imported, kept = ("to import", "to reject") if dry_run else ("imported", "rejected")
    kept += ", see the .rejected files" if rejected and not dry_run else ""
    stored = f"{known:,} already stored" if is_compared else "not compared with MongoDB, which is not available"
    done = f"{count_of(files, 'file')}: {count_of(new, 'event')} {imported}, {stored}, {count_of(rejected, 'line')} {kept}"
    uncounted = new - counts[COUNTED]
    return f"{done}\n{count_of(uncounted, 'event')} not added to the statistics, see --help" if uncounted else done
