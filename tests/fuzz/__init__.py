"""Streams of bytes against models: libFuzzer by make fuzz, a driver of our own in make test."""
