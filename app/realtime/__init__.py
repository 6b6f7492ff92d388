"""Carries live topics to browsers over Socket.IO, and business events to rooms. The walk of a frame:

server.py       puts Socket.IO in front of Flask, closes it when the process drains
namespace.py    who connects (credentials.py), what comes in, what goes back; realtime_namespace.py: the frames beside that
members.py      who is connected, and until when its token holds; allowance.py: how much one transport session may send
protocol.py     a client's words -> frames, or an error
permissions.py  who may listen and who may speak; topics.py: what a topic is
hub.py          who is there, and what happens when something does, by a table; connection.py: what it knows of one client
subscribing.py  publishing.py, acknowledging.py: what it does for a client who says so; subscription.py: a cursor into the log
log/            the topic log: numbers, keeps and announces messages
delivery/       who is sent what, and when
archive/        durable topics in MongoDB, for longer than the log has them
transport/      how packets arrive and frames leave, and what garbage is stopped by
user_log.py     log lines that a user can cause
realtime.py     the service that other parts use; routes.py and schemas.py: the same over HTTP
"""

from app.realtime import routes
from app.realtime.server import attach

__all__ = ["attach", "routes"]
