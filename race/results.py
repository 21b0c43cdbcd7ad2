"""What a race found, and its table: medians, and the cases where a peer is ahead first. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

OURS, LIMIT = "headwater", "raw"


@dataclass(frozen=True)
class Measure:
    """One figure that all contestants of a discipline print, under a key."""

    key: str
    title: str
    unit: str
    lower_is_better: bool = False

    def text(self, value: float) -> str:
        """A value with its unit: milliseconds and small rates with one decimal."""
        return f"{value:,.1f} {self.unit}" if value < 100 else f"{value:,.0f} {self.unit}"


@dataclass
class Case:
    """A measure, and what each contestant reached in each round."""

    discipline: str
    measure: Measure
    rounds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        """Of each contestant that reached anything."""
        return {name: median(values) for name, values in self.rounds.items() if values}

    @property
    def best_peer(self) -> str | None:
        """Whose median is best, Headwater and the raw limit aside."""
        peers = {name: found for name, found in self.medians.items() if name not in {OURS, LIMIT}}
        best = min if self.measure.lower_is_better else max
        return best(peers, key=lambda name: peers[name]) if peers else None

    @property
    def ratio(self) -> float | None:
        """How far Headwater is ahead of the best peer; below 1 the peer is ahead. None where one of them is missing."""
        found, peer = self.medians, self.best_peer
        if peer is None or OURS not in found:
            return None
        ours, theirs = found[OURS], found[peer]
        above, below = (theirs, ours) if self.measure.lower_is_better else (ours, theirs)
        return above / below if below else None


def ordered(cases: Iterable[Case]) -> list[Case]:
    """Where a peer is furthest ahead first; cases without a comparison last."""
    return sorted(cases, key=lambda case: float("inf") if case.ratio is None else case.ratio)


def table(cases: Iterable[Case], titles: Mapping[str, str]) -> str:
    """A Markdown table, in the order of `ordered`."""
    lines = [
        "| work | Headwater | best peer | ahead | other peers | raw Postgres |",
        "|---|---|---|---|---|---|",
    ]
    for case in ordered(cases):
        found, peer, ratio = case.medians, case.best_peer, case.ratio

        def cell(name: str | None, case: Case = case) -> str:
            value = None if name is None else case.medians.get(name)
            return "" if value is None else case.measure.text(value)

        others = [
            f"{titles[name]} {cell(name)}" for name in found if name not in {OURS, LIMIT, peer}
        ]
        ahead = "" if ratio is None or peer is None else _ahead(ratio, titles[peer])
        best = "" if peer is None else f"{titles[peer]} {cell(peer)}"
        cells = [f"{case.discipline}: {case.measure.title}", cell(OURS), best, ahead]
        lines.append("| " + " | ".join([*cells, ", ".join(others), cell(LIMIT)]) + " |")
    return "\n".join(lines)


def _ahead(ratio: float, peer: str) -> str:
    """Who is ahead, and how many times."""
    return f"**{peer}**, {1 / ratio:.2f} times" if ratio < 1 else f"Headwater, {ratio:.2f} times"


def unknown(asked: Sequence[str], known: Iterable[str], what: str) -> str | None:
    """What to say about names that there are not; None where all are known."""
    wrong = sorted(set(asked) - set(known))
    if not wrong:
        return None
    return f"no such {what}: {', '.join(wrong)}; there are {', '.join(known)}"
