"""What an inbox makes of arrivals, without a bus or a database: doubles change nothing, gaps and other histories are seen."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from two_services import Due

from headwater.receiving import Inbox
from headwater.receiving.taking import Standpoint, Taking
from headwater.views.messages import Kept, Mark, Message, Progress

INBOX = Inbox("shop", "orders", (Due,), "nats/bus")
NOWHERE = Standpoint(None, None, 0, 0, 0)


def taking(at=NOWHERE, waiting=()):
    return Taking(INBOX, "mine", at, set(waiting))


def kept(sequence, position, *, after, log="theirs", epoch=1, type_="order.placed"):
    told = {
        "id": f"{position}", "source": "urn:headwater:theirs", "type": type_, "subject": f"order/{position % 3}",
        "time": "2026-01-01T00:00:00Z", "tenant": "main", "data": {"order": "1", "total": 1},
    }  # fmt: skip
    mark = Mark(log, epoch, 1, 1, position, "e")
    return Kept(sequence, Message("", mark, msgspec.json.encode(told), after))


def positions(found):
    return [one.message.mark.position for one, _ in found.due]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 5))
def test_whatever_comes_again_is_passed_by(again, size):
    """The stream, with any of its messages sent into it again anywhere after their first time."""
    told, order = [], []
    for number in range(10):
        told.append(number)
        told += [n for n in again if n <= number][: size - 1]
    stream = [kept(place, 10 * n + 10, after=10 * n) for place, n in enumerate(told, start=1)]
    at = NOWHERE
    for start in range(0, len(stream), size):
        some = taking(at)
        some.take(stream[start : start + size])
        assert some.change is None
        order += positions(some)
        at = some.at
    assert order == [10 * n + 10 for n in range(10)]
    assert (at.position, at.upto, at.sequence) == (100, 100, len(stream))


def test_what_stands_before_a_gap_is_taken():
    found = taking()
    found.take([kept(1, 10, after=0), kept(3, 30, after=20), kept(4, 40, after=30)])
    assert positions(found) == [10]
    assert found.at == Standpoint("theirs", 1, 10, 10, 1)
    assert "--after 20" in found.change.hint


def test_types_that_are_not_taken_leave_no_gap():
    found = taking()
    found.take(
        [kept(1, 10, after=0), kept(2, 20, after=10, type_="order.voided"), kept(3, 30, after=20)]
    )
    assert (positions(found), found.change) == ([10, 30], None)


def test_other_histories_are_seen():
    known = Standpoint("theirs", 2, 50, 50, 5)
    for one, why in (
        (kept(6, 60, after=50, epoch=3), "restored"),
        (kept(6, 60, after=50, log="others"), "now of the log"),
        (kept(6, 60, after=50, log="mine"), "one log"),
        (Progress("theirs", 3, 5, 70), "restored"),
    ):
        found = taking(known)
        found.take([one])
        assert why in str(found.change)
        assert found.at == known
    late = taking(known)
    late.take(
        [
            kept(6, 40, after=30, epoch=1),
            Progress("theirs", 1, 1, 90),
            kept(7, 60, after=50, epoch=2),
        ]
    )
    assert (late.change, positions(late), late.at.upto) == (None, [60], 60)


def test_progress_is_believed_once_all_before_it_is_taken():
    found = taking()
    found.take([kept(1, 10, after=0), Progress("theirs", 1, 2, 90)])
    assert found.at.upto == 10
    found.take([kept(2, 20, after=10)])
    assert (found.at.position, found.at.upto) == (20, 90)


def test_what_follows_a_refusal_on_its_stream_waits():
    found = taking()
    found.take([kept(n, n, after=n - 1) for n in range(1, 8)])  # the streams are those of n % 3
    found.refuse({1: "no"})
    assert positions(found) == [1, 3, 4, 6, 7]
    assert [(p.kept.message.mark.position, p.culprit) for p in found.parked] == [
        (2, True),
        (5, False),
    ]
    later = taking(found.at, found.waiting)
    later.take([kept(8, 8, after=7), kept(9, 9, after=8)])
    assert (positions(later), [p.culprit for p in later.parked]) == ([9], [False])
