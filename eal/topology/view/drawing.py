# SPDX-License-Identifier: BSD-3-Clause
"""SVG drawing: boxes that contain shapes and other boxes, their layout in rows, and colours."""

from __future__ import annotations

from colorsys import hls_to_rgb
from dataclasses import dataclass, field
from html import escape

_HUES = (205, 28, 140, 280, 330, 55, 175, 0)


@dataclass
class Box:
    """A part of the picture: its size in pixels and its SVG elements, relative to its upper left corner."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def put(self, box: Box, x: float, y: float) -> None:
        """Add another box at (x, y)."""
        self.parts.append(f'<g transform="translate({x:g},{y:g})">{"".join(box.parts)}</g>')

    def rect(self, x: float, y: float, width: float, height: float, radius: float, attributes: str) -> None:
        """Add a rounded rectangle with these SVG attributes."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" {attributes}/>'
        )

    def text(self, x: float, y: float, text: str, style: str) -> None:
        """Add one line of text; `style` is a CSS class."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(text)}</text>')


def flow(boxes: list[Box], width: float, gap: float) -> Box:
    """Return a box with these boxes side by side, in rows up to `width` pixels wide and `gap` pixels apart."""
    page = Box(0, 0)
    x = y = row = 0.0
    for box in boxes:
        if x and x + box.width > width:
            x, y, row = 0.0, y + row + gap, 0.0
        page.put(box, x, y)
        page.width = max(page.width, x + box.width)
        x += box.width + gap
        row = max(row, box.height)
    page.height = y + row
    return page


def node_colour(node: int | None, lightness: int) -> str:
    """Return a node's colour as #rrggbb, grey for an unknown node; `lightness` is in percent."""
    return hex_colour(0, lightness, 0) if node is None else hex_colour(_HUES[node % len(_HUES)], lightness, 62)


def hex_colour(hue: int, lightness: int, saturation: int) -> str:
    """Return #rrggbb, because cairosvg does not support hsl(). `hue` is in degrees, the others are in percent."""
    parts = hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)
