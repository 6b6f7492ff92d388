"""The entry point of `flask run` and `gunicorn wsgi:app`. gevent must patch the standard library before any other import."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

from app import create_app  # noqa: E402

app = create_app()

if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
    from app.serving import dev_server

    dev_server.install(app)
