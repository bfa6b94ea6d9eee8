"""In a worker of xdist: the thread that talks to the controller is not the test's."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
import zmalloc


def exempt_receiver(config: pytest.Config) -> None:
    """Messages that arrive while a test is near its limit are granted, and the error is left to the
    test.
    """
    for plugin in config.pluginmanager.get_plugins():
        handle = getattr(plugin, "handle_command", None)
        if type(plugin).__name__ == "WorkerInteractor" and handle is not None:
            _wrap(plugin, handle)


def _wrap(interactor: Any, handle: Any) -> None:
    exemptions: list[zmalloc.Exempt] = []
    tests_thread = threading.get_ident()  # which handles the commands that came before it was ready

    @functools.wraps(handle)
    def handle_command(*args: Any) -> Any:
        if not exemptions and threading.get_ident() != tests_thread:
            exemptions.append(zmalloc.exempt())
            exemptions[0].__enter__()
        return handle(*args)

    interactor.handle_command = handle_command
