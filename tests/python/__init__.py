"""Tests of the Python side: the extension, its figures, its limits and the command line."""
