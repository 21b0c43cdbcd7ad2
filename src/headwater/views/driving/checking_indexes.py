"""Compares a fold's indexes with the log, where its documents are compared.

An index with a member for each key follows from the document, and both are read in one atomic step; so what
differs there is a difference, however far the store goes on meanwhile. A distinct count follows from all
states that a document has had, so it is compared with the values that the log gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from headwater.views.definition import Difference
from headwater.views.documents import IndexReading
from headwater.views.driving.checking import FoldCheck
from headwater.views.fold import Document, Key
from headwater.views.indexes import Distinct, Seen, name_of_index

D = TypeVar("D", bound=Document)

_AT_ONCE = 1_000
_ATTEMPTS = 20


@dataclass(slots=True)
class IndexedFoldCheck(FoldCheck[D]):
    """One verification of a fold and its indexes."""

    indexes: IndexReading = field(kw_only=True)

    async def _strays(self) -> list[Difference]:
        declared = self.folding.fold.indexes
        found = await self.indexes.strays(declared, self.folding.document)
        return [
            Difference(*key, {name: expected}, {name: stored})
            for key, name, expected, stored in found
        ]

    async def _counted(self, expected: dict[Key, D | None], seen: Seen) -> list[Difference]:
        keys = list(expected)
        return [
            difference
            for index in seen.indexes
            for start in range(0, len(keys), _AT_ONCE)
            for difference in await self._compare_counts(
                index, {key: expected[key] for key in keys[start : start + _AT_ONCE]}, seen
            )
        ]

    async def _compare_counts(
        self, index: Distinct, expected: dict[Key, D | None], seen: Seen
    ) -> list[Difference]:
        """What differs for some keys, as of a checkpoint at which the store was while it was counted."""
        at = self.reading.position
        states = dict(expected)
        found = seen
        for _ in range(_ATTEMPTS):
            values = {key: found.values.get(key, {}).get(index.of, set()) for key in states}
            position, counts = await self.indexes.counted(index, values)
            differing = {key: three for key, three in counts.items() if len(set(three)) > 1}
            if position == at or not differing:
                return [
                    Difference(*key, {name_of_index(index): given}, {name_of_index(index): stored})
                    for key, (stored, given, _) in differing.items()
                    if key not in self.parked
                ]
            # The store went on: from the states of the check's own checkpoint to where it is now.
            states = {key: expected[key] for key in differing}
            had = {key: seen.values.get(key, {}).get(index.of, set()) for key in differing}
            found = Seen((index,), values={key: {index.of: set(had[key])} for key in had})
            await self._go_on(states, position, found)
            at = position
        return []
