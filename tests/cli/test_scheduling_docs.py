"""What the how-to pages about room and what-ifs show is what the commands print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kcp.cli.main import kcp
from tests.replay.scattered import write_log

DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
LOG = "cluster.kcplog"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("docs") / LOG
    write_log(file)
    return file


def examples(page: str) -> Iterator[tuple[dict[str, str], list[str], list[str]]]:
    """(files shown so far, arguments, the lines below) of each `$ kcp` that reads the log."""
    files: dict[str, str] = {}
    for language, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if language == "yaml" and text.startswith("# "):
            files[text.partition("\n")[0][2:]] = text
        elif language == "console" and LOG in text:
            command, *shown = text.splitlines()
            yield dict(files), command.removeprefix("$ kcp ").split(), shown


def matches(shown: list[str], printed: str) -> bool:
    """`…` stands for anything, a whole line of it for any number of lines."""
    parts = [r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in shown]
    return re.fullmatch("".join(parts), printed.rstrip("\n") + "\n") is not None


@pytest.mark.parametrize("page", ["capacity.md", "scheduler-what-if.md", "explain-scheduling.md"])
def test_examples_print_what_they_show(page: str, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(log.parent)
    found = list(examples(page))
    assert found
    for files, arguments, shown in found:
        for name, text in files.items():
            Path(name).write_text(text, encoding="utf-8")
        done = CliRunner().invoke(kcp, arguments)
        assert done.exit_code == 0, done.output
        assert matches(shown, done.output), done.output
