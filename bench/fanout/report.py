"""Print the tables, and write figures, plot and tables into the docs."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import matplotlib as mpl

from bench.fanout.scenarios import Row, Sample
from bench.fanout.variants import VARIANTS

PEERS: Final = ("jobcast", "stock", "node", "floor")
# Paths in the folder of the docs.
PAGE: Final = Path("explanation", "performance.md")
FIGURES: Final = Path("explanation", "fanout.json")
INTERFACE_PAGE: Final = Path("explanation", "interfaces.md")
INTERFACE_FIGURES: Final = Path("explanation", "interfaces.json")
# Peers of the comparison of interfaces, and the columns of the table.
INTERFACES: Final = {"jobcast": "Socket.IO", "sse": "event stream", "starlette": "bare Starlette"}
PLOT: Final = Path("images", "fanout.svg")
COLOURS: Final = {"jobcast": "#0a7d5c", "stock": "#8a8f98", "node": "#c58b2b", "floor": "#c9ced6"}


def summary(row: Row, samples: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Return the medians of a row's runs, with the ratios to jobcast."""
    costs = {name: statistics.median(s.cost for s in some) for name, some in samples.items()}
    own = costs["jobcast"]
    ratios = {name: cost / own for name, cost in costs.items() if own and name != "jobcast"}
    latencies = {
        name: sorted(x for s in some for x in s.latencies) for name, some in samples.items()
    }
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "cost": costs,
        "runs": {name: [s.cost for s in some] for name, some in samples.items()},
        "ratio": ratios,
        "target": row.targets,
        "a_second": {
            name: statistics.median(s.rate for s in some) for name, some in samples.items()
        },
        "latency_ms": {
            name: {"p50": _at(values, 0.5), "p99": _at(values, 0.99)}
            for name, values in latencies.items()
            if values
        },
    }


def caller_rows(runs: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return the costs of a task's calls as rows."""
    rows: list[dict[str, Any]] = []
    for call, target in (("progress", 100), ("log", 30)):
        own = statistics.median(run[call] for run in runs) / 1000
        other = statistics.median(run["update_state"] for run in runs) / 1000
        rows.append(
            {
                "name": call, "title": f"self.{call}(), next to Celery's update_state",
                "unit": "us a call", "cost": {"jobcast": own, "update_state": other},
                "ratio": {"update_state": other / own}, "target": {"update_state": target},
            }
        )  # fmt: skip
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    rows.append(
        {
            "name": "publisher", "title": "a log line in the publisher's thread",
            "unit": "us a line", "cost": {"jobcast": medians["publisher"] / 1000}, "ratio": {},
            "target": {}, "drained_a_second": medians["drained"], "batch": medians["batch"],
        }
    )  # fmt: skip
    return rows


def machine() -> dict[str, str]:
    return {"python": platform.python_version(), "system": platform.platform(terse=True)}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per row: costs, ratios to jobcast's cost, and targets.

    Rows with a variant of jobcast follow below the table, as they have no other peers.
    """
    switches = [row for row in rows if VARIANTS.keys() & row["cost"].keys()]
    rows = [row for row in rows if row not in switches]
    lines = [f"{'':47}{'unit':15}" + "".join(f"{name:>20}" for name in PEERS)]
    for row in rows:
        cells = []
        columns = {"update_state": "stock"}
        named = {columns.get(name, name): name for name in row["cost"]}
        for peer in PEERS:
            name = named.get(peer)
            cells.append("-" if name is None else _cell(row, name))
        lines.append(f"{row['title']:47}{row['unit']:15}" + "".join(f"{c:>20}" for c in cells))
    for row in rows:
        for name, latency in row.get("latency_ms", {}).items():
            lines.append(
                f"{row['name']}, {name}: {row['a_second'][name]:,.0f} deliveries/s,"
                f" latency {latency['p50']:.1f} ms (median), {latency['p99']:.1f} ms (99 %)"
            )
        if "batch" in row:
            lines.append(
                f"{row['name']}: {row['drained_a_second']:,.0f} lines/s continuously,"
                f" {row['batch']:.0f} per pipeline"
            )
    return "\n".join([*lines, *map(_switch_line, switches)])


def interface_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per row of the comparison of interfaces."""
    titles = "".join(f"{title:>16}" for title in INTERFACES.values())
    lines = [f"{'':47}{'unit':15}{titles}"]
    for row in rows:
        cells = (_short(row["cost"][name]) if name in row["cost"] else "-" for name in INTERFACES)
        lines.append(
            f"{row['title']:47}{row['unit']:15}" + "".join(f"{cell:>16}" for cell in cells)
        )
    return "\n".join(lines)


def _switch_line(row: Mapping[str, Any]) -> str:
    [variant] = VARIANTS.keys() & row["cost"].keys()
    on, off = row["cost"]["jobcast"], row["cost"][variant]
    return f"{row['title']}: {_short(on)} {row['unit']} on, {_short(off)} off ({off / on:.3g}x)"


def growth_table(growth: Mapping[str, Mapping[str, float]]) -> str:
    """Return one line per growing quantity."""
    return "\n".join(
        f"{title}: " + ", ".join(f"{size}: {cost:.3g} us" for size, cost in costs.items())
        for title, costs in growth.items()
    )


def write(figures: Mapping[str, Any], docs: Path) -> None:
    """Write figures, plot and tables into the docs."""
    rows, growth = figures["rows"], figures["growth"]
    (docs / FIGURES).write_text(json.dumps(figures, indent=1) + "\n")
    plot(rows, growth, docs / PLOT)
    page = docs / PAGE
    text = page.read_text()
    for name, block in (("table", table(rows)), ("growth", growth_table(growth))):
        text = with_block(text, name, block)
    page.write_text(text)


def write_interfaces(figures: Mapping[str, Any], docs: Path) -> None:
    """Write the figures of the interfaces and their table into the docs."""
    (docs / INTERFACE_FIGURES).write_text(json.dumps(figures, indent=1) + "\n")
    page = docs / INTERFACE_PAGE
    page.write_text(with_block(page.read_text(), "interfaces", interface_table(figures["rows"])))


def with_block(text: str, name: str, block: str) -> str:
    """Return a page's text with the block after the named mark replaced."""
    before, mark, after = text.partition(f"<!-- {name} -->\n```\n")
    _, end, rest = after.partition("\n```\n")
    if not end:
        raise ValueError(f"the page has no block {name}")
    return before + mark + block + end + rest


def missed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe the missed targets."""
    return [
        f"{row['title']}: {row['ratio'][name]:.2f}x of {name}, should be {target:.2f}x"
        for row in rows
        for name, target in row["target"].items()
        if row["ratio"][name] < target
    ]


def plot(rows: Sequence[Mapping[str, Any]], growth: Mapping[str, Any], path: Path) -> None:
    """Plot the costs and their growth as SVG."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "jobcast", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    shown = [row for row in rows if row["name"] in ("burst", "steady", "many", "connect")]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 2))
    for number, row in enumerate(shown):
        for name, cost in row["cost"].items():
            place = number + (PEERS.index(name) - 1.5) * 0.2
            left.bar(place, cost, 0.18, color=COLOURS[name], label=None if number else name)
            left.text(place, cost, _short(cost), ha="center", va="bottom", fontsize=7)
    left.set_yscale("log")
    titles = ["\n".join(wrap(row["title"], 20)) for row in shown]
    left.set_xticks(range(len(shown)), titles, fontsize=7)
    left.set_ylabel("µs of the server's CPU time")
    left.legend(frameon=False)
    for title, costs in growth.items():
        sizes = [int(size) for size in costs]
        right.plot(sizes, list(costs.values()), "o-", label=f"{title} (µs)")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("clients of one job, or jobs with one client each")
    if growth:
        right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _cell(row: Mapping[str, Any], name: str) -> str:
    shown = _short(row["cost"][name])
    ratio = row["ratio"].get(name)
    if ratio is None:
        return shown
    target = row["target"].get(name)
    sign = "" if target is None else " ok" if ratio >= target else " !"
    return f"{shown} ({ratio:.3g}x{sign})"


def _short(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def _at(values: Sequence[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]
