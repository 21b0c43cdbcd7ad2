"""Which small files of a lake become one: bounded in files and bytes, and seldom written again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.stores.lake.merging import MOST_FILES, Merging, next_run
from headwater.views.batches import StoredFile


def file(after, upto, size, *, kind="order.placed", month="2026-11"):
    return StoredFile(f"{kind}-{after}-{upto}", kind, month, after, upto, 1, size)


def test_few_or_large_files_are_left():
    few = [file(n, n + 1, 4096) for n in range(15)]
    assert next_run(few, Merging()) == []
    large = [file(n, n + 1, 20 << 20) for n in range(40)]
    assert next_run(large, Merging()) == []


def test_types_and_months_stay_apart():
    files = [
        file(n, n + 1, 4096, kind=f"order.t{n % 2}", month=f"2026-1{n // 16}") for n in range(32)
    ]
    assert next_run(files, Merging(files=9)) == []
    run = next_run(files, Merging(files=8))
    assert len({(f.type, f.month) for f in run}) == 1


@given(st.lists(st.integers(1, 40 << 20), max_size=400), st.integers(2, 40))
def test_a_run_is_adjacent_and_bounded(sizes, least):
    files = [file(n, n + 1, size) for n, size in enumerate(sizes)]
    merging = Merging(files=least)
    if run := next_run(files, merging):
        start = files.index(run[0])
        assert run == files[start : start + len(run)]
        assert 2 <= len(run) <= MOST_FILES
        assert sum(f.bytes for f in run) <= merging.bytes


def test_each_byte_is_written_again_a_few_times():
    """A year of a feed that writes 4 KiB at a time, in small: few files stay, and few are rewritten."""
    merging = Merging(bytes=8 << 20)
    files, written, size = [], 0, 4096
    for n in range(6_000):
        files.append(file(n, n + 1, size))
        while run := next_run(files, merging):
            total = sum(f.bytes for f in run)
            written += total
            files = [f for f in files if f not in run]
            files.append(file(run[0].after, run[-1].upto, total))
            files.sort(key=lambda f: f.after)
    assert len(files) < 60
    assert written < 7 * 6_000 * size
