"""A step as the keys and arguments of the script that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headwater.stores.redis.keys import Keys
from headwater.views.documents import Step
from headwater.views.fold import Key
from headwater.views.indexes import Distinct, Index, Places, Ranking, name_of_index


def written(names: Keys, step: Step, head: Sequence[object]) -> tuple[list[str], list[object]]:
    """The keys, and the arguments after what says where the step begins."""
    tenants, documents = _documents(names, step)
    structures = [
        *(found for index in step.indexes for found in _members(names, index, step)),
        *(found for index in step.seen.indexes for found in _values(names, index, step)),
    ]
    keys = [names.checkpoint, names.tenants, names.indexes, *tenants]
    keys += [name for name, _, _, _ in structures]
    arguments: list[object] = [*head, len(tenants) // 2, len(step.indexes)]
    arguments += map(name_of_index, step.indexes)
    arguments += [kind for _, kind, _, _ in structures]
    arguments += documents
    for _, _, added, removed in structures:
        arguments += [len(added), *added, len(removed), *removed]
    return keys, arguments


_Structure = tuple[str, str, list[object], list[object]]
"""A key, the index's kind, what is added, which members are removed."""


def _documents(names: Keys, step: Step) -> tuple[list[str], list[object]]:
    kept: dict[str, list[object]] = {}
    for (tenant, key), document in zip(step.kept, step.documents, strict=True):
        kept.setdefault(tenant, []).extend((key, document))
    removed = by_tenant(step.removed)
    keys: list[str] = []
    arguments: list[object] = []
    for tenant in kept.keys() | removed.keys():
        keys += [names.documents(tenant), names.order(tenant)]
        pairs, gone = kept.get(tenant, []), removed.get(tenant, [])
        arguments += [tenant, len(pairs), *pairs, len(gone), *gone]
    return keys, arguments


def _members(names: Keys, index: Index, step: Step) -> Iterable[_Structure]:
    """What an index with a member for each key gets; absolute, so it may come again."""
    if isinstance(index, Distinct):
        return []
    added: dict[str, list[object]] = {}
    removed: dict[str, list[object]] = {}
    for tenant, key in step.removed:
        removed.setdefault(tenant, []).append(key)
    for tenant, key in step.kept:
        entry = index.entry(step.states[tenant, key])
        if entry is None:
            removed.setdefault(tenant, []).append(key)
        elif isinstance(index, Places):
            assert isinstance(entry, tuple)
            added.setdefault(tenant, []).extend((*map(repr, entry), key))
        elif isinstance(index, Ranking):
            added.setdefault(tenant, []).extend((repr(entry), key))
        else:
            added.setdefault(tenant, []).extend((key, entry))
    return [
        (names.index(index, tenant), index.kind, added.get(tenant, []), removed.get(tenant, []))
        for tenant in added.keys() | removed.keys()
    ]


def _values(names: Keys, index: Distinct, step: Step) -> Iterable[_Structure]:
    """What a distinct count of each key gets: values are only added, or it begins anew."""
    seen = step.seen
    for key in seen.values.keys() | seen.renewed:
        values = sorted(seen.values.get(key, {}).get(index.of, ()))
        anew: list[object] = ["anew"] if key in seen.renewed else []
        if values or anew:
            yield names.distinct(index, key), index.kind, list(values), anew


def by_tenant(keys: Iterable[Key]) -> dict[str, list[str]]:
    """Keys without their tenants, under them."""
    grouped: dict[str, list[str]] = {}
    for tenant, key in keys:
        grouped.setdefault(tenant, []).append(key)
    return grouped
