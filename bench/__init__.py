"""The measurements of docs/benchmarks.md. Each command is a module: `python -m bench.ingest --help`.

Commands:

    ingest          CPU and throughput of telemetry, beside the same API in Node (`make bench-ingest`)
    ingest_memory   memory of a worker over half a million events
    realtime        CPU, latency and memory of live topics, beside socket.io in Node (`make bench-realtime`)
    realtime_flood  what a flooding publisher costs another client
    hostile         what the attacks of attacks.py cost an ordinary client

Their parts:

    workloads       the requests that are sent
    contestants     the measured servers: Switchyard as deployed, and its peers (peers/, in Node)
    pinned          a server on a core of its own
    load            sends the requests, closed loop or at a given rate
    rounds          alternates between the servers
    cpu             CPU time of a server with its processes, and cores
    figures         medians, ratios, percentiles
    report          the tables

MongoDB, Node and Switchyard are started by tests/servers.
"""
