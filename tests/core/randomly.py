"""How much the random tests do: ZMALLOC_TEST_EXAMPLES=2000 looks harder, in all of them."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("ZMALLOC_TEST_EXAMPLES", "60"))


def randomly(share: float = 1.0, steps: int = 50) -> settings:
    """Settings for a test: its share of EXAMPLES. A failure prints how to have it again."""
    return settings(
        max_examples=max(1, int(EXAMPLES * share)),
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture,
                               HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
