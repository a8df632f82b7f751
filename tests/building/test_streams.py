"""Workers that answer one item with many outcomes."""

import pytest
import streaming_worker

from tfavmae.building.worker_pool import WorkerPool


def read(items, num_workers=2):
    """Outcomes by item: a number, the reason of a failure, `None` for the end."""
    found = {number: [] for number in range(len(items))}
    with WorkerPool(num_workers) as pool:
        asked = [(number, *item) for number, item in enumerate(items)]
        for number, one in pool.streams("streaming_worker:numbers", asked, int):
            said = one and (one.value if one.reason is None else one.reason)
            found[number].append(said)
    return found


@pytest.mark.parametrize("num_workers", [1, 3])
def test_each_item_has_its_outcomes_in_their_order(num_workers):
    items = [(("plain", count, ""), count) for count in (3, 0, 40, 1, 7)]
    found = read(items, num_workers)
    assert found == {n: [*range(c), None] for n, (_, c) in enumerate(items)}


def test_workers_do_not_wait_for_the_first_item(tmp_path):
    """Each of two goes on only when the other one is far beyond what is held ready."""
    count = 2 * streaming_worker.MEETING
    found = read([(("meets", count, str(tmp_path)), count)] * 2)
    assert found == {n: [*range(count), None] for n in range(2)}


def test_a_failure_is_one_outcome_or_the_last():
    items = [(("fails once", 3, ""), 3), (("fails", 3, ""), 3), (("plain", 2, ""), 2)]
    assert read(items) == {
        0: [0, "ValueError: the second of them", 2, None],
        1: [0, "ValueError: all that would follow", None],
        2: [0, 1, None],
    }


def test_a_worker_that_says_too_much_is_cut_off():
    items = [(("plain", 10**9, ""), 3), (("plain", 2, ""), 2)]
    assert read(items) == {0: [0, 1, 2, None], 1: [0, 1, None]}


def test_a_function_that_is_not_there_is_an_error():
    with WorkerPool(1) as pool, pytest.raises(RuntimeError, match="no_such"):
        list(pool.streams("streaming_worker:no_such", [(0, "", 1)]))
