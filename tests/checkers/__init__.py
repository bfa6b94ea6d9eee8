"""Programs of the make targets that are too long for make test: sanitizers, checkers, builds."""
