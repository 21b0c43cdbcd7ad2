"""Given, when, then, as users write it."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis.strategies import sampled_from

from headwater import App, Command, Document, Event, Fact, Rejection, over
from headwater.testing.deciding import given
from headwater.testing.stories import Story, stories


class Lent(Event, type="book.lent", stream="book/{book}", keys=("reader:{reader}",)):
    book: str
    reader: str


class Returned(Event, type="book.returned", stream="book/{book}", keys=("reader:{reader}",)):
    book: str
    reader: str


class Book(Document):
    lent_to: str | None = None


class Reader(Document):
    books: int = 0


class Lend(Command, stream="book/{book}"):
    book: str
    reader: str


class Out(Rejection, frozen=True):
    """The book is out."""


class TooMany(Rejection, frozen=True):
    """The reader has two books."""


app = App("library", events=[Lent, Returned], tenant="main")


@app.fold(key="book")
def books(state: Book, event: Lent | Returned) -> Book | None:
    return state.but(lent_to=event.reader if isinstance(event, Lent) else None)


@app.fold(key="reader")
def readers(state: Reader, event: Lent | Returned) -> Reader | None:
    return state.but(books=state.books + (1 if isinstance(event, Lent) else -1))


@app.command(books, over(readers, key="reader:{reader}"))
def lend(book: Book | None, reader: Reader, command: Lend) -> list[Lent] | Out | TooMany | None:
    if book is not None and book.lent_to == command.reader:
        return None
    if book is not None and book.lent_to:
        return Out()
    return TooMany() if reader.books >= 2 else [Lent(command.book, command.reader)]


def test_each_source_sees_its_own_events():
    case = given(app, Lent("b1", "ada"), Lent("b2", "bob"))
    case.when(Lend("b3", "ada")).then(Lent("b3", "ada"))
    case.when(Lend("b1", "bob")).then(Out())
    case.when(Lend("b1", "ada")).then()
    given(app, Lent("b1", "ada"), Lent("b2", "ada")).when(Lend("b3", "ada")).then(TooMany())
    given(app, Lent("b1", "ada"), Returned("b1", "ada")).when(Lend("b1", "bob")).then(
        Lent("b1", "bob")
    )


def test_keys_of_a_fact_stand_in_place_of_its_class():
    facts = [Fact(event=Lent(f"b{n}", "ada"), keys=["reader:bob"]) for n in range(2)]
    given(app, *facts).when(Lend("b3", "bob")).then(TooMany())
    given(app, *facts).when(Lend("b3", "ada")).then(Lent("b3", "ada"))


def test_a_failure_says_what_was_given_expected_and_decided():
    with pytest.raises(AssertionError) as failed:
        given(app, Lent("b1", "ada")).when(Lend("b1", "bob")).then(Lent("b1", "bob"))
    assert str(failed.value).splitlines() == [
        "lend decided otherwise.",
        "given",
        "    Lent(book='b1', reader='ada')",
        "when",
        "    Lend(book='b1', reader='bob')",
        "then expected",
        "    Lent(book='b1', reader='bob')",
        "but was",
        "    Out()",
    ]


BOOKS, READERS = ["b1", "b2", "b3"], ["ada", "bob"]
told = stories(app, Lend, book=sampled_from(BOOKS), reader=sampled_from(READERS))


@for_all(told)
@settings(max_examples=50, deadline=None)
def test_in_no_story_has_a_reader_three_books(story):
    assert all((story.state(readers, reader) or Reader()).books <= 2 for reader in READERS)


def test_a_story_that_breaks_a_rule_is_found_and_told():
    @for_all(told)
    @settings(max_examples=200, deadline=None, database=None)
    def broken(story):
        assert (story.state(readers, "ada") or Reader()).books < 2

    with pytest.raises(AssertionError) as failed:
        broken()
    assert "Lend(book='b1', reader='ada') -> (Lent(book='b1', reader='ada'),)" in "\n".join(
        failed.value.__notes__
    )


def test_a_story_is_told_one_command_at_a_time():
    story = Story(app)
    assert story.do(Lend("b1", "ada")) == (Lent("b1", "ada"),)
    assert story.do(Lend("b1", "bob")) == Out()
    assert story.state(books, "b1") == Book("ada")
    assert story.state(books, "b2") is None
