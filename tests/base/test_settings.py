from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from kcp.base import settings
from kcp.base.settings import SettingError, setting


@attrs.frozen
class Example:
    listen: str = setting("127.0.0.1:6443", "Address to serve on.")
    nodes: int = setting(3, "Simulated nodes.")
    interval_s: float = setting(60.0, "Seconds between bookmarks.")
    verbose: bool = setting(False, "Say more.")
    names: tuple[str, ...] = setting((), "Extra names.")
    token: str = setting("", "A token.", secret=True)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "kcp.toml"
    file.write_text('listen = "file"\nnodes = 1\ninterval_s = 5\nnames = ["a", "b"]\n')
    environment = {"KCP_LISTEN": "environment", "KCP_VERBOSE": "yes", "OTHER": "x"}
    loaded = settings.load(
        Example, flags={"listen": "flag", "nodes": None}, environment=environment, file=file
    )
    assert loaded == Example("flag", 1, 5.0, True, ("a", "b"))
    assert settings.load(Example, environment=environment, file=file).listen == "environment"
    assert settings.load(Example, environment={}, file=tmp_path / "absent.toml") == Example()


def test_text_forms() -> None:
    loaded = settings.load(
        Example, environment={"KCP_NAMES": "a, b,", "KCP_NODES": "7", "KCP_INTERVAL_S": "1.5"}
    )
    assert (loaded.names, loaded.nodes, loaded.interval_s) == (("a", "b"), 7, 1.5)


@pytest.mark.parametrize(
    ("environment", "content", "error"),
    [
        ({"KCP_NODES": "many"}, "", "KCP_NODES: 'many'"),
        ({"KCP_VERBOSE": "maybe"}, "", "expected true or false"),
        ({}, "nodess = 3", "unknown setting 'nodess'"),
        ({}, 'nodes = "3"', "nodes: expected int, not '3'"),
        ({}, "nodes = ", "kcp.toml"),
    ],
)
def test_errors_say_what_and_where(
    tmp_path: Path, environment: dict[str, str], content: str, error: str
) -> None:
    file = tmp_path / "kcp.toml"
    file.write_text(content)
    with pytest.raises(SettingError) as raised:
        settings.load(Example, environment=environment, file=file)
    assert error in str(raised.value)


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(SettingError, match="unknown setting 'typo'"):
        settings.load(Example, flags={"typo": 1}, environment={})


def test_rows_are_the_reference() -> None:
    rows = {row.name: row for row in settings.rows(Example)}
    assert rows["nodes"] == settings.SettingRow("nodes", "KCP_NODES", "int", "3", "Simulated nodes.")
    assert rows["token"].default == ""


def test_the_process_environment_is_a_read_only_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCP_PROBE", "1")
    environment = settings.process_environment()
    assert environment["KCP_PROBE"] == "1"
    assert settings.environment_value("KCP_PROBE") == "1"
    assert settings.environment_value("KCP_ABSENT", "default") == "default"
    with pytest.raises(TypeError):
        environment["X"] = "1"  # type: ignore[index]
    assert settings.host_name() == settings.host_name().lower()
