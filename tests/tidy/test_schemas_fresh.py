"""The generated schema data is what its builder makes of the pinned package today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import zstandard

import kcp.schemas

ROOT = Path(__file__).resolve().parents[2]


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_schemas", ROOT / "tools" / "build_schemas.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="kubernetes-validate, a build dependency, is not installed here",
)
def test_the_data_is_fresh() -> None:
    assert kcp.schemas.__file__ is not None
    directory = Path(kcp.schemas.__file__).parent
    for name, data in builder().contents().items():
        packed = (directory / name).read_bytes()
        built = zstandard.ZstdDecompressor().decompress(packed)
        assert built == data, f"kcp/schemas/{name} is stale: run `make update`"


def test_nothing_generated_is_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert "kcp/schemas/*.json.zst" in ignored
