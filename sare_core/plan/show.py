"""A plan as its reader sees it: tables that fit a terminal, and a line for each number that is missing."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from sare_core.plan.estimate import Plan, bytes_text, si
from sare_core.plan.progress import KINDS, Progress


@dataclass(frozen=True)
class Resources:
    """What the work is done with; None: not said. tflops: a GPU's peak, 10^12/s; price: of an hour of one GPU."""

    tflops: float | None = None
    gpus: int | None = None
    price: float | None = None


def print_plan(plan: Plan, resources: Resources, console: Console, stages: dict[str, Progress] | None = None) -> None:
    """What is to do and what it takes; what there is already; then which option would fill what is missing."""
    hours = [row.hours(resources.tflops) for row in plan.rows]
    rows = [
        [
            row.stage,
            _whole(row.images),
            _whole(row.shards),
            "–" if row.flops_per_image is None else si(row.flops_per_image),
            "–" if row.flops is None else si(row.flops),
            "–" if row.disk is None else bytes_text(row.disk),
            *_time(spent, resources),
        ]
        for row, spent in zip(plan.rows, hours, strict=True)
    ]
    known = [spent for row, spent in zip(plan.rows, hours, strict=True) if spent and row.stage != "index"]
    # A stage without hours, or with the least of them, makes the sum a lower bound.
    least = any(spent is None or spent[1] for row, spent in zip(plan.rows, hours, strict=True) if row.stage != "index")
    total = (sum(spent[0] for spent in known), least) if any(spent[0] for spent in known) else None
    counted = [row.flops for row in plan.rows if row.flops is not None]
    size = bytes_text(sum(row.disk or 0 for row in plan.rows))
    rows.append(["all", "", "", "", si(sum(counted)) if counted else "–", size, *_time(total, resources)])
    columns = ["stage", "images", "shards", "FLOP/img", "FLOP", "disk", "GPU-h", "days", "cost"]
    _print_table(plan.title, columns, rows, console)
    if stages:
        console.print()
        print_states(stages, console)
    console.print()
    for line in plan.lines + _missing(plan, resources):
        console.print(line)


def print_states(stages: dict[str, Progress], console: Console) -> None:
    """What there is already: images and shards by state."""
    rows = []
    for stage, progress in stages.items():
        cells = [progress.states.get(kind, (0, 0)) for kind in KINDS]
        rows.append([stage, *(f"{images:,} ({shards:,})" if shards else "–" for shards, images in cells)])
    _print_table("what there is, in brackets: shards", ["stage", *(f"{kind}: images" for kind in KINDS)], rows, console)


def _print_table(title: str, columns: list[str], rows: list[list[str]], console: Console) -> None:
    """A row a stage, the last one in bold if it is their sum; columns that say nothing are left out."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [place for place in range(len(columns)) if {row[place] for row in rows} - {"–", ""}]
    for place in shown:
        table.add_column(columns[place], justify="right" if place else "left", no_wrap=place == 0)
    for row in rows:
        if row[0] == "all":
            table.add_section()
        table.add_row(*(row[place] for place in shown), style="bold" if row[0] == "all" else None)
    console.print(title, style="italic")  # not the table's own, which would be folded where the table is narrow
    console.print(table)


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
    unknown = [row.stage for row in plan.rows if row.hours(None) is None and row.stage != "index"]
    lines = []
    if "reconstruct" in unknown:
        lines.append("GPU-h of reconstruct: give --images-per-second (of one GPU); or the first finished shard tells.")
    if measured := [stage for stage in unknown if stage in ("caption", "evaluate")]:
        lines.append(f"GPU-h of {', '.join(measured)}: the first finished shard tells.")
    if "train" in unknown:
        lines.append("GPU-h of train: not measured.")
    if unknown and resources.tflops is None:
        lines.append("--tflops, a GPU's peak in the dtype used, gives the least that it can be (≥).")
    if resources.gpus is None:
        lines.append("days: give --gpus.")
    if resources.price is None:
        lines.append("cost: give --price, of an hour of one GPU.")
    return lines


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _amount(value: float, least: bool) -> str:
    """Three digits; `least` marks a lower bound."""
    if 0 < value < 0.005:
        return "≥0" if least else "<0.01"
    digits = 0 if value >= 99.5 else 1 if value >= 9.95 else 2
    return ("≥" if least else "") + (f"{value:,.{digits}f}" if value else "0")
