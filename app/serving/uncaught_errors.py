"""Logs an uncaught exception of a greenlet as one line. gevent itself would print a traceback of many lines that is not JSON."""

from types import TracebackType
from typing import Any

import gevent

from app.logs import get_logger

log = get_logger(__name__)


def log_uncaught_errors() -> None:
    """Log the uncaught exceptions of this thread's hub from now on."""
    gevent.get_hub().print_exception = _print_exception


def _print_exception(context: Any, kind: type[BaseException], error: BaseException, traceback: TracebackType) -> None:
    """Log in a greenlet of its own: logging may wait for a lock, and the hub must not wait."""
    if issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return  # the code that ends the process logs that
    gevent.spawn(log.error, "uncaught_exception", where=repr(context)[:200], exc_info=(kind, error, traceback))
