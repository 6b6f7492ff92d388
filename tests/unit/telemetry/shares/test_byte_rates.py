"""What one sender may store: by address or user, by write key and by app, whatever it is packed in."""

import json
from contextlib import suppress

import pytest

from app.errors import ApiError
from app.identity.identity import Identity
from app.metrics import Metrics
from app.telemetry.batch import Batch
from app.telemetry.fast_batch import read_batch_bytes
from app.telemetry.ingest import Ingest
from app.telemetry.shares.byte_rates import EVENT_BYTES, ByteRateLimits, ByteRates
from app.telemetry.shares.sender import Sender
from app.telemetry.shares.token_buckets import TokenBuckets
from app.telemetry.sinks.memory import MemorySink
from app.telemetry.spool.event_lines import encode
from tests.apps import NOW

KEY = Identity(kind="write_key", write_key_name="web")
IOS = Identity(kind="write_key", write_key_name="ios")


class Monotonic:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Monotonic()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def budgets(clock, metrics):
    """1 kB/s for an address, 2 for a key, 3 for an app, ten seconds of it at once."""
    return ByteRateLimits(ByteRates(1000, 2000, 3000, 10), metrics, clock)


def read(events, **envelope):
    body = json.dumps({"app": "web", **envelope, "events": events}).encode()
    return read_batch_bytes(body, NOW, 1000), len(body)


def of_bytes(size, app="web"):
    """A batch that counts so many."""
    for pad in (0, size - _counted(*read(_padded(0), app=app))):
        found = read(_padded(pad), app=app)
    assert _counted(*found) == size
    return found


def _padded(pad):
    return [{"type": "event", "name": "a", "props": {"pad": "x" * pad}}]


def _counted(batch, body_bytes):
    return body_bytes + len(batch.events) * (EVENT_BYTES + batch.shared_bytes)


def sender(address="1.1.1.1", identity=KEY):
    return Sender(f"ip:{address}", identity)


def refusal(budgets, batch, who):
    with pytest.raises(ApiError) as refused:
        budgets.take(*batch, who)
    return refused.value


def test_an_address_that_stored_its_burst_waits_for_its_rate_and_is_told_which_limit_it_met(budgets, clock):
    for _ in range(2):
        assert budgets.take(*of_bytes(5000), sender())[0].events
    error = refusal(budgets, of_bytes(5000), sender())
    assert (error.code, error.status, error.retryable) == ("rate_limited", 429, True)
    assert "This address" in error.message and "1000 bytes per second (TELEMETRY_ADDRESS_BYTE_RATE)" in error.message
    assert error.retry_after_ms == 5000
    clock.now += error.retry_after_ms / 1000
    assert budgets.take(*of_bytes(5000), sender())[0].events


def test_another_address_is_not_held_up_until_the_key_is_over(budgets):
    for number in range(4):
        budgets.take(*of_bytes(5000, app=f"a{number}"), sender(f"1.1.1.{number}"))
    error = refusal(budgets, of_bytes(5000, app="b"), sender("2.2.2.2"))
    assert "The write key of web" in error.message and "TELEMETRY_KEY_BYTE_RATE" in error.message
    assert budgets.take(*of_bytes(5000, app="b"), sender("2.2.2.2", IOS))[0].events


def make_busy(budgets):
    """The app `busy` has used up its budget, over two keys and many addresses."""
    for number in range(6):
        budgets.take(*of_bytes(5000, app="busy"), sender(f"1.1.1.{number}", (KEY, IOS)[number % 2]))


def test_an_app_is_held_over_all_keys_and_addresses(budgets):
    make_busy(budgets)
    error = refusal(budgets, of_bytes(5000, app="busy"), sender("9.9.9.9", Identity(kind="user", user_id="u1")))
    assert "The application busy" in error.message and "TELEMETRY_APP_BYTE_RATE" in error.message


def test_in_a_batch_that_mixes_apps_only_the_events_of_the_app_that_is_over_are_rejected(budgets):
    make_busy(budgets)
    events = [{"type": "event", "name": str(n), "app": ("calm", "busy")[n % 2], "props": {"pad": "x" * 400}} for n in range(4)]
    batch, _ = budgets.take(*read(events), sender("9.9.9.9", Identity(kind="write_key", write_key_name="other")))
    assert [event.name for event in batch.events] == ["0", "2"]
    assert [(row["index"], row["code"]) for row in batch.rejected] == [(1, "rate_limited"), (3, "rate_limited")]
    assert "The application busy" in batch.rejected[0]["message"]


@pytest.mark.parametrize(
    "events, envelope",
    [
        ([{"type": "page", "name": "a"}] * 1000, {"user": {"pad": "x" * 8000}}),
        ([{"type": "page", "name": "a"}] * 1000, {"release": "é" * 128, "userId": "x" * 256, "env": "\u0001" * 128}),
        ([{"type": "page", "name": "a", "app": "other"}] * 1000, {"user": {"pad": "x" * 8000}}),
        ([{"type": "perf", "name": "a", "props": {"value": 1e15}}] * 500, {}),
        ([{"type": "page", "name": "a", "eventId": str(n)} for n in range(1000)], {"sentAt": NOW - 10_000_000}),
        ([], {}),
    ],
    ids=["a user", "long words", "another app", "numbers", "ids", "nothing"],
)
def test_what_is_counted_is_what_is_stored_however_small_it_was_sent(budgets, events, envelope):
    """An envelope of eight kilobytes with a thousand events was a few hundred bytes of gzip and eight megabytes of spool."""
    batch, size = read(events, **envelope)
    before = budgets._keys.bucket("web", budgets._now()).left
    budgets.take(batch, size, sender())
    counted = before - budgets._keys.bucket("web", budgets._now()).left
    assert len(encode(batch.events)) <= counted <= 2.5 * len(encode(batch.events)) + size


def test_service_and_admin_are_held_by_their_app_alone(budgets):
    service = Identity(kind="user", user_id="relay", roles=("service",))
    for number in range(9):
        assert budgets.take(*of_bytes(5000, app=f"a{number}"), Sender("user:relay", service))[0].events
    budgets.take(*of_bytes(25_000, app="a0"), Sender("user:root", Identity(kind="user", user_id="root", roles=("admin",))))
    assert "The application a0" in refusal(budgets, of_bytes(1000, app="a0"), Sender("user:relay", service)).message


def test_a_user_is_named_as_one(clock, metrics):
    budgets = ByteRateLimits(ByteRates(1000, 1e9, 1e9, 10), metrics, clock)
    user = Sender("user:u1", Identity(kind="user", user_id="u1"))
    budgets.take(*of_bytes(10_000), user)
    assert refusal(budgets, of_bytes(10_000), user).message.startswith("This user may store 1000 bytes per second")


def test_what_was_refused_is_not_charged_and_what_was_not_stored_is_given_back(budgets):
    _, charges = budgets.take(*of_bytes(9000), sender())
    for _ in range(50):
        refusal(budgets, of_bytes(9000), sender())
    budgets.give_back(charges)
    assert budgets.take(*of_bytes(9000), sender())[0].events


def test_one_batch_larger_than_the_burst_is_taken_by_a_full_bucket_and_its_debt_is_waited_for(budgets):
    assert budgets.take(*of_bytes(25_000), sender())[0].events
    assert refusal(budgets, of_bytes(1000), sender()).retry_after_ms == 16_000


def test_every_refusal_is_counted_by_its_limit(budgets, metrics):
    budgets.take(*of_bytes(9000), sender())
    refusal(budgets, of_bytes(9000), sender())
    assert 'telemetry_limited_total{limit="address"} 1.0' in metrics.render().decode()


def test_the_parties_that_are_remembered_are_bounded_and_the_busy_ones_stay():
    budget = TokenBuckets(1000, 10, max_parties=3)
    budget.bucket("busy", 0.0).left -= 9000
    for number in range(100):
        budget.bucket(f"n{number}", 0.0)
        assert budget.bucket("busy", 0.0).left == 1000
    assert len(budget) == 3


def test_events_of_an_app_that_the_key_is_not_bound_to_are_rejected_by_themselves():
    bound = sender(identity=Identity(kind="write_key", write_key_name="web", apps=frozenset({"web", "shop"})))
    names = ["web", "blog", "shop", "Web"]
    batch = bound.admit(read([{"type": "page", "name": "a", "app": app} for app in names])[0])
    assert [event.app for event in batch.events] == ["web", "shop"]
    assert [(row["index"], row["code"]) for row in batch.rejected] == [(1, "forbidden"), (3, "forbidden")]
    assert "blog" in batch.rejected[0]["message"]
    unbound, _ = read([{"type": "page", "name": "a", "app": app} for app in names])
    assert sender().admit(unbound) is unbound


def test_rows_of_events_that_were_rejected_before_keep_their_index():
    bound = sender(identity=Identity(kind="write_key", write_key_name="web", apps=frozenset({"web"})))
    batch = bound.admit(read([{"type": "page"}, {"type": "page", "name": "a"}, {"type": "page", "name": "b", "app": "x"}])[0])
    assert isinstance(batch, Batch) and [(row["index"], row["code"]) for row in batch.rejected] == [(0, "bad_request"), (2, "forbidden")]


class OpenConfigs:
    event_filter = None


@pytest.fixture
def ingest(budgets, metrics):
    """Takes batches of at most two events."""
    sink, limits = MemorySink(), {"max_events": 2, "max_in_flight": 9, "configs": OpenConfigs(), "budgets": budgets}
    return Ingest(sink, lambda: NOW, metrics, note=lambda *_: None, **limits)


UNSTORED = {
    "no JSON": b'{"pad":"%b"',
    "too many events": b'{"app":"a","events":[0,0,0],"pad":"%b"}',
    "too many events, one of them damaged": b'{"app":"a","events":[NaN,0,0],"pad":"%b"}',
    "only bad events": b'{"app":"a","events":[0],"pad":"%b"}',
    "no events": b'{"app":"a","events":[],"pad":"%b"}',
}


@pytest.mark.parametrize("form", UNSTORED.values(), ids=UNSTORED)
def test_a_body_of_which_nothing_is_stored_is_charged_to_its_address_and_not_to_its_key(ingest, budgets, form):
    for _ in range(2):
        with suppress(ApiError):
            ingest.save(form % (b"x" * 9_000), sender=sender())
    with pytest.raises(ApiError) as refused:
        ingest.save(form % (b"x" * 9_000), sender=sender())
    assert refused.value.code == "rate_limited"
    assert budgets.take(*of_bytes(9000), sender("ip:192.0.2.2"))[0].events


def test_a_large_body_of_an_address_in_debt_is_refused_before_it_is_read(ingest, budgets):
    budgets.charge_unstored(20_000, sender())
    with pytest.raises(ApiError) as refused:
        ingest.save(b"no JSON" * 2_000, sender=sender())
    assert refused.value.code == "rate_limited"
