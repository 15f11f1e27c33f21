"""Grafana's JSON model of a dashboard, from rows of panels."""

from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, IN_A_ROW = 8, 7, 3
SOURCE = {"type": "prometheus", "uid": "prometheus"}


@dataclass(frozen=True)
class Panel:
    """A graph, or with `now` only the last value.

    Args:
        title: the title.
        queries: the legend and expression of each line; SERVICE is replaced.
        unit: one of Grafana's units.
        now: show the last value in green, or in red from `red_from` on or below
            `red_below`.
        named: show the legend instead of the value.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    now: bool = False
    red_from: float | None = None
    red_below: float | None = None
    named: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: list[Panel]


def dashboard(name: str, title: str, rows: list[Row]) -> dict[str, Any]:
    """Return a dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append(_place("row", row.title, 0, y, WIDTH * IN_A_ROW, 1))
        y += 1
        for number, panel in enumerate(row.panels):
            down, across = divmod(number, IN_A_ROW)
            top = y + down * HEIGHT
            panels.append(_panel(panel, across * WIDTH, top))
        y += -(-len(row.panels) // IN_A_ROW) * HEIGHT
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "uid": name,
        "title": title,
        "editable": False,
        "refresh": "30s",
        "schemaVersion": 39,
        "tags": ["service"],
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "service",
                    "label": "Service",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": 'label_values(up{job="service"}, service)',
                    "refresh": 2,
                    "sort": 1,
                }
            ]
        },
        "panels": panels,
    }


def _place(kind: str, title: str, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "gridPos": {"x": x, "y": y, "w": w, "h": h},
    }


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    kind = "stat" if panel.now else "timeseries"
    field: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.now:
        field["color"] = {"mode": "thresholds"}
        field["thresholds"] = {"mode": "absolute", "steps": _steps(panel)}
    chosen = 'job="service",service="$service"'
    return {
        **_place(kind, panel.title, x, y, WIDTH, HEIGHT),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": {"textMode": "name"} if panel.named else {},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": expression.replace("SERVICE", chosen),
                "legendFormat": legend,
            }
            for number, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.red_below is not None:
        return [
            {"color": "red", "value": None},
            {"color": "green", "value": panel.red_below},
        ]
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    return steps
