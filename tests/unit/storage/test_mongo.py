"""The connection string: understood or refused with a sentence, and never shown with its password."""

import threading
import time

import dns.resolver
import pytest
from pymongo.errors import ServerSelectionTimeoutError

from app.settings import SettingsError
from app.storage import mongo


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("mongodb://h", "switchyard"),
        ("mongodb://h/", "switchyard"),
        ("mongodb://h/shop", "shop"),
        ("mongodb://user:p%40ss%2Fword@a,b:27018/shop?replicaSet=rs&authSource=admin", "shop"),
    ],
)
def test_the_database_is_the_one_of_the_uri_else_ours(uri, name):
    assert mongo.connect(uri, 100).name == name


@pytest.mark.parametrize(
    "uri",
    ["mongodb://user:hunter2/x@h/db", "mongodb://user:x/hunter2@h/db", "mongodb://user:hunt@er2@h/", "mongodb://u:hunter2%zz@h/",
     "mongodb://u:hunter2@h:99999/", "mongodb://u:hunter2@h/a b", "mongodb://u:hunter2@h/?noSuchOption=1",
     "mongodb://u:hunter2@h/?tls=true&tlsCAFile=/no/such.pem", "mongodb://u:hunter2@h/?tlsCertificateKeyFile=/etc/hostname",
     "mongodb+srv://u:hunt@er2@h.example.test/", "mongodb+srv://u:hunter2@h.example.test:27017/", "mongodb+srv://u:hunter2@10.0.0.1/",
     "mongodb+srv://u:hunter2@a.example.test,b.example.test/", "mongodb+srv://u:hunter2@h.example.test/?noSuchOption=1"],
)  # fmt: skip
def test_a_uri_that_cannot_be_read_is_one_sentence_without_the_password(uri):
    with pytest.raises(SettingsError) as refused:
        mongo.connect(uri, 100)
    sentence = str(refused.value)
    assert sentence.startswith("switchyard: MONGO_URI is wrong: ") and "\n" not in sentence
    assert "hunter2" not in sentence and "er2" not in sentence


def test_a_target_has_no_login():
    assert mongo.target("mongodb://user:p%40ss@a:1,b:2/shop?x=y") == "a:1,b:2/shop"


def test_the_name_of_an_srv_address_is_not_asked_for_at_the_start(monkeypatch):
    monkeypatch.setattr(dns.resolver, "resolve", pytest.fail)
    assert mongo.connect("mongodb+srv://user:p%40ss@h.example.test/shop", 100).name == "shop"


def test_callers_that_wait_for_dns_together_share_one_answer(monkeypatch):
    asked = []

    def resolve(*_, **__):
        asked.append(1)
        time.sleep(0.2)
        raise dns.resolver.LifetimeTimeout(timeout=0.2, errors=[])

    monkeypatch.setattr(dns.resolver, "resolve", resolve)
    database = mongo.connect("mongodb+srv://h.example.test/shop", 100)

    def ask():
        with pytest.raises(ServerSelectionTimeoutError, match="cannot be resolved"):
            mongo.check(database)

    callers = [threading.Thread(target=ask) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(asked) == 1
    ask()
    assert len(asked) == 2, "DNS is asked again by the next caller"
