"""If-Match and If-None-Match, as clients write them."""

import pytest
from marshmallow import ValidationError

from app.http.etags import IfMatchSchema
from tests.apps import bearer, make_app


@pytest.mark.parametrize(
    ("header", "expected"), [('"a"', {"a"}), ('"a", "b"', {"a", "b"}), ('W/"a" ,"b"', {"a", "b"}), ('""', {""}), ("*", None)]
)
def test_if_match_is_a_list_of_tags_or_a_star(header, expected):
    assert IfMatchSchema().load({"If-Match": header})["if_match"] == expected


@pytest.mark.parametrize("header", ["", "a", '"a', 'a"', '"a" "b"', '"a",', ',"a"', "*,*", 'w/"a"', "W/*", '"a\n"'])
def test_any_other_if_match_is_refused(header):
    with pytest.raises(ValidationError):
        IfMatchSchema().load({"If-Match": header})


# What a proxy makes of a tag on its way out, and gives back to us.

BY_PROXIES = ['"%s"', 'W/"%s"', '"%s-gzip"', '"%s;gzip"', 'W/"%s-gzip"', '"%s-br"', '"%s--gzip"', '"%s-gzip-gzip"', '"%s-zstd"',
              '"x", "%s-gzip"']  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    client = make_app(tmp_path_factory.mktemp("app"), rate_limit_http="10000/second").test_client()
    client.post("/api/flags", json={"key": "f", "enabled": True, "rules": {}}, headers=ADMIN)
    return client


ADMIN = bearer("a", "admin")
READABLE = ["/api/flags/f", "/api/flags", "/api/telemetry/config", "/api/telemetry/config/web"]


@pytest.mark.parametrize("written", BY_PROXIES)
@pytest.mark.parametrize("path", READABLE)
def test_a_tag_is_known_again_after_a_proxy_has_written_into_it(client, path, written):
    etag = client.get(path, headers=ADMIN).headers["ETag"].strip('"')
    assert client.get(path, headers={**ADMIN, "If-None-Match": written % etag}).status_code == 304


@pytest.mark.parametrize("written", BY_PROXIES)
def test_a_change_goes_through_with_such_a_tag(client, written):
    etag = client.get("/api/flags/f", headers=ADMIN).headers["ETag"].strip('"')
    changed = client.patch("/api/flags/f", json={"enabled": True}, headers={**ADMIN, "If-Match": written % etag})
    assert changed.status_code == 200
    config = client.get("/api/telemetry/config/web", headers=ADMIN).headers["ETag"].strip('"')
    put = client.put("/api/telemetry/config/web", json={"maxBatch": 7}, headers={**ADMIN, "If-Match": written % config})
    assert put.status_code == 200


@pytest.mark.parametrize("written", ['"%s-other"', '"-gzip"', '"x%s-gzip"', '"%sgzip"'])
def test_another_tag_stays_another_tag(client, written):
    etag = client.get("/api/flags/f", headers=ADMIN).headers["ETag"].strip('"')
    other = written.replace("%s", etag)
    assert client.get("/api/flags/f", headers={**ADMIN, "If-None-Match": other}).status_code == 200
    assert client.patch("/api/flags/f", json={"enabled": True}, headers={**ADMIN, "If-Match": other}).status_code == 412
