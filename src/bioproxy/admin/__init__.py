"""The admin port: health, metrics, status, recent requests, events, and the two commands warm and reload.

`routes.py` says what a route is, on either port; `admin.py` has those that only the admin port has, behind `guard.py`;
`management.py` those that show and manage models, on both ports. What is shown is what the parts' `statistics()` say.
"""
