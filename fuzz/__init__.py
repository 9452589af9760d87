"""Bytes that nobody meant: what reads bytes from outside, fed with a small corpus and its mutations.

`make fuzz` runs each target for a while, `make fuzz ARGS="--rounds 1000000 ports"` one for a million inputs. An input
is made from a seed and a number, so each run can be had again. What is found lies in `build/fuzz`, and becomes a test.
"""
