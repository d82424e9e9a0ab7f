"""What was measured, as one table and one JSON object."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional


@dataclass
class Row:
    """One measurement of one requirement."""

    requirement: str
    measurement: str
    ours: Optional[float]
    unit: str
    peer: str = ""
    peer_value: Optional[float] = None
    # What is held against the target; ours / peer where there is a peer, else as `compares` says.
    ratio: Optional[float] = None
    target: Optional[float] = None
    # ">=" or "<=".
    direction: str = ">="
    # What the machine allows at most, in the same unit.
    limit: Optional[float] = None
    comment: str = ""

    @property
    def passed(self) -> Optional[bool]:
        if self.ratio is None or self.target is None:
            return None
        return self.ratio >= self.target if self.direction == ">=" else self.ratio <= self.target

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "NO", None: ""}[self.passed]


def versus(requirement: str, measurement: str, ours: Optional[float], peer: str, peer_value: Optional[float], target: Optional[float], **rest) -> Row:
    """Ours over the peer's, both rates."""
    ratio = ours / peer_value if ours is not None and peer_value else None
    return Row(requirement, measurement, ours, rest.pop("unit", "tok/s"), peer, peer_value, ratio, target, ">=", **rest)


def at_most(requirement: str, measurement: str, ours: Optional[float], unit: str, target: float, **rest) -> Row:
    """A number of ours that has a limit of its own."""
    return Row(requirement, measurement, ours, unit, ratio=ours, target=target, direction="<=", **rest)


def at_least(requirement: str, measurement: str, ours: Optional[float], unit: str, target: float, **rest) -> Row:
    return Row(requirement, measurement, ours, unit, ratio=ours, target=target, direction=">=", **rest)


def number(value: Optional[float]) -> str:
    if value is None:
        return "—"
    size = abs(value)
    return f"{value:.4f}" if size < 1 else f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"


def table(rows: list[Row]) -> str:
    header = ["req.", "measurement", "ours", "unit", "peer", "peer's", "ratio", "target", "met", "limit", "of limit", "note"]
    lines = [header]
    for row in rows:
        share = f"{100 * row.ours / row.limit:.0f} %" if row.ours is not None and row.limit else ""
        lines.append([
            row.requirement, row.measurement, number(row.ours), row.unit, row.peer, number(row.peer_value) if row.peer else "",
            number(row.ratio) if row.peer else "", "" if row.target is None else f"{'≥' if row.direction == '>=' else '≤'} {row.target:g}",
            row.verdict, "" if row.limit is None else number(row.limit), share, row.comment,
        ])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text_columns = {0, 1, 3, 4, 8, 11}

    def shown(line: list[str]) -> str:
        cells = [cell.ljust(width) if column in text_columns else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths))]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (width + 2) if column in text_columns else "-" * (width + 1) + ":" for column, width in enumerate(widths)) + "|"
    return "\n".join([shown(lines[0]), rule] + [shown(line) for line in lines[1:]])


def write(path: Path, rows: list[Row], environment: dict, raw: dict, notes: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [asdict(row) | {"met": row.passed} for row in rows]
    text = json.dumps({"environment": environment, "results": results, "notes": notes, "raw": raw}, indent=2, ensure_ascii=False)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
