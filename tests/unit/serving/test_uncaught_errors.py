"""What nobody catches is a line of the log."""

import gevent
import pytest

from app.serving.uncaught_errors import log_uncaught_errors
from tests.unit.logs.test_configuration import logged  # noqa: F401 - a fixture


@pytest.fixture
def hub():
    log_uncaught_errors()
    yield gevent.get_hub()
    del gevent.get_hub().print_exception


def boom():
    raise RuntimeError("a surprise")


def test_a_greenlet_that_dies_is_one_line_with_its_traceback(hub, logged, capfd):  # noqa: F811
    gevent.spawn(boom)
    gevent.sleep(0.01)
    (line,) = logged()
    assert (line["level"], line["event"]) == ("error", "uncaught_exception")
    assert "RuntimeError: a surprise" in line["exception"] and "boom" in line["where"]
    assert capfd.readouterr().err == ""


def test_a_callback_of_the_hub_itself_is_one_line_too(hub, logged):  # noqa: F811
    hub.loop.run_callback(boom)
    gevent.sleep(0.01)
    assert "RuntimeError: a surprise" in logged()[0]["exception"]
