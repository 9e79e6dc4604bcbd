"""Text in pictures: a font that has its characters, and lines that fit."""

from functools import lru_cache

import matplotlib
from cvttf_NotoSansCJK_Regular import get_TTF_path
from matplotlib import font_manager
from PIL import ImageFont
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

CUT = "…"


def use_fonts():
    """Lets matplotlib draw Chinese, Japanese and Korean characters, which its own font lacks, from Noto Sans CJK."""
    font_manager.fontManager.addfont(get_TTF_path())
    east_asian = font_manager.FontProperties(fname=get_TTF_path()).get_name()
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", east_asian]


def wrap(text: str, columns: int, most_lines: int) -> str:
    """The text in lines of at most `columns` columns, of which a Chinese character takes two; the end is cut with "…"."""
    lines = [line.plain.rstrip() for line in Text(text).wrap(Console(width=columns), columns)]
    if len(lines) > most_lines:
        lines = lines[:most_lines]
        while cell_len(lines[-1]) >= columns:
            lines[-1] = lines[-1][:-1]
        lines[-1] += CUT
    return "\n".join(lines)


def fit(text: str, width_px: int, size_px: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """(the text, its end cut with "…" where it is wider than width_px; the font to draw it with)."""
    font = _font(size_px)
    if font.getlength(text) <= width_px:
        return text, font
    while text and font.getlength(text + CUT) > width_px:
        text = text[:-1]
    return text + CUT, font


@lru_cache(maxsize=4)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(get_TTF_path(), size_px)
