"""The pages: what they link to exists, what they tell to run exists, and what is made from code is up to date."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from swim.cli import VERBS
from swim.train.key_help import reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = ROOT / "docs/reference.md"
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@by_page
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@by_page
def test_every_command_exists(page):
    text = page.read_text()
    for script in re.findall(r"bash ((?:run_scripts/)[\w/]+\.sh)", text):
        assert (ROOT / script).is_file(), script
    for script in re.findall(r"python ((?:driver|tests|transformers)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script
    for verb in re.findall(r"^(?:NPROC=\d+ )?swim ([\w-]+)", text, re.MULTILINE):
        assert verb in VERBS, verb
    assert not re.search(r"python -m swim\.", text)


def test_the_reference_is_up_to_date():
    assert REFERENCE.read_text() == reference(), "python -m tests.test_docs writes it anew"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 185


def test_the_citation_names_the_papers_authors():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    authors = [author["family-names"] for author in citation["preferred-citation"]["authors"]]
    (bibtex,) = re.findall(r"author += \{(.+)\}", (ROOT / "README.md").read_text())
    assert authors == [name.split(",")[0] for name in bibtex.split(" and ")]


if __name__ == "__main__":
    REFERENCE.write_text(reference())
    subprocess.run([sys.executable, "-m", "ruff", "format", str(REFERENCE)], check=True)
