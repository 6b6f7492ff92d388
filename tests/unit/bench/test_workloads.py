"""What the measurements send is what Switchyard takes, as it is meant."""

import gzip
import json

import pytest

from app.clock import system_clock
from app.telemetry.fast_batch import read_batch_bytes
from bench.workloads import Workload


def body_of(request):
    return request.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("workload", [Workload(1), Workload(50), Workload(1000)])
def test_every_event_is_good_and_has_an_identity_of_its_own(workload):
    requests = workload.requests()
    batches = [read_batch_bytes(body_of(requests.make()), system_clock(), 1000) for _ in range(2)]
    assert [len(batch.rejected) for batch in batches] == [0, 0]
    assert len({event.id for batch in batches for event in batch.events}) == 2 * workload.events


def test_fifty_events_are_about_eight_kilobytes():
    assert 7_500 < len(body_of(Workload(50).requests().make())) < 8_500


def test_a_bad_event_is_the_only_one_that_is_rejected():
    batch = read_batch_bytes(body_of(Workload(50, bad=1).requests().make()), system_clock(), 1000)
    assert (len(batch.events), [rejected["index"] for rejected in batch.rejected]) == (49, [25])


def test_a_gzip_body_is_announced_and_holds_the_batch():
    request = Workload(50, gzip=True).requests().make()
    assert b"Content-Encoding: gzip\r\n" in request
    assert len(json.loads(gzip.decompress(body_of(request)))["events"]) == 50


def test_a_request_says_how_long_its_body_is():
    head, _, body = Workload(50).requests().make().partition(b"\r\n\r\n")
    assert head.endswith(b"Content-Length: %d" % len(body))
