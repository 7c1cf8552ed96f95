"""Every point of the article has a cell that reproduces it: cells carry tags such as article-M10."""

import json
from collections import defaultdict
from pathlib import Path

BOOK = Path(__file__).parents[1] / "book"

# How many points the articles have: brief items, memory management, connection repair, autofs.
POINTS = {f"{letter}{k}" for letter, last in (("B", 2), ("M", 13), ("T", 12), ("A", 11)) for k in range(1, last + 1)}
WITHOUT_A_CELL_YET = {point for point in POINTS if point[0] == "B"}


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


def test_points_without_a_cell_are_the_known_ones():
    found = cells_by_point()
    missing = POINTS - set(found)
    print(f"points of M without a cell: {', '.join(sorted(p for p in missing if p[0] == 'M')) or 'none'}")
    assert missing == WITHOUT_A_CELL_YET


def test_tags_name_points_that_exist():
    assert set(cells_by_point()) <= POINTS
