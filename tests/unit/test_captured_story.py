"""The judge of captured tables finds what could not have happened."""

import pytest

from simulation.captured import Change, replay


def told(version, verb, metadata=None, **data):
    return Change("main", "goods/1", version, verb, data, metadata or {})


INSERTED = told(1, "inserted", id=1, price="1")


def test_a_true_story_ends_with_the_row_as_it_is():
    rows, problems = replay([
        INSERTED,
        told(2, "updated", id=1, price="2", before={"price": "1"}),
        told(3, "updated", id=1, price="2", more="x", before={"more": None}),
        told(4, "deleted", id=1, price="2", more="x"),
        told(5, "inserted", id=1, price="3", more=None),
    ])  # fmt: skip
    assert problems == []
    assert rows == {("main", "goods/1"): {"id": 1, "price": "3", "more": None}}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (told(3, "updated", id=1, price="2", before={"price": "1"}), "is not dense"),
        (told(2, "inserted", id=1, price="1"), "was or was not there"),
        (told(2, "updated", id=1, price="2", before={"price": "9"}), "changed something else"),
        (told(2, "updated", id=1, price="1", before={"price": "1"}), "changed something else"),
        (told(2, "updated", id=1, price="1", before={}), "changed something else"),
        (told(2, "deleted", id=1, price="9"), "was another row"),
    ],
)
def test_what_could_not_have_happened_is_found(change, what):
    _, problems = replay([INSERTED, change])
    assert [problem.partition(": ")[2] for problem in problems] == [what]


def test_what_was_never_there_cannot_be_deleted():
    assert replay([told(1, "deleted", id=1)])[1]
