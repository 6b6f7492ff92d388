"""What nobody catches becomes a line of the log: gevent would print a traceback over many lines, past every format."""

import gevent

from app.logs import get_logger

log = get_logger(__name__)


def log_uncaught_errors() -> None:
    """For this thread's hub. Logging may wait for a lock and the hub may not, so a greenlet does it."""
    gevent.get_hub().print_exception = _print_exception


def _print_exception(context, kind, error, traceback) -> None:
    if issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return  # somebody ends the process, and it says so itself
    gevent.spawn(log.error, "uncaught_exception", where=repr(context)[:200], exc_info=(kind, error, traceback))
