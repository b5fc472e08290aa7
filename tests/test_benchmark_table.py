"""The table of speeds that `make bench` prints for docs/speed.md."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import table

MACHINE = {"cpu": {"brand_raw": "Abacus 9"}, "machine": "x86_64", "python_version": "3.11.7"}


def entry(median: float, **extra: Any) -> dict[str, Any]:
    return {"name": "test_it[12]", "stats": {"median": median}, "extra_info": extra}


def test_a_table_has_a_row_for_each_benchmark_and_names_the_machine() -> None:
    compared = {"ratio": 23.456, "ratio_text": "{} × as fast as the old one"}
    rows = [
        entry(0.0125, title="sampling", unit="scenes", per_second=40960.0, **compared),
        entry(2.0, title="rendering", unit="digits", per_second=1290.0),
        entry(0.25),
    ]
    assert table.table({"benchmarks": rows, "machine_info": MACHINE}).splitlines() == [
        "| benchmark | median | per second | ratio |",
        "|:---|---:|---:|:---|",
        "| sampling | 12.5 ms | 41,000 scenes | 23 × as fast as the old one |",
        "| rendering | 2.00 s | 1,300 digits |  |",
        "| test_it[12] | 250 ms | 4.0 calls |  |",
        "",
        "One core of Abacus 9, Python 3.11.7.",
    ]


def test_a_gpu_is_named_with_driver_and_date_and_first_calls_are_stated() -> None:
    gpu = {"name": "Abacus X", "driver": "driver 1.2", "torch": "2.9"}
    report = {
        "benchmarks": [entry(0.0125, title="sampling", unit="scenes", per_second=40960.0, first_seconds=3.0)],
        "machine_info": MACHINE | {"gpu": gpu},
        "datetime": "2026-01-02T03:04:05",
    }
    assert table.table(report).splitlines() == [
        "| benchmark | median | per second | ratio | first call |",
        "|:---|---:|---:|:---|---:|",
        "| sampling | 12.5 ms | 41,000 scenes |  | 3.00 s |",
        "",
        "Abacus X, driver 1.2, torch 2.9, 2026-01-02. One core of Abacus 9, Python 3.11.7.",
    ]


def test_a_machine_without_the_name_of_its_processor_is_named_by_its_kind() -> None:
    text = table.table({"benchmarks": [], "machine_info": MACHINE | {"cpu": {}}})
    assert text.endswith("One core of x86_64, Python 3.11.7.")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (123.4, "123 s"),
        (1, "1.00 s"),
        (0.9996, "1.00 s"),
        (0.9994, "999 ms"),
        (3.21e-5, "32.1 µs"),
        (5e-10, "0.500 ns"),
    ],
)
def test_durations_have_three_digits_and_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert table.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(12345, "12,000"), (99.6, "100"), (9.96, "10"), (1.234, "1.2"), (0.1234, "0.12"), (0.00126, "0.0013"), (0, "0.0")],
)
def test_numbers_have_two_digits(number: float, text: str) -> None:
    assert table.rounded(number) == text
