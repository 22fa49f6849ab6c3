"""The life-cycle of a machine, as a pure function of what is declared and what is observed.

Read `table.py` first: every transition is a row there, and nothing routes around it. `guards.py` says when a row
applies, `steps.py` what it does, `operations.py` how an attempt begins, fails and ends, `decide.py` puts them
together. Nothing here waits, reads a clock or talks to anything: the world is an argument (`world.py`).
"""
