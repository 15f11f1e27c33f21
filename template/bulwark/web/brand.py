"""The color of the brand: `--brand` in app/static/app.css, for pages and emails.

bulwark.css derives the shades of pages from it. Emails can't read a style sheet, so
their template asks `brand_color()`.
"""

import re
from pathlib import Path

from flask import Flask, current_app

DEFAULT = "#0172ad"
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3 (AA)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
DECLARATION = re.compile(r"(?<![\w-])--brand\s*:\s*([^;}]+)")
HEX = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)


def init_app(app: Flask) -> None:
    """Give emails the color."""
    app.add_template_global(brand_color)


def brand_color() -> str:
    """Return the color of the brand, or the default if the declared one is no use."""
    style = style_of(current_app)
    return DEFAULT if problem(style) else declared(style) or DEFAULT


def style_of(app: Flask) -> str:
    """Return the style sheet of the team, or nothing if there is none."""
    path = Path(app.static_folder or "", "app.css")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def declared(style: str) -> str | None:
    """Return the value of `--brand` in a style sheet; the last one counts."""
    values = DECLARATION.findall(COMMENT.sub("", style))
    return values[-1].strip() if values else None


def problem(style: str) -> str | None:
    """Return what is wrong with `--brand` in a style sheet, and how to fix it."""
    color = declared(style)
    if color is None:
        return None
    if not HEX.fullmatch(color):
        return (
            f"--brand in app/static/app.css is {color}, which emails can't use: write"
            f" it with six hexadecimal digits, such as {DEFAULT}"
        )
    if (found := contrast_with_white(color)) >= LEAST_CONTRAST:
        return None
    return (
        f"--brand in app/static/app.css is {color}. White text on it, as on buttons,"
        f" has a contrast of {found:.2f}:1, and many people can't read it: WCAG AA"
        f" requires {LEAST_CONTRAST}:1. Choose a darker shade, such as {_darker(color)}"
    )


def contrast_with_white(color: str) -> float:
    """Return the contrast of a color with white, from 1 to 21 (WCAG 2.2)."""
    red, green, blue = (_linear(value) for value in _channels(color))
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


def _channels(color: str) -> list[int]:
    digits = color.removeprefix("#")
    if len(digits) == 3:  # noqa: PLR2004  such as #07a
        digits = "".join(2 * digit for digit in digits)
    return [int(digits[at : at + 2], 16) for at in (0, 2, 4)]


def _linear(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4  # noqa: PLR2004  of sRGB


def _darker(color: str) -> str:
    """Return the lightest shade of a color that has enough contrast."""
    shades = (
        "#" + "".join(f"{value * share // 100:02x}" for value in _channels(color))
        for share in range(100, -1, -1)
    )
    return next(s for s in shades if contrast_with_white(s) >= LEAST_CONTRAST)
