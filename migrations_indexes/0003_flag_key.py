"""The key of a flag is unique."""

from app.storage.migrations import drop_index, make_index

COLLECTION = "flags"
NAME = "key_unique"


def up(db, settings):
    make_index(db[COLLECTION], "key", NAME, unique=True)


def down(db):
    drop_index(db[COLLECTION], NAME)
