"""Measures live topics beside plain socket.io in Node: `make bench-realtime`, or `python -m bench.realtime --help`.

__main__     the command: starts the servers, runs the shapes, prints the tables
shapes       the table of what is measured
servers      Switchyard as deployed, and the Node servers in peers/
generator    compiles and drives the load generator in generator/, which is in C
results      medians and ratios as markdown
"""
