"""Live topics for services in Python, on python-socketio: every message once and in order, or a report of what is missing.

    client = RealtimeClient("http://switchyard:8080", token=make_token)
    client.subscribe("orders:eu", lambda payload, message: ...)
    client.publish("orders:eu", {"id": 7})

Invariants, on any network and with any server:
1. Every wait (`publish`, `subscribe(…).wait`, `unsubscribe(…).wait`) ends within its `give_up_s`: done, or an exception that has a `code`.
2. Every topic with a subscription is live, or is being asked for, and the caller was told why it is not live (`wait`, on_state, on_error).
3. A handler gets each message of its topic once and in order; on_gap reports the messages that it does not get.

Handlers run in one thread, one after the other. A message is acknowledged when its handler has returned, so the server's window bounds
what waits for that thread; MAX_CALLS bounds it in any case. Where that many wait, what comes is dropped here, and asked for again when half
of them are done. The threads: one that connects, one for timers, one for handlers, and python-socketio's own; none per message.

This folder imports nothing of the server, so that it can be copied; it needs `pip install "python-socketio[client]"`. `realtime_client` is
the face, `connecting` keeps a connection, `requests` get frames answered, `subscriptions` keep topics live, `topic` puts messages in order,
`threads` is what all of them run on.
"""

from .errors import ConnectRefused, PublishFailed, RequestFailed, SubscribeFailed
from .realtime_client import RealtimeClient
from .threads import Outcome, Subscription

__all__ = ["ConnectRefused", "Outcome", "PublishFailed", "RealtimeClient", "RequestFailed", "SubscribeFailed", "Subscription"]
