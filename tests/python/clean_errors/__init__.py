"""The acceptance harness of clean memory errors: programs that hit a cap, each in its own process.

    VENV/bin/python tests/python/clean_errors --help

`loads/` are the programs, `child.py` runs one of them under one cap, `judge.py` says whether that
was clean, `runner.py` does it many times. `matrix.py` and `checks.py` judge what no load can.
"""
