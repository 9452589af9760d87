"""The composition root in pieces: `station.py` is what goes with one engine, `single.py` one engine, `fleet.py` many.

`app.py` chooses by the configuration and adds what there is once: ports, metrics, the admin's routes, the bus. Nothing
in here decides anything about requests; it builds parts and tells them of each other.
"""
