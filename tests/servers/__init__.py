"""Real servers for the tests: Redis, MongoDB, a browser, Node, a DNS server, a small disk and a bad network.

A test against a fake proves only that the code agrees with the fake. `tests/conftest.py` offers each server as a fixture, with
its own folder and port, and removes it after the test. `real.py` decides what happens on a machine that lacks one.
"""
