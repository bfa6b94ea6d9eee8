"""What zmalloc.pytest_plugin is made of: one concern a file."""
