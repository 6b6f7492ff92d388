"""`flask token`: a token on stdout and nothing else, or a sentence."""

import json
import time
from base64 import urlsafe_b64decode

import pytest

from app.clock import system_clock
from app.identity.tokens import TokenVerifier
from tests.apps import SECRET, make_app
from tests.servers.switchyard import Switchyard
from tests.unit.keys import public_pem, rsa_key


@pytest.fixture
def run(tmp_path):
    def run(*arguments, **settings):
        return make_app(tmp_path, **settings).test_cli_runner().invoke(args=["token", *arguments])

    return run


def identity(result, **options):
    assert result.exit_code == 0, result.output
    return TokenVerifier(secret=SECRET, **options).verify(result.output.strip(), system_clock())


def claims(result):
    body = result.output.strip().split(".")[1]
    return json.loads(urlsafe_b64decode(body + "=="))


def test_a_token_is_one_that_is_let_in(run):
    made = identity(run("--sub", "u1", "--role", "admin"))
    assert (made.user_id, made.roles, made.is_admin) == ("u1", ("admin",), True)


def test_several_roles_and_topics_may_be_given(run):
    made = identity(run("--sub", "u1", "--role", "a", "--role", "b", "--sub-topic", "x:*", "--sub-topic", "y", "--pub-topic", "x:1"))
    assert (made.roles, made.subscribe_to, made.publish_to) == (("a", "b"), ("x:*", "y"), ("x:1",))


@pytest.mark.parametrize(("ttl", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 2_592_000), ("60", 60)])
def test_it_lives_as_long_as_it_is_told_to(run, ttl, seconds):
    lives = claims(run("--sub", "u1", "--ttl", ttl))["exp"] - time.time()
    assert seconds - 5 <= lives <= seconds + 1


@pytest.mark.parametrize("ttl", ["", "0", "-1", "1w", "h", "1.5h", "soon", "²h", "1h ", "99999d", "9" * 5000])
def test_a_time_to_live_that_is_none_is_refused(run, ttl):
    refused = run("--sub", "u1", "--ttl", ttl)
    assert refused.exit_code == 2
    assert "is not a duration like 90s, 15m, 1h or 30d" in refused.output


def test_issuer_and_audience_are_the_ones_that_are_asked_for(run):
    settings = {"jwt_issuer": "me", "jwt_audience": "us"}
    assert identity(run("--sub", "u1", **settings), issuer="me", audience="us").user_id == "u1"


@pytest.mark.parametrize("arguments", [["--sub", ""], ["--sub", "a\nb"], ["--sub", "x" * 257], ["--sub", "u1", "--role", "a\nb"],
                                       ["--sub", "u1", "--sub-topic", ""]])  # fmt: skip
def test_a_token_that_nobody_would_accept_is_not_made(run, arguments):
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert refused.output == "Error: nobody would accept this token: The token's claims have the wrong shape.\n"


def test_a_subject_is_needed(run):
    assert "--sub" in run().output


def test_where_only_a_public_key_is_no_token_can_be_made(run):
    refused = run("--sub", "u1", app_env="production", jwt_secret=None, jwt_public_key=public_pem(rsa_key()))
    assert (refused.exit_code, refused.output) == (
        1, "Error: there is no JWT_SECRET here; a token can only be made where the private key is\n",
    )  # fmt: skip


def test_a_command_is_one_process_whatever_web_concurrency_is():
    app = Switchyard("flask", JWT_SECRET=SECRET, WEB_CONCURRENCY="4")
    try:
        made = app.flask("token", "--sub", "u1")
        assert (made.returncode, made.stderr, len(made.stdout.split())) == (0, "", 1), "and a token of JWT_SECRET needs no hint"
        shown = app.flask("telemetry", "spool", "status")
        assert shown.returncode == 0 and "0 segments" in shown.stdout
    finally:
        app.close()


def test_as_a_command_it_prints_the_token_alone_and_it_is_the_running_servers():
    app = Switchyard("flask")
    try:
        made = app.flask("token", "--sub", "u1", "--role", "admin")
        secret = json.loads((app.data_dir / "development.json").read_text())["jwtSecret"]
        assert (made.returncode, len(made.stdout.split())) == (0, 1)
        assert made.stderr.count("\n") == 1 and "A server in production refuses it" in made.stderr
        assert TokenVerifier(secret=secret).verify(made.stdout.strip(), system_clock()).is_admin
    finally:
        app.close()
