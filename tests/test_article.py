"""Every point of the article has a cell that reproduces it: cells carry tags such as article-M10."""

import json
from collections import defaultdict
from pathlib import Path

BOOK = Path(__file__).parents[1] / "book"

# How many points the articles have: brief items, memory management, connection repair, autofs.
POINTS = {f"{letter}{k}" for letter, last in (("B", 2), ("M", 13), ("T", 12), ("A", 11)) for k in range(1, last + 1)}


def cells_by_point() -> dict[str, list[str]]:
    """For each point the code cells that carry its tag, as file:cell."""
    found = defaultdict(list)
    for path in sorted(BOOK.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for k, cell in enumerate(json.loads(path.read_text())["cells"]):
            for tag in cell["metadata"].get("tags", []):
                if tag.startswith("article-"):
                    assert cell["cell_type"] == "code", f"{path.name}, cell {k}: prose cannot reproduce {tag}"
                    found[tag.removeprefix("article-")].append(f"{path.name}:{k}")
    return found


def test_every_point_has_a_cell():
    missing = POINTS - set(cells_by_point())
    assert not missing, f"points without a cell: {', '.join(sorted(missing))}"


def test_the_page_of_points_has_them_all():
    groups = json.loads((BOOK / "article-points.json").read_text())
    assert {name for group in groups for name in group["points"]} == POINTS


def test_tags_name_points_that_exist():
    assert set(cells_by_point()) <= POINTS
