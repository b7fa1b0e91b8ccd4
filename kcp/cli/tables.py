"""How rows are printed: an aligned table, JSON, or CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson

from kcp.store.query import ResultTable

FORMATS = ("table", "json", "csv")
WIDEST = 80
"""A cell of a table is cut to this many characters; JSON and CSV show all."""


def render(result: ResultTable, form: str) -> str:
    if form == "json":
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        return orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows(result.rows)
        return out.getvalue().rstrip("\n")
    return aligned(result.columns, [[_cell(value) for value in row] for row in result.rows])


def aligned(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, two blanks apart, no trailing blanks."""
    widths = [max([len(column), *(len(row[i]) for row in rows)]) for i, column in enumerate(columns)]
    lines = [[column.upper() for column in columns], *rows]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = str(value).replace("\n", " ")
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
