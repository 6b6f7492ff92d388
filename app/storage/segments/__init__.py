"""Lines made durable in files of a few megabytes, one writer a file: what telemetry and the delivery log of realtime have in common.

    FOLDER/<kind>-<started, ms>-<pid>-<random>.jsonl

`segment` knows the files, their locks and their lines, `writer` makes lines durable, `rejected` keeps those that cannot be read.
A line that ends without a newline was cut off by a crash and was never confirmed to a caller; readers skip it.
"""
