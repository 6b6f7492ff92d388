"""Who listens to which topic, and who of them is at the head of it."""

from dataclasses import dataclass, field

from app.realtime.subscription import Subscription


@dataclass(slots=True)
class Audience:
    """Who listens to one topic, by connection id: `live` and `merging` are at the head, the rest of `all` is behind."""

    all: dict[str, Subscription] = field(default_factory=dict)
    live: dict[str, Subscription] = field(default_factory=dict)
    merging: dict[str, Subscription] = field(default_factory=dict)
    merge_after: int = 0

    def put_at_head(self, subscription: Subscription) -> None:
        group = self.merging if subscription.batch and subscription.mode == "all" else self.live
        group[subscription.connection_id] = subscription

    def take_from_head(self, subscription: Subscription) -> None:
        for group in (self.live, self.merging):
            if group.get(subscription.connection_id) is subscription:
                del group[subscription.connection_id]


class Audiences(dict[str, Audience]):
    """By topic; one that nobody listens to is not there."""

    def join(self, subscription: Subscription) -> None:
        self.setdefault(subscription.topic, Audience()).all[subscription.connection_id] = subscription

    def leave(self, subscription: Subscription) -> None:
        audience = self[subscription.topic]
        audience.take_from_head(subscription)
        del audience.all[subscription.connection_id]
        if not audience.all:
            del self[subscription.topic]

    def find(self, connection_id: str, topic: str) -> Subscription | None:
        audience = self.get(topic)
        return audience and audience.all.get(connection_id)

    def is_at_head(self, subscription: Subscription) -> bool:
        audience = self[subscription.topic]
        return any(group.get(subscription.connection_id) is subscription for group in (audience.live, audience.merging))

    def counts(self) -> dict[str, int]:
        everybody = sum(len(audience.all) for audience in self.values())
        at_head = sum(len(audience.live) + len(audience.merging) for audience in self.values())
        return {"topics": len(self), "behind": everybody - at_head}
