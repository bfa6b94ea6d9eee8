"""The version of the package; csrc/zmalloc.h has the same, and a test compares the two."""

__version__ = "0.1.0"
