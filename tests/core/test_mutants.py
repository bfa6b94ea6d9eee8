"""What `make mutants` changes is there, once: so that no mutant is silently none."""

from __future__ import annotations

import pytest
from checkers import mutants


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.what)
def test_each_mutant_changes_one_place(mutant: mutants.Mutant) -> None:
    assert mutants.is_there_once(mutant)
    assert mutant.old != mutant.new
    for test in mutant.tests:
        assert (mutants.toolchain.ROOT / test).exists()
