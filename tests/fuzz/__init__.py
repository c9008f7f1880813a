"""Whatever comes from outside: no input may raise what nobody foresaw, or end another's session.

`python -m tests.fuzz --inputs 100000` does it by hand, with a progress bar; `test_fuzz.py` does a little of it each
time.
"""
