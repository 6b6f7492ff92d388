"""Blocking work in a thread of gevent's pool, so that no other greenlet waits for it.

The pool by itself logs every exception as one that nobody catches, with its traceback, and then raises it in the caller as well.
So each kind of work that a full or broken disk can fail is done through `in_thread`.
"""

from collections.abc import Callable
from typing import Any

import gevent


def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """What `work(*args)` returns or raises. Only its caller learns of an exception."""
    result, error = gevent.get_hub().threadpool.apply(_outcome, (work, args))
    if error is None:
        return result
    try:
        raise error
    finally:
        del error  # its traceback has this frame


def _outcome(work: Callable[..., Any], args: tuple) -> tuple[Any, Exception | None]:
    try:
        return work(*args), None
    except Exception as error:
        return None, error
