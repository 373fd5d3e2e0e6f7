"""Who is next, and who rests until when."""

from control.scheduler.queue import RETRY_AFTER_S, Queue


def keys(queue: Queue, now: float) -> list[str]:
    found = []
    while (entry := queue.pop(now)) is not None:
        found.append(entry.key)
    return found


def test_priority_then_age() -> None:
    queue = Queue()
    queue.add("old", 0, 1.0)
    queue.add("new", 0, 2.0)
    queue.add("important", 10, 3.0)
    assert keys(queue, 4.0) == ["important", "old", "new"]


def test_refused_pod_rests_until_a_change_that_could_help_and_its_back_off() -> None:
    queue = Queue()
    queue.add("p", 0, 0.0)
    assert keys(queue, 0.0) == ["p"]
    queue.rest("p", {"fit"}, 0.0)
    assert keys(queue, 100.0) == []
    queue.wake(["taints"], 100.0)
    assert keys(queue, 100.0) == []
    queue.wake(["fit"], 100.0)
    assert keys(queue, 100.0) == ["p"]


def test_back_off_doubles_to_ten_seconds() -> None:
    queue, now, waits = Queue(), 0.0, []
    queue.add("p", 0, now)
    for _ in range(6):
        assert keys(queue, now) == ["p"]
        queue.rest("p", {"fit"}, now)
        queue.wake(["fit"], now)
        due = queue.next_at()
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_change_during_the_try_is_not_lost() -> None:
    queue = Queue()
    queue.add("p", 0, 0.0)
    queue.pop(0.0)
    queue.wake(["fit"], 0.5)
    queue.rest("p", {"fit"}, 1.0)
    assert queue.next_at() == 2.0
    assert keys(queue, 2.0) == ["p"]


def test_every_pod_is_tried_again_some_day() -> None:
    queue = Queue()
    queue.add("p", 0, 0.0)
    queue.pop(0.0)
    queue.rest("p", {"fit"}, 0.0)
    assert keys(queue, RETRY_AFTER_S) == ["p"]


def test_changed_pod_is_tried_at_once_and_removed_pod_never() -> None:
    queue = Queue()
    for key in ("changed", "gone"):
        queue.add(key, 0, 0.0)
    keys(queue, 0.0)
    for key in ("changed", "gone"):
        queue.rest(key, {"fit"}, 0.0)
    queue.add("changed", 0, 0.1)
    queue.remove("gone")
    assert keys(queue, 1000.0) == ["changed"]
    assert len(queue) == 1
