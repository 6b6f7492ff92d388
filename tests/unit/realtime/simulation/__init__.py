"""A world in one thread: a hub with its log, clients, and a network between them that loses, delays, doubles and stalls.

The server is stopped, killed and crashes with its machine, its clock is set, its archive comes and goes; what of it outlives
which end is in `Disk`. Everything random comes from one seed, and time is a number, so that a run can be repeated
exactly. The wire checks what the hub sends while it sends it; `World.finish` heals the network, checks what every client has
at the end, and that nothing is left when all have gone.
"""
