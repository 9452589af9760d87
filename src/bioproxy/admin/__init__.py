"""The admin port: health, metrics, status, recent requests, events, and the two commands warm and reload.

`guard.py` says who may ask, `stream.py` is the event stream, `admin.py` the routes. Nothing here keeps state of its
own: answers are what others' `statistics()` say, and commands are asked of the app through a protocol.
"""
