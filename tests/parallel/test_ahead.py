"""Work ahead of its use keeps order, bounds, and errors in their place."""

from __future__ import annotations

import threading

import pytest

from s5mars.parallel.ahead import ahead


def test_results_come_in_order() -> None:
    assert list(ahead(lambda x: x * x, range(20), workers=3)) == [x * x for x in range(20)]
    assert list(ahead(str, [], workers=2)) == []


def test_work_starts_before_it_is_asked_for_but_not_more_than_asked() -> None:
    started: list[int] = []
    second = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item == 1:
            second.set()
        return item

    results = ahead(work, range(100), workers=2)
    assert next(results) == 0
    assert second.wait(5)
    results.close()
    assert max(started) <= 3


def test_an_error_is_raised_where_its_result_would_have_been() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("item 2")
        return item

    results = ahead(work, range(5), workers=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)


def test_an_item_that_must_be_alone_is_worked_on_when_nothing_else_waits() -> None:
    begun: list[int] = []
    taken: list[int] = []
    alone_with: list[tuple[int, int]] = []

    def work(item: int) -> int:
        begun.append(item)
        if item >= 100:
            alone_with.append((item, len(begun) - 1 - len(taken)))
        return item

    items = [1, 2, 3, 100, 101, 4, 5, 102]
    for result in ahead(work, items, workers=2, alone=lambda item: item >= 100):
        if result >= 100:
            assert begun[-1] == result  # nothing was begun after it
        taken.append(result)
    assert taken == items
    assert alone_with == [(100, 0), (101, 0), (102, 0)]
