"""CPython's own tests, Lib/test of an interpreter, stock and with zmalloc installed at its start.

    VENV/bin/python tests/python/cpython_tests --help

`places.py` makes the two environments, `inside.py` runs regrtest there and notes what each test
case does, `runner.py` runs a module both ways and compares, `known.py` has the differences that
there are reasons for.
"""
