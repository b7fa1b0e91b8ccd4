"""The repository speaks of the project alone: no machine paths, no hosts of package registries."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BANNED = (
    re.compile(r"/work/(?:main|shared|briefs)"),
    re.compile(r"\.\./shared/"),
    re.compile(r"(?:files\.pythonhosted|deb\.debian|registry\.npmjs)\.org|pypi\.org"),
    re.compile(r"/root/"),
)


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split("\n") if listed.returncode == 0 else [str(p) for p in ROOT.rglob("*.py")]
    return [ROOT / name for name in names if name]


def test_no_file_names_a_machine_or_a_registry() -> None:
    offenders = []
    for path in tracked_files():
        if path == Path(__file__) or not path.is_file() or path.suffix in (".zst", ".lock"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        offenders += [f"{path.relative_to(ROOT)}: {p.pattern}" for p in BANNED if p.search(text)]
    assert offenders == []
