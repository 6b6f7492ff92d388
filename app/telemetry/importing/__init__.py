"""`flask telemetry import`: brings files of events into MongoDB, offline.

`source` opens a file, a pipe or standard input and cuts it into pieces; `line_reader` recognizes the events in a piece; `importer` groups
them in chunks, several of which are under way at once; `destination` stores or compares a chunk; `checkpoints` keeps the progress, so that
an interrupted import continues where it stopped.
"""
