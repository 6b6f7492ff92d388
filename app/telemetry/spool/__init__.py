"""The spool: events as JSON lines in files of a few megabytes, one writer a file, fsynced before anybody is answered.

It is the store where there is no MongoDB, and the next rung of the ladder where there is one. Anything may read it:

    DATA_DIR/spool/events-<started, ms>-<pid>-<random>.jsonl

`segment` knows the files and their lines, `writer` makes lines durable, `index` remembers which file holds what. For moving
them on, `reading` judges lines, `rejected` keeps the ones that are no events, `progress` remembers how far a file is done.
A line that ends without a newline was cut off by a crash and was never answered as saved; readers pass over it.
"""
