"""Options that our server would ignore are refused; every option of gunicorn was looked at once."""

import pytest
from gunicorn.config import Config

from app.serving.gunicorn_options import IGNORED, refuse_ignored_options
from app.settings import SettingsError
from tests.apps import make_settings

SERVED = """
args config bind backlog workers worker_class worker_connections max_requests max_requests_jitter timeout graceful_timeout reload
reload_engine reload_extra_files spew check_config print_config chdir daemon raw_env pidfile worker_tmp_dir user group umask initgroups
accesslog access_log_format capture_output enable_stdio_inheritance proc_name pythonpath logger_class keyfile certfile cert_reqs ca_certs
ciphers control_socket_disable help version
"""
OF_NO_EFFECT = """
sendfile suppress_ragged_eofs ssl_version disable_redirect_access_to_syslog syslog_prefix syslog_facility dogstatsd_tags statsd_prefix
enable_backlog_metric raw_paste_global_conf control_socket_mode dirty_apps dirty_workers dirty_timeout dirty_threads dirty_graceful_timeout
"""  # alone, or on what a client sees


def given(*arguments):
    return Config().parser().parse_args([*arguments, "wsgi:app"])


def test_every_option_of_gunicorn_is_served_or_refused_or_known_to_do_nothing():
    options = {action.dest for action in Config().parser()._actions}
    assert options == {*SERVED.split(), *OF_NO_EFFECT.split(), *IGNORED}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--proxy-protocol"],
        ["--proxy-protocol", "v2"],
        ["--keep-alive", "5"],
        ["--threads", "4"],
        ["--limit-request-line", "100"],
        ["--limit-request-field_size", "100"],
        ["--forwarded-allow-ips", "*"],
        ["--reuse-port"],
        ["--http-protocols", "h2,h1"],
        ["--log-level", "debug"],
        ["--error-logfile", "e.log"],
        ["--timeout", "3"],
        ["--graceful-timeout", "0"],
    ],
)
def test_an_option_that_would_be_ignored_is_refused_by_its_name(arguments, tmp_path):
    with pytest.raises(SettingsError, match=f"^switchyard: {arguments[0]} "):
        refuse_ignored_options(given(*arguments), make_settings(tmp_path, drain_timeout_ms=5000))


def test_an_option_that_asks_for_what_is_served_anyway_is_none_to_refuse(tmp_path):
    arguments = [
        "--threads",
        "1",
        "--protocol",
        "http",
        "--proxy-protocol",
        "off",
        "--log-level",
        "INFO",
        "--timeout",
        "0",
        "--error-logfile",
        "-",
    ]
    settings = make_settings(tmp_path, log_level="info", drain_timeout_ms=5000)
    refuse_ignored_options(given(*arguments), settings)
    refuse_ignored_options(given("--error-logfile", "e.log", "--capture-output", "--graceful-timeout", "20"), settings)
