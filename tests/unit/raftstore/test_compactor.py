"""When history is forgotten, and who is wrong about the data."""

from raftstore.compactor import ByRevision, Periodic
from raftstore.corruption import Report, suspects


def test_periodic_keeps_what_is_younger_than_the_retention() -> None:
    policy = Periodic(100.0)
    done = {at: revision for at in range(0, 500, 10) if (revision := policy.due(float(at), at + 1))}
    assert done
    for at, revision in done.items():
        assert revision - 1 <= at - 100
        assert revision - 1 >= at - 120
    assert all(later - earlier >= 95 for earlier, later in zip(done, list(done)[1:], strict=False))


def test_periodic_says_nothing_when_nothing_was_written() -> None:
    policy = Periodic(100.0)
    done = [policy.due(float(at), 7) for at in range(0, 1000, 10)]
    assert [revision for revision in done if revision] == [7]


def test_by_revision_keeps_so_many() -> None:
    policy = ByRevision(100)
    assert [policy.due(0.0, revision) for revision in (50, 101, 102, 300, 300)] == [0, 0, 2, 200, 0]


def test_the_minority_is_suspect() -> None:
    def report(member: int, hash: int, revision: int = 9) -> Report:
        return Report(member, revision, 5, hash)

    assert suspects([report(1, 7), report(2, 7), report(3, 8)]) == {3}
    assert suspects([report(1, 7), report(2, 8)]) == {1, 2}
    assert suspects([report(1, 7), report(2, 8, revision=8)]) == set()
    assert suspects([report(1, 7), report(2, 7)]) == set()
    assert suspects([]) == set()
