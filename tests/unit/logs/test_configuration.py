"""Every line is one JSON object in production, and none of them carries a secret."""

import io
import json
import logging
import warnings

import pytest
import structlog

from app.logs import configure_logs, get_logger
from app.settings import load_settings


def writing_to(buffer, **settings):
    """Configured as the application does, with `buffer` in the place of stderr."""
    configure_logs(load_settings(None, **settings))
    (handler,) = [handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter)]
    handler.setStream(buffer)


PRODUCTION = {"app_env": "production", "jwt_secret": "x" * 32, "log_level": "debug"}


@pytest.fixture
def logged():
    """Call it for the lines so far, as production writes them: what is no JSON fails here."""
    buffer = io.StringIO()
    writing_to(buffer, **PRODUCTION)
    logged = lambda: [json.loads(line) for line in buffer.getvalue().splitlines()]  # noqa: E731 - so that it can carry the buffer
    logged.buffer = buffer
    structlog.contextvars.clear_contextvars()
    yield logged
    structlog.contextvars.clear_contextvars()
    configure_logs(load_settings(None))


def one(logged):
    (line,) = logged()
    return line


def test_a_line_has_time_level_event_logger_and_what_was_said(logged):
    get_logger("app.somewhere").warning("mongo_unavailable", events_go_to="spool")
    line = one(logged)
    assert (line["level"], line["event"], line["logger"]) == ("warning", "mongo_unavailable", "app.somewhere")
    assert line["events_go_to"] == "spool"
    assert line["timestamp"].endswith("Z")


def test_what_is_bound_to_the_request_is_on_every_line_of_it_the_libraries_included(logged):
    structlog.contextvars.bind_contextvars(request_id="r1", user="u1")
    get_logger("app").info("ours")
    logging.getLogger("some.library").warning("theirs %s", "too")
    ours, theirs = logged()
    assert ours["request_id"] == theirs["request_id"] == "r1"
    assert theirs["event"] == "theirs too" and theirs["user"] == "u1"


def test_an_exception_is_part_of_its_line(logged):
    try:
        raise ValueError("two\nlines")
    except ValueError:
        get_logger("app").exception("ours")
        logging.getLogger("library").exception("theirs")
    for line in logged():
        assert line["exception"].startswith("Traceback") and "ValueError: two\nlines" in line["exception"]


def test_a_line_break_in_a_value_forges_no_line(logged):
    get_logger("app").info("said", user='u1\n{"event":"forged"}')
    assert one(logged)["user"] == 'u1\n{"event":"forged"}'


@pytest.mark.parametrize(
    "value",
    ["\ud800", {1: "a", (2, 3): "b"}, {"deep": {"\ud800": 1}}, b"\xff", object(), 10**30, float("nan"), {1, 2}, ValueError("x"),
     [["\ud800"]]],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_whatever_is_logged_a_line_comes_out(logged, value):
    get_logger("app").info("said", value=value)
    assert one(logged)["event"] == "said"


@pytest.mark.parametrize(
    "name", ["token", "Authorization", "writeKey", "write_key", "jwt_secret", "password", "payload", "access_token", "Set-Cookie"]
)
def test_a_value_whose_name_sounds_like_a_secret_is_masked_however_deep(logged, name):
    get_logger("app").info("said", **{name: "hunter2"}, headers={name: "hunter2", "more": [{name: ["hunter2"]}]}, kept="this")
    line = one(logged)
    assert "hunter2" not in json.dumps(line)
    assert line["kept"] == "this"


def test_a_number_is_no_secret(logged):
    get_logger("app").info("said", payload_bytes=7, remembered_tokens=3)
    assert one(logged)["payload_bytes"] == 7


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("GET /x?writeKey=hunter2&a=1 HTTP/1.1", "GET /x?writeKey=***&a=1 HTTP/1.1"),
        ("GET /realtime?a=1&token=hunter2", "GET /realtime?a=1&token=***"),
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("mongodb://user:hunter2@host:27017/db", "mongodb://user:***@host:27017/db"),
        ("cannot reach redis://:hunter2@host/0 now", "cannot reach redis://:***@host/0 now"),
        ("it was eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.hunter2", "it was ***"),
        ("see http://host:8080/path and a@b", "see http://host:8080/path and a@b"),
        ("user u1 at 10:30", "user u1 at 10:30"),
    ],
)
def test_what_looks_like_a_secret_inside_a_text_is_masked(logged, text, left):
    get_logger("app").info(text, where=text)
    logging.getLogger("library").error("%s", text)
    ours, theirs = logged()
    assert ours["event"] == ours["where"] == theirs["event"] == left


def test_a_secret_in_a_traceback_is_masked(logged):
    try:
        raise ValueError("mongodb://user:hunter2@host/db")
    except ValueError:
        get_logger("app").exception("failed")
    assert "hunter2" not in json.dumps(one(logged))


def test_a_warning_of_python_is_a_line_too(logged):
    with warnings.catch_warnings():
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.simplefilter("always")
        warnings.warn_explicit("old", DeprecationWarning, "file.py", 1)
    assert "DeprecationWarning: old" in one(logged)["event"]


@pytest.mark.parametrize(("level", "lines"), [("warning", 5), ("error", 0)])
def test_the_level_of_the_settings_holds_for_gunicorn_and_the_chatty_libraries(logged, level, lines):
    writing_to(logged.buffer, **{**PRODUCTION, "log_level": level})
    for name in ("app", "gunicorn.error", "engineio.server", "pymongo.topology", "flask-limiter"):
        logging.getLogger(name).info("quiet")
        logging.getLogger(name).warning("perhaps")
    assert len(logged()) == lines


def test_development_writes_for_a_person(logged):
    writing_to(logged.buffer)
    get_logger("app").info("said", token="hunter2", kept="this")
    try:
        raise ValueError("why")
    except ValueError:
        get_logger("app").exception("failed")
    text = logged.buffer.getvalue()
    assert "said" in text and "this" in text and "Traceback" in text and "hunter2" not in text
    assert not text.startswith("{")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stderr", "no_color", "colours"), [(Terminal, "", True), (Terminal, "1", False), (io.StringIO, "", False)], ids=ascii
)
def test_lines_have_colours_at_a_terminal_that_does_not_decline_them(logged, monkeypatch, stderr, no_color, colours):
    monkeypatch.setattr("sys.stderr", stderr())
    monkeypatch.setenv("NO_COLOR", no_color)
    writing_to(logged.buffer)
    get_logger("app").info("said")
    logging.getLogger("werkzeug").warning("\x1b[33mPress CTRL+C to quit\x1b[0m")
    first, last = logged.buffer.getvalue().splitlines()
    assert ("\x1b[" in first) is ("\x1b[" in last) is colours


def test_json_can_be_asked_for_in_development(logged):
    writing_to(logged.buffer, log_format="json")
    get_logger("app").info("said")
    assert one(logged)["event"] == "said"
