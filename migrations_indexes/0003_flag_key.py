"""A flag's key is its name in code: there can be only one of each."""

from app.indexes import drop_index

COLLECTION = "flags"
NAME = "key_unique"


def up(db, settings):
    db[COLLECTION].create_index("key", name=NAME, unique=True)


def down(db):
    drop_index(db[COLLECTION], NAME)
