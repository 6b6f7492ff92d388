"""The spool: events in the files of `app/storage/segments`, fsynced before anybody is answered.

It is the store where there is no MongoDB, and the next rung of the ladder where there is one. Anything may read it:

    DATA_DIR/spool/events-<started, ms>-<pid>-<random>.jsonl

`segment` knows events as lines, `index` remembers which file holds what. For moving them on, `reading` judges lines, and
`progress` remembers how far a file is done. `inspect` is for hands.
"""
