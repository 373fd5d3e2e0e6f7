"""What the documents name exists: files, and the functions and classes in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
NAMED = re.compile(r"`((?:protos|control|raftstore|cri_runtime|proxy|ctl|tests|docs|examples)/[\w./-]*)(?:: (\w+))?`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_and_functions_exist(document: Path) -> None:
    missing = []
    for path, name in NAMED.findall(document.read_text()):
        if not (ROOT / path).exists():
            missing.append(path)
        elif name and not re.search(rf"^\s*(async )?(def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE):
            missing.append(f"{path}: {name}")
    assert missing == []


def test_the_walk_through_a_request_names_files() -> None:
    assert len(NAMED.findall((ROOT / "docs" / "request.md").read_text())) > 30
