"""Real servers for the tests: found on the machine or made, each with a folder and a port of its own, gone afterwards.

An adapter proved against a fake is proved against our own idea of the server. So Redis, MongoDB, a browser, Node's
client and a bad network are real here; `conftest.py` offers each as a fixture and `real.py` says what happens on a
machine that cannot have one.
"""
