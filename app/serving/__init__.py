"""The HTTP/1.1 and websocket server, on gevent. `flask run` and gunicorn use the same server, so a laptop and a cluster behave alike.

gunicorn's master imports this package before the application, so this package imports as little of the application as possible.
"""
