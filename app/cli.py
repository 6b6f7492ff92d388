"""The `flask …` commands. Each is a thin face over the part it names."""

import time

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from app.identity import make_token

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType):
    """`90s`, `15m`, `1h`, `30d`, or plain seconds."""

    name = "duration"

    def convert(self, value, param, ctx):
        if isinstance(value, int):
            return value
        number, unit = (value[:-1], value[-1]) if value[-1:] in SECONDS else (value, "s")
        if not number.isdigit() or int(number) == 0:
            self.fail(f"{value!r} is not a duration like 90s, 15m, 1h or 30d", param, ctx)
        return int(number) * SECONDS[unit]


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
    click.echo(make_token(secret, claims))


def init_app(app: Flask) -> None:
    app.cli.add_command(token_command)
