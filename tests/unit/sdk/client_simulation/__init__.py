"""Both clients against a server and a network that have bad days, in virtual time, each world from a seed.

`run.js` runs the client for browsers in Node: time.js is its clock, server.js the server and the stock socket.io-client.
`world.py` runs the client for Python: virtual_time.py has its threads, server.py the server and python-socketio's client.
Both check the same promises at the end.
"""
