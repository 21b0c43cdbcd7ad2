"""The page's colours: text can be read on everything it stands on, in both themes (WCAG 2.2 AA)."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = files("headwater.entrances.console").joinpath("static/style.css").read_text()
PALETTE = {
    name: pair
    for name, *pair in re.findall(
        r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", STYLE
    )
}
GROUNDS = ("ground", "sheet", "sunk")
TEXT = [
    *((text, ground) for text in ("text", "soft", "accent") for ground in (*GROUNDS, "wash")),
    *((text, ground) for text in ("good", "warn", "bad") for ground in GROUNDS),
    ("text", "warn-wash"),
    ("warn", "warn-wash"),
    ("on-accent", "accent"),
]
SHAPES = [("edge", "sheet"), ("edge", "ground"), ("accent", "ground"), ("accent", "wash")]


def luminance(colour):
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT, ids=lambda name: name)
def test_text_can_be_read(text, ground, theme):
    assert contrast(PALETTE[text][theme], PALETTE[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("shape", "ground"), SHAPES, ids=lambda name: name)
def test_boxes_and_focus_can_be_seen(shape, ground, theme):
    assert contrast(PALETTE[shape][theme], PALETTE[ground][theme]) >= 3


def test_every_colour_is_of_the_palette():
    rules = STYLE[STYLE.index("}") :]
    assert re.findall(r"#[0-9a-f]{3,8}\b", rules) == []
    assert set(re.findall(r"var\(--([\w-]+)\)", rules)) <= {*PALETTE, "mono", "sans"}
