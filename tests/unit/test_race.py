"""The pure parts of `make race`: medians, which cases come first, the table, names that there are not."""

import pytest

from race.__main__ import parsed
from race.contestants import CONTESTANTS, DISCIPLINES
from race.environments import CannotRun, prepare
from race.results import Case, Measure, ordered, table, unknown

RATE = Measure("rate", "jobs", "jobs/s")
WAIT = Measure("wait", "wait", "ms", lower_is_better=True)
TITLES = {"headwater": "Headwater", "raw": "raw Postgres", "fast": "Fast", "slow": "Slow"}


def case(measure: Measure = RATE, **rounds: list[float]) -> Case:
    return Case("queues", measure, rounds)


def test_a_case_is_judged_by_medians_of_its_rounds():
    found = case(headwater=[1.0, 90.0, 3.0], fast=[4.0, 2.0])

    assert found.medians == {"headwater": 3.0, "fast": 3.0}
    assert found.ratio == 1.0


def test_the_raw_limit_is_no_peer():
    found = case(headwater=[10.0], raw=[1000.0], slow=[5.0])

    assert found.best_peer == "slow"
    assert found.ratio == 2.0


def test_where_lower_is_better_the_lowest_is_best_and_the_ratio_is_turned():
    found = case(WAIT, headwater=[4.0], fast=[2.0], slow=[8.0])

    assert found.best_peer == "fast"
    assert found.ratio == 0.5


def test_without_a_peer_or_without_us_nothing_is_compared():
    assert case(headwater=[1.0], raw=[2.0]).ratio is None
    assert case(fast=[1.0], headwater=[]).ratio is None


def test_cases_that_a_peer_wins_come_first_and_those_without_a_peer_last():
    won = case(headwater=[3.0], fast=[1.0])
    alone = case(headwater=[3.0])
    lost = case(WAIT, headwater=[3.0], fast=[1.0])
    narrowly = case(headwater=[9.0], fast=[10.0])

    assert ordered([won, alone, narrowly, lost]) == [lost, narrowly, won, alone]


def test_the_table_names_who_is_ahead_and_keeps_every_contestant():
    rows = table(
        [case(headwater=[2000.0], fast=[1000.0], raw=[9000.0]), case(WAIT, headwater=[30.0], fast=[20.0], slow=[1234.0])],
        TITLES,
    ).splitlines()  # fmt: skip

    assert (
        rows[2]
        == "| queues: wait | 30.0 ms | Fast 20.0 ms | **Fast**, 1.50 times | Slow 1,234 ms |  |"
    )
    assert (
        rows[3]
        == "| queues: jobs | 2,000 jobs/s | Fast 1,000 jobs/s | Headwater, 2.00 times |  | 9,000 jobs/s |"
    )


def test_names_that_there_are_not_are_told_with_those_there_are():
    assert unknown(["b"], ["a", "b"], "peer") is None
    assert unknown(["c", "a"], ["a", "b"], "peer") == "no such peer: c; there are a, b"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sprints"], "no such discipline: sprints; there are appends"),
        (["--peers", "bolt"], "no such peer: bolt; there are eventsourcing"),
        (["--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_the_command_line_refuses_what_there_is_not(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(arguments)

    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_headwater_and_the_raw_limit_run_beside_any_peer():
    race = parsed(["queues", "--peers", "dbos"])

    assert race.contestants("queues") == ["headwater", "raw", "dbos"]


def test_every_contestant_is_known_and_every_peer_is_pinned():
    for discipline in DISCIPLINES.values():
        assert discipline.settings.keys() <= CONTESTANTS.keys()
    for contestant in CONTESTANTS.values():
        for package in contestant.packages:
            version = package.rpartition("@" if contestant.kind == "node" else "==")[2]
            assert version[0].isdigit(), package


def test_a_peer_without_its_program_says_which_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CannotRun, match="needs `java`, which is not installed"):
        prepare("debezium", CONTESTANTS["debezium"], tmp_path)
