"""Tests of the C core. Run by `python -m pytest tests/core` from the root of the repository."""
