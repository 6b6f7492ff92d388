"""The `flask telemetry …` commands: what to do by hand with events that lie in files."""

from pathlib import Path

import click
from flask import current_app
from flask.cli import AppGroup
from pymongo.errors import PyMongoError

from app.json_values import to_iso
from app.settings import Settings
from app.storage import mongo
from app.storage.errors import StorageUnavailable
from app.storage.leader_lock import LeaderLock
from app.storage.mongo_errors import reason_of
from app.storage.segments.rejected import REJECTED
from app.storage.segments.segment import started_at, writer_of
from app.telemetry.importing.importer import COUNTED, IMPORTED, KNOWN, REJECTED_LINES, Importer
from app.telemetry.importing.line_reader import LineReader
from app.telemetry.importing.source import STDIN, Source
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.spool import inspect
from app.telemetry.spool.event_lines import segments
from app.telemetry.spool.progress import Progress
from app.telemetry.stats.import_counts import ImportedCounts
from app.telemetry.stats.store.mongo import MongoRollups

IMPORTABLE = click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, readable=True, resolve_path=True, path_type=Path)
NO_USE_AGAIN = "What could be read is in the numbers above. Running it again on this file does not help; a whole copy of it does."
INTERRUPTED = 130  # as shells have it for Ctrl-C

telemetry_group = AppGroup("telemetry", short_help="Events that lie in files.", help="Import events from files, and look after the spool.")


@telemetry_group.command("import")
@click.argument("files", nargs=-1, type=IMPORTABLE)
@click.option("--dry-run", is_flag=True, help="read everything and count, and write nothing; compares with MongoDB where it answers")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="chunks of 500 events under way at once")
@click.option(
    "--count/--no-count",
    default=None,
    help="add new events to the statistics, or do not; where neither is said, those of files that no server wrote",
)
@click.option(
    "--rejected-dir",
    type=click.Path(exists=True, file_okay=False, writable=True, resolve_path=True, path_type=Path),
    help="keep FILE.rejected here and not beside FILE, which may be on a medium that cannot be written",
)
def import_events(files, dry_run, concurrency, count, rejected_dir):
    """Bring FILES (without any: the whole spool) into MongoDB.

    FILES are lines or JSON, plain or .gz, or pipes; - is standard input. All that comes out of here goes in again, under the same id: the
    lines of the spool, the answers of GET /api/telemetry/events, what mongoexport writes (lines, --jsonArray, --pretty), and the
    .rejected files of an earlier import. So does what an SDK sends: a batch, or an event with its app:

    \b
      {"app": "web", "type": "event", "name": "signup", "ts": "2026-01-31T08:00:00Z",
       "eventId": "…", "userId": "u1", "props": {"plan": "pro"}}      (all in one line)

    app, type and name must be there. ts is epoch milliseconds or ISO 8601; without it the event is of now. With an eventId it
    is the same event as one that was sent with it; without one it is known again by its bytes and its place in the file of this
    name (of standard input, which has no name, by its first 64 kB).

    The files stay as they are. Events that are there already are neither stored nor counted again, so that running it twice
    does no harm; one that was interrupted goes on where it was, if the file and the collection are still the same ones. Lines that
    are no events are kept in FILE.rejected, each with the reason (those of a pipe in DATA_DIR). Of a file that was cut off, what can
    be read is imported, and the command says so. The numbers at the end are those of this run. Exit code 1
    where there are rejected lines, or where it could not finish.

    A server counts events for the statistics when it takes them. So a file of a spool, known by its name
    (events-TIME-PID-RANDOM.jsonl) also as a copy, is imported and not counted, and any other is counted. --count is for
    the spool of a server whose numbers are lost.
    """
    parts = current_app.extensions["switchyard"]
    settings, database = parts.settings, _database(parts, is_rehearsal=dry_run)
    sources = [Source(path) for path in dict.fromkeys(map(_resolved, files)) or segments(settings.data_dir.resolve() / "spool")]
    sizes = {source: source.size for source in sources}
    lock = LeaderLock(settings.data_dir / ".import.lock")
    if not lock.acquire():
        raise click.ClickException("another import is running in this DATA_DIR; let it finish, or stop it first")
    progress = _progress(settings, is_loaded=not dry_run)
    numbers = _numbers(parts, database)
    importer = Importer(
        MongoSink(database) if database is not None else None,
        progress,
        concurrency=concurrency,
        reader=LineReader(parts.clock()),
        note=numbers.note if numbers else lambda _: None,
        counts=count,
        is_rehearsal=dry_run,
        rejects=rejected_dir,
        stdin_rejects=settings.data_dir,
        say=click.echo,
    )
    trouble = None
    try:
        counts = _run(importer, sources, "reading" if dry_run else "importing")
    finally:
        trouble = numbers.finish() if numbers else None
        if trouble:
            click.echo(f"The statistics lack what was imported last: {trouble}", err=True)
        lock.release()
    if not dry_run:
        progress.remove()
    click.echo(_summary(len(sources), counts, dry_run, is_compared=database is not None))
    if not dry_run:
        _say_what_may_go(importer, sizes)
    for shown, damage in importer.damaged.items():
        click.echo(_printable(f"not finished: {damage}: {shown}. {NO_USE_AGAIN}"), err=True)
    if counts[REJECTED_LINES] or trouble or importer.damaged:
        raise SystemExit(1)


spool_group = AppGroup("spool", short_help="The files of the spool.", help="See, check and repair the files of the spool.")
telemetry_group.add_command(spool_group)


@spool_group.command("status")
def spool_status():
    """Say what lies in the spool, how old it is and who writes to it."""
    settings, folder = _spool()
    rows, rejected = inspect.status(folder), inspect.rejected_lines(folder)
    used, events = sum(row.bytes for row in rows), sum(row.events for row in rows)
    share = 100 * used / settings.spool_max_bytes
    click.echo(f"{folder}: {_count(len(rows), 'segment')}, {used:,} bytes ({share:.1f} % of SPOOL_MAX_BYTES), {_count(events, 'event')}")
    for row in rows:
        holder = f"held by process {writer_of(row.path)}" if row.is_held else "held by nobody"
        click.echo(f"  {row.path.name}  {row.bytes:,} bytes  {_count(row.events, 'event')}  since {to_iso(started_at(row.path))}  {holder}")
    for path, lines in rejected.items():
        click.echo(f"  {path.name}  {_count(lines, 'line')} put aside")
    if rejected:
        click.echo("  `flask telemetry import FILE` tries such lines again, and says afterwards which file may be deleted.")
    if rows:
        click.echo(f"oldest: {to_iso(started_at(rows[0].path))}")
    if not settings.mongo_uri:
        click.echo("There is no MONGO_URI: the spool is the store.")
    else:
        click.echo("They wait for MongoDB." if rows else "Nothing waits for MongoDB.")


@spool_group.command("verify")
@click.argument("files", nargs=-1, type=EXISTING)
def spool_verify(files):
    """Check every line of FILES (without any: of the whole spool); exit code 1 where one is no event."""
    paths, bad = list(files) or segments(_spool()[1]), 0
    for path in paths:
        for problem in inspect.problems(path):
            bad += 1
            click.echo(f"{_printable(path)}:{problem.number}: {problem.reason}")
    click.echo(f"{_count(len(paths), 'file')} checked, {_count(bad, 'bad line')}")
    if bad:
        raise SystemExit(1)


@spool_group.command("repair")
@click.argument("files", nargs=-1, type=EXISTING)
def spool_repair(files):
    """Move lines that are no events out of FILES (without any: of the whole spool) into FILE.rejected.

    A file that a living process holds is left alone.
    """
    for path in list(files) or segments(_spool()[1]):
        try:
            moved = inspect.repair(path)
        except FileNotFoundError:
            continue  # drained in the meantime
        except OSError as error:
            raise click.ClickException(f"{_printable(path)}: {error.strerror}") from None
        if moved is None:
            click.echo(f"{_printable(path)}: in use, left alone")
        elif moved:
            click.echo(_printable(f"{path}: {_count(len(moved), 'line')} moved to {path.name}.rejected"))
    click.echo("done")


def _database(parts, *, is_rehearsal: bool):
    """None where a rehearsal has to do without."""
    trouble = "there is no MONGO_URI; set it to say where the events should go"
    if parts.database is not None:
        try:
            mongo.check(parts.database)
            return parts.database
        except PyMongoError as error:
            trouble = f"nothing was imported. {reason_of(error)}"
    if is_rehearsal:
        return None
    raise click.ClickException(trouble)


def _numbers(parts, database) -> ImportedCounts | None:
    if database is None:
        return None
    flush_every_s = parts.settings.telemetry_rollups_flush_ms / 1000
    return ImportedCounts(MongoRollups(database), parts.clock, parts.metrics, flush_every_s=flush_every_s)


def _progress(settings: Settings, *, is_loaded: bool) -> Progress:
    progress = Progress(settings.data_dir / ".import.progress", mongo.target(settings.mongo_uri or ""))
    if is_loaded:
        progress.load()
        if progress.state:
            click.echo("Going on with an import that was interrupted.")
    return progress


def _run(importer: Importer, sources: list[Source], label: str) -> dict[str, int]:
    try:
        with click.progressbar(length=sum(source.size for source in sources), label=label) as bar:
            return importer.run(sources, bar.update)
    except (StorageUnavailable, OSError) as error:
        hint = "Run it again to go on from here."
        if str(getattr(error, "filename", "")).endswith(REJECTED):
            hint = "That is where lines that cannot be used are kept; name another place with --rejected-dir to go on from here."
        raise click.ClickException(f"not finished: {_printable(error)}. {hint}") from None
    except KeyboardInterrupt:
        click.echo("\nInterrupted. Run it again to go on from here.", err=True)
        raise SystemExit(INTERRUPTED) from None


def _say_what_may_go(importer: Importer, sizes: dict[Source, int]) -> None:
    """A `.rejected` file that was imported stays, and is shown as before, until a person deletes it. Only if nothing was added to it
    meanwhile, it holds nothing that is not elsewhere."""
    for source, size in sizes.items():
        if not source.shown.endswith(REJECTED) or source.shown in importer.damaged or source.size != size:
            continue
        kept = importer.rejected_to.get(source)
        elsewhere = f"its lines that are no events are in {kept}" if kept else "all its lines are in MongoDB"
        click.echo(_printable(f"{source.shown} may be deleted: {elsewhere}."))


def _resolved(path: Path) -> Path:
    """A pipe that a shell made for the command (`<(…)`) only exists under the name that the shell gave it."""
    return path.resolve() if path.is_file() and str(path) != STDIN else path


def _spool():
    settings = current_app.extensions["switchyard"].settings
    return settings, settings.data_dir.resolve() / "spool"


def _printable(text: object) -> str:
    """The name of a file may be no UTF-8."""
    return str(text).encode("utf-8", "replace").decode()


def _summary(files: int, counts: dict[str, int], dry_run: bool, is_compared: bool) -> str:
    new, known, rejected = counts[IMPORTED], counts[KNOWN], counts[REJECTED_LINES]
    verb, kept = ("to import", "no events") if dry_run else ("imported", "rejected")
    kept += ", see the .rejected files" if rejected and not dry_run else ""
    there = f"{known:,} there already" if is_compared else "not compared with MongoDB, which is not there"
    done = f"{_count(files, 'file')}: {_count(new, 'event')} {verb}, {there}, {_count(rejected, 'line')} {kept}"
    uncounted = new - counts[COUNTED]
    return f"{done}\n{_count(uncounted, 'event')} not added to the statistics, see --help" if uncounted else done


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
