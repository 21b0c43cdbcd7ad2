"""The names of a view's keys.

All keys of a view's generation share a hash tag, so they are in one slot of a cluster and one script
may touch them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from headwater.views.fold import Key
from headwater.views.indexes import Distinct, Index, name_of_index
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
        """A hash: position, epoch, fence, revision, last event, replayed positions; of a slice, where one is named."""
        of = "" if self.place.slice is None else f":{self.place.slice}"
        return f"{self.prefix}:checkpoint{of}"

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

    @property
    def indexes(self) -> str:
        """A set: the names of the indexes that this generation keeps."""
        return f"{self.prefix}:indexes"

    def index(self, index: Index, tenant: str) -> str:
        """A sorted set, a hash or a geo set: what an index holds of a tenant's documents."""
        return self.named(name_of_index(index), tenant)

    def named(self, index: str, tenant: str) -> str:
        """What the index of that name holds of a tenant's documents."""
        return f"{self.prefix}:{index}:{tenant}"

    def distinct(self, index: Distinct, key: Key) -> str:
        """A HyperLogLog: the values that a document's field has had."""
        return self.named_distinct(name_of_index(index), key)

    def named_distinct(self, index: str, key: Key) -> str:
        """The HyperLogLog of the index of that name. The tenant's length tells it from the key."""
        tenant, document = key
        return f"{self.prefix}:{index}:{len(tenant)}:{tenant}:{document}"
