"""`flask telemetry import`: brings files of events into MongoDB, offline.

`source` opens a file, a pipe or standard input and cuts it into pieces; `line_reader` recognizes the events in a piece; `importer`
stores them and keeps its progress, so that an interrupted import continues where it stopped.
"""
