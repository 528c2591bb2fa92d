"""A plan as its reader sees it: a table that fits a terminal, and a line for each number that is missing."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from sare_core.plan.estimate import Plan, bytes_text, si

COLUMNS = ("stage", "images", "shards", "FLOP/img", "FLOP", "disk", "GPU-h", "days", "cost")


@dataclass(frozen=True)
class Resources:
    """What the work is done with; None: not said. tflops: a GPU's peak, 10^12/s; price: of an hour of one GPU."""

    tflops: float | None = None
    gpus: int | None = None
    price: float | None = None


def print_plan(plan: Plan, resources: Resources, console: Console) -> None:
    """What is to do and what it takes, then which option would fill in what is missing."""
    hours = {row.stage: row.hours(resources.tflops) for row in plan.rows}
    rows = [
        [
            row.stage,
            *("–" if value is None else f"{value:,}" for value in (row.images, row.shards)),
            *("–" if value is None else si(value) for value in (row.flops_per_image, row.flops)),
            "–" if row.disk is None else bytes_text(row.disk),
            *_time(hours[row.stage], resources),
        ]
        for row in plan.rows
    ]
    spent = [value for stage, value in hours.items() if stage != "index"]  # which takes no GPU
    # A stage without hours, or with the least of them, makes the sum a lower bound.
    total = sum(value[0] for value in spent if value), any(value is None or value[1] for value in spent)
    counted = [row.flops for row in plan.rows if row.flops is not None]
    size = bytes_text(sum(row.disk or 0 for row in plan.rows))
    rows.append(
        ["all", "", "", "", si(sum(counted)) if counted else "–", size, *_time(total if total[0] else None, resources)]
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [place for place in range(len(COLUMNS)) if {row[place] for row in rows} - {"–", ""}]
    for place in shown:
        table.add_column(COLUMNS[place], justify="right" if place else "left", no_wrap=place == 0)
    for row in rows:
        if row[0] == "all":
            table.add_section()
        table.add_row(*(row[place] for place in shown), style="bold" if row[0] == "all" else None)
    console.print(plan.title, style="italic")  # not the table's own, which would be folded where the table is narrow
    console.print(table)
    console.print()
    for line in plan.lines + _missing(plan, resources):
        console.print(line)


def _time(spent: tuple[float, bool] | None, resources: Resources) -> list[str]:
    """GPU-hours, days of wall clock and cost."""
    if spent is None:
        return ["–"] * 3
    hours, least = spent
    days = hours / resources.gpus / 24 if resources.gpus else None
    cost = hours * resources.price if resources.price is not None else None
    return ["–" if value is None else _amount(value, least) for value in (hours, days, cost)]


def _missing(plan: Plan, resources: Resources) -> list[str]:
    """Which option, or what else, gives each number that is not there."""
    unknown = {row.stage for row in plan.rows if row.hours(None) is None} - {"index"}
    measured = ", ".join(stage for stage in ("caption", "evaluate") if stage in unknown)
    said = {
        "GPU-h of reconstruct: give --images-per-second (of one GPU); the first finished shard tells it, too.": (
            "reconstruct" in unknown
        ),
        f"GPU-h of {measured}: the first finished shard tells.": bool(measured),
        "GPU-h of train: not measured.": "train" in unknown,
        "For a lower bound (≥) give --tflops, a GPU's peak in the dtype used.": unknown and resources.tflops is None,
        "For days give --gpus.": resources.gpus is None,
        "For the cost give --price, of an hour of one GPU.": resources.price is None,
    }
    return [line for line, missing in said.items() if missing]


def _amount(value: float, least: bool) -> str:
    """Three digits; `least` marks a lower bound."""
    if 0 < value < 0.005:
        return "≥0" if least else "<0.01"
    digits = 0 if value >= 99.5 else 1 if value >= 9.95 else 2
    return ("≥" if least else "") + (f"{value:,.{digits}f}" if value else "0")
