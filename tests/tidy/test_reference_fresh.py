"""The pages of docs/reference that come from code say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_reference", ROOT / "tools" / "build_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_fresh() -> None:
    for name, text in builder().pages().items():
        page = ROOT / "docs" / "reference" / name
        stale = f"docs/reference/{name} is stale: run python tools/build_reference.py"
        assert page.exists() and page.read_text(encoding="utf-8") == text, stale
