"""Feeds subscriptions from the log: at once while they keep up, at their own pace where they do not. No payload is ever
kept for anybody. From the top down, each file knows only those below it:

delivery.py   a message is announced: who gets it now, who goes on by themselves
merging.py    several messages in one frame, for those who asked
pump.py       a turn for one who is behind: what is sent next
replay.py     what the log has lost comes from the archive, or is told
newest.py     for those who want the latest only
acks.py       what waits to be acknowledged, when it is sent again, when that ends
slow_consumers.py  limits what may wait for a slow client, and for how long
outgoing.py   frames, errors and gaps on their way to the transport
audience.py   who listens to a topic; pages.py: how much at once
"""

from app.realtime.delivery.delivery import Delivery

__all__ = ["Delivery"]
