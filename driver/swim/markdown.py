"""Tables in Markdown, whatever their texts hold."""

from collections.abc import Iterable, Sequence


def head(names: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [row(names), "|---" * len(names) + "|"]


def row(texts: Iterable[str]) -> str:
    """One line of a table."""
    cells = (" ".join(text.replace("|", "\\|").replace("<", "&lt;").split()) for text in texts)
    return f"| {' | '.join(cells)} |"
