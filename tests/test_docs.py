"""Every command that the documentation shows is one that CI runs."""

import re
from pathlib import Path

import pytest

from tests.stubs import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = ROOT / "docs" / "cli.md"
COMMAND = re.compile(r"^(\$ )?(niah|python|pip|bash|examples/\S+|\.ci/\S+) ", re.MULTILINE)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != GENERATED], ids=lambda p: p.name
)
def test_commands_stand_in_blocks_that_ci_runs(page: Path) -> None:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    assert not [block for language, block in fences if language != "sh" and COMMAND.search(block)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_ci_runs_the_pages() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert ".ci/readme.py README.md docs/*.md" in script
    assert "\n.ci/gate\n" in script
    assert "\n.ci/real\n" in script
