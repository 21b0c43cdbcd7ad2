"""Opens, of the events that a fold reads, the personal fields that it declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from headwater.errors import SettingError
from headwater.events import Event, EventType
from headwater.events.personal import is_sealed, key_of
from headwater.personal import FORGOTTEN
from headwater.personal.opener import Opener
from headwater.views.fold import FoldEvent
from headwater.views.opening import Opened


@dataclass(frozen=True, slots=True)
class Opening:
    """The fields that one view opens, and what opens them."""

    fields: tuple[str, ...] = ()
    opener: Opener | None = None

    async def events(
        self, items: Sequence[FoldEvent]
    ) -> tuple[Sequence[FoldEvent], tuple[Opened, ...]]:
        """Events with the declared fields in clear, and what of whom goes into which document.

        Raises KeyUnavailable, and SettingError where there is no master key.
        """
        if not self.fields:
            return items, ()
        by_tenant: dict[str, set[str]] = {}
        for item in items:
            by_tenant.setdefault(item.key[0], set()).update(t for _, t in self._sealed(item.event))
        clear: dict[tuple[str, str], str] = {}
        for tenant, texts in by_tenant.items():
            if texts:
                found = await self._opener.opened(tenant, texts)
                clear |= {(tenant, text): opened for text, opened in found.items()}
        rows: dict[Opened, None] = {}
        changed = [self._in_clear(item, clear, rows) for item in items]
        return changed, tuple(rows)

    @property
    def _opener(self) -> Opener:
        if self.opener is None:
            raise SettingError("Nothing opens personal fields here.", hint="Use the view of an open app.")  # fmt: skip
        return self.opener

    def _sealed(self, event: Event) -> Iterator[tuple[str, str]]:
        personal = EventType.of(type(event)).personal
        for name in self.fields:
            if name in personal and is_sealed(text := getattr(event, name)):
                yield name, text

    def _in_clear(
        self, item: FoldEvent, clear: dict[tuple[str, str], str], rows: dict[Opened, None]
    ) -> FoldEvent:
        tenant, key = item.key
        changes = {}
        for name, text in self._sealed(item.event):
            changes[name] = opened = clear[tenant, text]
            if opened is not FORGOTTEN:
                rows[Opened(key_of(text), tenant, key)] = None
        if not changes:
            return item
        event = msgspec.structs.replace(item.event, **changes)
        whole = item.recorded
        if whole is not None:
            whole = msgspec.structs.replace(whole, event=event)
        return FoldEvent(item.position, item.key, event, whole)
