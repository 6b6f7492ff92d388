"""A flag's key is its name in code: there can be only one of each."""

COLLECTION = "flags"
NAME = "key_unique"


def up(db, settings):
    db[COLLECTION].create_index("key", name=NAME, unique=True)


def down(db):
    if NAME in db[COLLECTION].index_information():
        db[COLLECTION].drop_index(NAME)
