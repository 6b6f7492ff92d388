"""The `flask …` commands. Each is a thin face over the part it names."""

import re
import time

import click
import pymongo
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from pymongo.errors import ConnectionFailure, PyMongoError

from app.errors import ApiError
from app.identity.identity import identity_from_claims
from app.identity.tokens import make_token
from app.storage import migrations, mongo
from app.telemetry.cli import telemetry_group

INDEX_BUILD_S = 3600  # building one over years of events takes longer than a request may
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
FOR_DEVELOPMENT_ONLY = (
    "There is no JWT_SECRET here, so this token is signed with the secret of development, kept in DATA_DIR. "
    "A server in production refuses it; set the JWT_SECRET of that server to make one for it."
)
LONGEST_S = 10 * 365 * 86_400


class Duration(click.ParamType):
    """`90s`, `15m`, `1h`, `30d`, or plain seconds."""

    name = "duration"

    def convert(self, value, param, ctx):
        if isinstance(value, int):
            return value
        number, unit = (value[:-1], value[-1]) if value[-1:] in SECONDS else (value, "s")
        seconds = int(number) * SECONDS[unit] if re.fullmatch("[0-9]{1,12}", number) else 0
        if not 0 < seconds <= LONGEST_S:
            self.fail(f"{value!r} is not a duration like 90s, 15m, 1h or 30d, of ten years at most", param, ctx)
        return seconds


@click.command("token")
@click.option("--sub", required=True, help="the user id")
@click.option("--role", "roles", multiple=True, help="may be given several times")
@click.option("--ttl", type=Duration(), default="1h", show_default=True)
@click.option("--sub-topic", "subscribe", multiple=True, help="a topic, or a prefix ending in *, that the token may subscribe to")
@click.option("--pub-topic", "publish", multiple=True, help="the same for publishing")
@with_appcontext
def token_command(sub, roles, ttl, subscribe, publish):
    """Print an HS256 token made with JWT_SECRET (or with the development secret)."""
    parts = current_app.extensions["switchyard"]
    settings = parts.settings
    secret = settings.jwt_secret or (parts.development and parts.development.jwt_secret)
    if not secret:
        raise click.ClickException("there is no JWT_SECRET here; a token can only be made where the private key is")
    claims = {"sub": sub, "iat": int(time.time()), "exp": int(time.time()) + ttl}
    if roles:
        claims["role"] = roles[0] if len(roles) == 1 else list(roles)
    if subscribe or publish:
        claims["topics"] = {"sub": list(subscribe), "pub": list(publish)}
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    try:
        identity_from_claims(claims)
    except ApiError as error:
        raise click.ClickException(f"nobody would accept this token: {error.message}") from None
    if not settings.jwt_secret:
        click.echo(FOR_DEVELOPMENT_ONLY, err=True)
    click.echo(make_token(secret, claims))


indexes_group = AppGroup("indexes", short_help="The indexes in MongoDB.", help="See and apply migrations_indexes/.")


@indexes_group.command("status")
def indexes_status():
    """Say of each migration whether it is applied; exit code 1 where one is not."""
    rows = _with_mongo(migrations.status)
    for migration, state in rows:
        click.echo(f"{state:8}  {migration.name:28}  {migration.why}")
    if any(state != "applied" for _, state in rows):
        raise SystemExit(1)


@indexes_group.command("migrate")
def indexes_migrate():
    """Apply what is pending, or changed by a setting."""
    try:
        done, conflicts = _with_mongo(migrations.migrate), None
    except migrations.MigrationsPending as pending:
        done, conflicts = pending.done, str(pending)
    if done or not conflicts:
        click.echo("\n".join(f"applied   {name}" for name in done) or "nothing to do")
    if conflicts:
        raise click.ClickException(conflicts)


@indexes_group.command("rollback")
def indexes_rollback():
    """Take back the last migration."""
    name = _with_mongo(migrations.rollback)
    click.echo(f"taken back  {name}" if name else "nothing to take back")


def _with_mongo(call):
    parts = current_app.extensions["switchyard"]
    if parts.database is None:
        raise click.ClickException("there is no MONGO_URI; without MongoDB there are no indexes to make")
    try:
        mongo.check(parts.database)  # with the usual patience; with the one for a build, a server that is away would take an hour
        with pymongo.timeout(INDEX_BUILD_S):
            return call(parts.database, parts.settings)
    except ConnectionFailure:
        raise click.ClickException(f"MongoDB does not answer at {mongo.target(parts.settings.mongo_uri)}; is it running?") from None
    except PyMongoError as error:
        raise click.ClickException(f"MongoDB refuses: {str(error)[:300]}") from None


def init_app(app: Flask) -> None:
    app.cli.add_command(token_command)
    app.cli.add_command(indexes_group)
    app.cli.add_command(telemetry_group)
