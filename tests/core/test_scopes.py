"""Scopes, guests, and requests that come again: step by step, as zaccount.h has them."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref

import pytest

from .core import UNLIMITED, Core, Scope


@pytest.fixture(params=["shared", "single", "child"])
def account(core: Core, request: pytest.FixtureRequest) -> Iterator[int]:
    """An account of each kind that has a way of its own through the reallocator."""
    parent = core.zaccount_new(b"parent", None) if request.param == "child" else None
    made: int = core.zaccount_new(b"capped", parent)
    if request.param == "single":
        core.zaccount_set_single(made)
    yield made
    core.zaccount_fail_after(made, -1, 0)
    core.zaccount_uncharge(made, core.zaccount_used(made))
    assert core.zaccount_free(made) == 0
    assert core.zaccount_free(parent) == 0


KIND = 5


def fill(core: Core, account: int, size: int) -> int:
    p: int = core.zaccount_alloc(account, None, KIND, size)
    assert p
    return p


# ---- requests that come again ------------------------------------------------------------------


def test_a_refused_request_that_comes_again_is_not_served_from_the_reserve(core: Core,
                                                                           account: int) -> None:
    core.zaccount_set_limit(account, 1000, 500)
    p = fill(core, account, 990)
    assert core.zaccount_alloc(account, None, KIND, 20) is None
    assert core.zaccount_alloc(account, None, KIND, 20) is None, "the same again: still too much"
    assert core.zaccount_used(account) == 990
    q = core.zaccount_alloc(account, None, KIND, 20)
    assert q, "now it is somebody who handles the error"
    assert core.figures(account).retries == 1
    core.zaccount_alloc(account, q, 20, 0)
    core.zaccount_alloc(account, p, 990, 0)


def test_what_fits_after_a_collection_closes_the_reserve_again(core: Core, account: int) -> None:
    core.zaccount_set_limit(account, 1000, 500)
    garbage, live = fill(core, account, 100), fill(core, account, 890)
    assert core.zaccount_alloc(account, None, KIND, 20) is None
    assert core.figures(account).reserve_open
    core.zaccount_alloc(account, garbage, 100, 0)
    p = core.zaccount_alloc(account, None, KIND, 20)
    assert p
    assert not core.figures(account).reserve_open, "nothing went wrong, so nothing needs it"
    assert core.zaccount_alloc(account, None, KIND, 91) is None
    core.zaccount_alloc(account, p, 20, 0)
    core.zaccount_alloc(account, live, 890, 0)


def test_another_request_after_a_refusal_may_use_the_reserve(core: Core, account: int) -> None:
    """A caller that does not collect, or cannot: Lua 5.1, LuaJIT, string buffers."""
    core.zaccount_set_limit(account, 1000, 500)
    p = fill(core, account, 990)
    assert core.zaccount_alloc(account, None, KIND, 20) is None
    q = core.zaccount_alloc(account, None, KIND, 30)
    assert q
    assert core.figures(account).retries == 0
    core.zaccount_alloc(account, q, 30, 0)
    core.zaccount_alloc(account, p, 990, 0)


def test_a_caller_that_tells_no_kinds_is_not_taken_to_collect(core: Core, account: int) -> None:
    """Lua 5.1 and LuaJIT: what comes next is the error's handler, though it asks for the same."""
    core.zaccount_set_limit(account, 1000, 500)
    p = core.zaccount_alloc(account, None, 0, 990)
    assert core.zaccount_alloc(account, None, 0, 20) is None
    q = core.zaccount_alloc(account, None, 0, 20)
    assert q
    assert core.figures(account).retries == 0
    core.zaccount_alloc(account, q, 20, 0)
    core.zaccount_alloc(account, p, 990, 0)


def test_a_request_of_the_same_size_for_something_else_is_another_one(core: Core,
                                                                     account: int) -> None:
    core.zaccount_set_limit(account, 1000, 500)
    p = fill(core, account, 990)
    assert core.zaccount_alloc(account, None, KIND, 20) is None
    q = core.zaccount_alloc(account, None, KIND + 1, 20)
    assert q
    core.zaccount_alloc(account, q, 20, 0)
    core.zaccount_alloc(account, p, 990, 0)


def test_a_resize_that_comes_again_is_known(core: Core, account: int) -> None:
    core.zaccount_set_limit(account, 1000, 500)
    p = fill(core, account, 990)
    assert core.zaccount_alloc(account, p, 990, 1010) is None
    assert core.zaccount_alloc(account, p, 990, 1010) is None
    assert core.figures(account).retries == 1
    p = core.zaccount_alloc(account, p, 990, 1010)
    assert p
    core.zaccount_alloc(account, p, 1010, 0)


def test_the_reserve_of_a_parent_serves_only_the_child_that_was_refused(core: Core) -> None:
    parent = core.zaccount_new(b"group", None)
    one, two = core.zaccount_new(b"one", parent), core.zaccount_new(b"two", parent)
    core.zaccount_set_limit(parent, 1000, 500)
    p, q = fill(core, one, 600), fill(core, two, 390)
    assert core.zaccount_alloc(one, None, 0, 20) is None
    assert core.zaccount_alloc(two, None, 0, 30) is None, "it has not been at its cap yet"
    r = core.zaccount_alloc(one, None, 0, 40)
    assert r
    assert core.zaccount_used(parent) == 1030
    assert core.figures(parent).limit_hit
    assert not core.figures(one).limit_hit
    for a, block, size in ((one, p, 600), (one, r, 40), (two, q, 390)):
        core.zaccount_alloc(a, block, size, 0)
    assert not core.figures(one).reserve_open
    for a in (one, two, parent):
        assert core.zaccount_free(a) == 0


def test_what_the_heap_refuses_is_given_back(core: Core, account: int) -> None:
    p = fill(core, account, 100)
    assert core.zaccount_alloc(account, p, 100, 1 << 60) is None
    assert core.zaccount_alloc(account, None, KIND, 1 << 60) is None
    figures = core.figures(account)
    assert (figures.used, figures.allocations, figures.frees) == (100, 1, 0)
    assert figures.peak == 100
    core.zaccount_alloc(account, p, 100, 0)
    assert core.figures(account).frees == 1


# ---- collections that bring too little ---------------------------------------------------------


def crawl(core: Core, account: int, times: int) -> list[bool]:
    """Fills the account, then lives at its brim: each request is refused and tried again after a
    collection that makes just room for it. True where the second try was granted."""
    room = 1000
    blocks = [fill(core, account, room) for _ in range(100)]
    core.zaccount_set_limit(account, core.zaccount_used(account), 0)
    granted = []
    for _ in range(times):
        assert core.zaccount_alloc(account, None, KIND, room) is None
        core.zaccount_alloc(account, blocks.pop(), room, 0)
        p = core.zaccount_alloc(account, None, KIND, room)
        granted.append(bool(p))
        if not p:  # the first try after an error: what was collected for it is still there
            p = fill(core, account, room)
        blocks.append(p)
    for p in blocks:
        core.zaccount_alloc(account, p, room, 0)
    return granted


def test_after_eight_collections_that_bring_too_little_the_next_request_is_refused(
        core: Core, account: int) -> None:
    assert crawl(core, account, 10) == [True] * 8 + [False] * 2
    figures = core.figures(account)
    assert (figures.retries, figures.overhead_refusals) == (10, 2)
    assert figures.limit_hit


def test_the_overhead_limit_can_be_set_and_switched_off(core: Core, account: int) -> None:
    core.zaccount_set_overhead(account, 5, 2)
    assert crawl(core, account, 4) == [True, True, False, False]
    core.zaccount_set_limit(account, UNLIMITED, 0)
    core.zaccount_set_overhead(account, 0, 2)
    assert crawl(core, account, 30) == [True] * 30


def test_one_collection_that_makes_room_forgives_those_before_it(core: Core, account: int) -> None:
    core.zaccount_set_overhead(account, 5, 2)
    assert crawl(core, account, 2) == [True, True]
    core.zaccount_set_limit(account, 10_000, 0)
    p = fill(core, account, 10_000)
    assert core.zaccount_alloc(account, None, KIND, 100) is None
    core.zaccount_alloc(account, p, 10_000, 0)
    p = fill(core, account, 100)
    core.zaccount_alloc(account, p, 100, 0)
    core.zaccount_set_limit(account, UNLIMITED, 0)
    assert crawl(core, account, 3) == [True, True, False]


# ---- scopes and guests -------------------------------------------------------------------------


def test_the_smallest_limit_is_in_force_and_the_smallest_hard_limit(core: Core,
                                                                    account: int) -> None:
    scope = Scope(limit=900, reserve=50)
    core.zaccount_set_limit(account, 1000, 10)
    core.zaccount_guest_limit(account, 800, 500)
    assert (core.figures(account).limit, core.figures(account).hard_limit) == (800, 1010)
    core.zaccount_enter(account, byref(scope))
    assert (core.figures(account).limit, core.figures(account).hard_limit) == (800, 950)
    core.zaccount_guest_limit(account, UNLIMITED, 0)
    assert (core.figures(account).limit, core.figures(account).hard_limit) == (900, 950)
    core.zaccount_leave(account, byref(scope))
    assert (core.figures(account).limit, core.figures(account).hard_limit) == (1000, 1010)


def test_a_guest_cannot_raise_what_the_owner_has_set(core: Core, account: int) -> None:
    core.zaccount_set_limit(account, 1000, 0)
    assert core.zaccount_guest_limit(account, 5000, 0) == 0, "legal, and without effect"
    assert core.figures(account).limit == 1000
    assert not core.zaccount_charge(account, 1001)


def test_under_the_guests_seal_the_owner_may_still_do_as_he_likes(core: Core,
                                                                  account: int) -> None:
    core.zaccount_guest_limit(account, 1000, 100)
    core.zaccount_guest_seal(account)
    for limit, reserve in ((1001, 0), (1000, 101), (900, 201), (UNLIMITED, 0)):
        assert core.zaccount_guest_limit(account, limit, reserve) == -1
        assert core.figures(account).limit == 1000
    assert core.zaccount_guest_limit(account, 900, 200) == 0
    assert core.zaccount_set_limit(account, 5000, 0) == 0
    assert core.figures(account).limit == 900
    assert core.figures(account).guest_sealed
    assert not core.figures(account).sealed


def test_each_peak_is_begun_anew_without_the_others(core: Core, account: int) -> None:
    def charge_and_back(n: int) -> None:
        assert core.zaccount_charge(account, n)
        core.zaccount_uncharge(account, n)

    outer, inner = Scope(limit=UNLIMITED), Scope(limit=UNLIMITED)
    charge_and_back(500)
    core.zaccount_enter(account, byref(outer))
    charge_and_back(100)
    core.zaccount_enter(account, byref(inner))
    charge_and_back(300)
    core.zaccount_guest_reset_peak(account)
    charge_and_back(50)
    core.zaccount_leave(account, byref(inner))
    charge_and_back(200)
    assert core.zaccount_scope_peak(account, byref(outer)) == 300
    core.zaccount_reset_peak(account)
    charge_and_back(10)
    core.zaccount_leave(account, byref(outer))
    assert (inner.peak, outer.peak) == (300, 300)
    assert core.zaccount_guest_peak(account) == 200
    assert core.zaccount_peak(account) == 10


def test_leaving_a_scope_in_another_order_leaves_the_others_in_force(core: Core,
                                                                     account: int) -> None:
    scopes = [Scope(limit=limit) for limit in (500, 300, 400)]
    for scope in scopes:
        core.zaccount_enter(account, byref(scope))
    for gone, limit in ((0, 300), (1, 400), (2, UNLIMITED)):
        core.zaccount_leave(account, byref(scopes[gone]))
        assert core.figures(account).limit == limit


def test_the_default_account_is_a_part_of_the_total(core: Core) -> None:
    total = core.zmalloc_total()
    p = core.zaccount_alloc(None, None, 4, 1000)
    assert core.zmalloc_total() == total + 1000
    assert core.zaccount_name(core.zaccount_default()) == b"Lua"
    assert core.zaccount_used(core.zaccount_default()) == 1000
    core.zaccount_alloc(None, p, 1000, 0)
    assert core.zaccount_free(core.zaccount_default()) == -1, "it is never freed"
