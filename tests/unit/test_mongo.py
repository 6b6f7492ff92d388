"""The connection string: understood or refused with a sentence, and never shown with its password."""

import pytest

from app import mongo
from app.settings import SettingsError


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
     "mongodb://u:hunter2@h:99999/", "mongodb://u:hunter2@h/a b", "mongodb://u:hunter2@h/?noSuchOption=1"],
)  # fmt: skip
def test_a_uri_that_cannot_be_read_is_one_sentence_without_the_password(uri):
    with pytest.raises(SettingsError) as refused:
        mongo.connect(uri, 100)
    sentence = str(refused.value)
    assert sentence.startswith("switchyard: MONGO_URI is wrong: ") and "\n" not in sentence
    assert "hunter2" not in sentence and "er2" not in sentence


def test_a_target_has_no_login():
    assert mongo.target("mongodb://user:p%40ss@a:1,b:2/shop?x=y") == "a:1,b:2/shop"
