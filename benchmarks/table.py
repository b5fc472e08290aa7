"""Print the table of docs/speed.md from what pytest-benchmark measured: ``table.py .benchmarks/latest.json``."""

import json
import sys
from pathlib import Path
from typing import Any

UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def table(report: dict[str, Any]) -> str:
    """Format the results as a Markdown table, followed by the machine that they ran on."""
    machine, gpu = report["machine_info"], report["machine_info"].get("gpu")
    head = ["| benchmark | median | per second | ratio |", "|:---|---:|---:|:---|"]
    rows = [row(benchmark) for benchmark in report["benchmarks"]]
    where = f"One core of {machine['cpu'].get('brand_raw', machine['machine'])}, Python {machine['python_version']}."
    if gpu:  # the first call compiles kernels
        head = [head[0] + " first call |", head[1] + "---:|"]
        first = [benchmark["extra_info"].get("first_seconds") for benchmark in report["benchmarks"]]
        rows = [f"{row} {duration(one) if one else ''} |" for row, one in zip(rows, first, strict=True)]
        where = f"{gpu['name']}, {gpu['driver']}, torch {gpu['torch']}, {report['datetime'][:10]}. {where}"
    return "\n".join([*head, *rows, "", where])


def row(benchmark: dict[str, Any]) -> str:
    """Format one benchmark; without `measure`, by its name and calls per second."""
    seconds, extra = benchmark["stats"]["median"], benchmark["extra_info"]
    title = extra.get("title", benchmark["name"])
    speed = f"{rounded(extra.get('per_second', 1 / seconds))} {extra.get('unit', 'calls')}"
    ratio = extra["ratio_text"].format(rounded(extra["ratio"])) if "ratio" in extra else ""
    return f"| {title} | {duration(seconds)} | {speed} | {ratio} |"


def duration(seconds: float) -> str:
    """Format seconds with three digits and a suitable unit."""
    size, unit = next(((s, u) for s, u in UNITS if seconds >= 0.9995 * s), UNITS[-1])
    return f"{rounded(seconds / size, 3)} {unit}"


def rounded(number: float, digits: int = 2) -> str:
    """Round a number to significant digits, with commas between thousands: 12345 is 12,000."""
    shown = f"{number:.{digits - 1}e}"
    exponent = int(shown.split("e")[1])
    return f"{float(shown):,.{max(0, digits - 1 - exponent)}f}"


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
