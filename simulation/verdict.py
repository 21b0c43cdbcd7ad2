"""The judge of the log's order: what readers saw against what was committed. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SHOWN = 5


class Row(NamedTuple):
    """An event as a reader sees it; the mark tells it from every other."""

    position: int
    tenant: str
    stream: str
    version: int
    mark: str


@dataclass(frozen=True)
class Sight:
    """All that one reader saw, in its order. A reader of one tenant owes that tenant's events only."""

    reader: str
    rows: Sequence[Row]
    tenant: str | None = None


@dataclass
class Verdict:
    """What is wrong, by kind: missed, repeated, disordered, invented, versions, lost, undone."""

    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def kinds(self) -> set[str]:
        return set(self.problems)

    def __str__(self) -> str:
        return "\n".join(
            f"{kind}: {len(found)}, such as {'; '.join(found[:SHOWN])}"
            for kind, found in sorted(self.problems.items())
        )


def judge(
    committed: Sequence[Row],
    sights: Sequence[Sight],
    *,
    acknowledged: Collection[str] = (),
    undone: Collection[str] = (),
) -> Verdict:
    """What is wrong. ``committed`` is the log at the end, in order of position.

    ``acknowledged`` are the marks of durable commits that were answered, ``undone`` those of appends that were surely rolled back.
    """
    verdict = Verdict()
    for sight in sights:
        _judge_sight(verdict, committed, sight)
    _judge_versions(verdict, committed)
    marks = {row.mark for row in committed}
    verdict_of = {"lost": set(acknowledged) - marks, "undone": set(undone) & marks}
    for kind, found in verdict_of.items():
        if found:
            verdict.problems[kind] += sorted(found)
    return verdict


def _judge_sight(verdict: Verdict, committed: Sequence[Row], sight: Sight) -> None:
    owed = {row for row in committed if sight.tenant in (None, row.tenant)}
    seen = set(sight.rows)
    found: Mapping[str, list[Row]] = {
        "missed": sorted(owed - seen),
        "invented": sorted(seen - owed),
        "repeated": _repeated(sight.rows),
        "disordered": [
            after
            for before, after in zip(sight.rows, sight.rows[1:], strict=False)
            if after.position <= before.position
        ],
    }
    for kind, rows in found.items():
        if rows:
            verdict.problems[kind] += [f"{sight.reader} {tuple(row)}" for row in rows]
    for (tenant, stream), versions in _versions(sight.rows).items():
        if versions != sorted(versions):
            verdict.problems["versions"].append(
                f"{sight.reader} saw {tenant} {stream} out of order"
            )


def _judge_versions(verdict: Verdict, committed: Sequence[Row]) -> None:
    for (tenant, stream), versions in _versions(committed).items():
        if versions != list(range(1, len(versions) + 1)):
            verdict.problems["versions"].append(f"{tenant} {stream} is not dense: {versions[:20]}")
    if [row.position for row in committed] != sorted({row.position for row in committed}):
        verdict.problems["repeated"].append("a position is held by two events")


def _versions(rows: Sequence[Row]) -> dict[tuple[str, str], list[int]]:
    versions = defaultdict(list)
    for row in rows:
        versions[row.tenant, row.stream].append(row.version)
    return versions


def _repeated(rows: Sequence[Row]) -> list[Row]:
    return [row for row, count in Counter(rows).items() if count > 1]
