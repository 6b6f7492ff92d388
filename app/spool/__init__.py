"""Lines made durable in files of a few megabytes, one writer a file: what telemetry and the delivery log of realtime have in common.

    FOLDER/<kind>-<started, ms>-<pid>-<random>.jsonl

`segment` knows the files, their locks and their lines, `writer` makes lines durable, `rejected` keeps the ones that nobody can
read, `duty` lets one process do the work of all. A line that ends without a newline was cut off by a crash and was never
confirmed to anybody; readers pass over it.
"""
