"""Measures beside peers: `python -m bench`, or `make bench`. Each module prints one table; results.md keeps them."""
