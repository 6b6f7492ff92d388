"""The measurements of docs/benchmarks.md, runnable by anyone: `make bench-ingest`.

    ingest         the command: which workloads, how long, and the tables at the end
    workloads      what is sent
    contestants    who is measured: Switchyard with everything on, and its peers (peers/, in Node)
    load           sends it, closed loop or at a given rate
    cpu            what a server and its processes consumed, and on which core
    figures        medians, ratios, percentiles
    report         the tables
    ingest_memory  another command: a worker's memory over half a million events
    realtime_flood one more: what a client that floods costs the others

They use the tests' servers (tests/servers) for MongoDB, Node and Switchyard.
"""
