"""The names of a view's keys.

All keys of a view's generation share a hash tag, so they are in one slot of a cluster and one script
may touch them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from headwater.views.storage import Place


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one generation of one view."""

    place: Place

    @property
    def prefix(self) -> str:
        """What they all begin with."""
        return f"headwater:{{{self.place.log}/{self.place.view}/{self.place.generation}}}"

    @property
    def checkpoint(self) -> str:
        """A hash: position, epoch, fence, revision, last event, replayed positions."""
        return f"{self.prefix}:checkpoint"

    @property
    def tenants(self) -> str:
        """A set: the tenants that ever had a document."""
        return f"{self.prefix}:tenants"

    def documents(self, tenant: str) -> str:
        """A hash: the documents of a tenant, by key."""
        return f"{self.prefix}:documents:{tenant}"

    def order(self, tenant: str) -> str:
        """A sorted set, all scores 0: the keys of a tenant in the order of their bytes."""
        return f"{self.prefix}:keys:{tenant}"
