"""The table of metrics holds every step once, across a stop."""

import csv

from sbflow.callback import MetricsFile


def rows(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path):
    table = MetricsFile(tmp_path / "metrics.csv")
    for step in range(3):
        table.log_metrics({"train/loss": step / 2}, step)
        assert [row["train/loss"] for row in rows(table.file)] == [str(k / 2) for k in range(step + 1)]


def test_a_new_metric_opens_a_column_and_the_same_step_shares_a_row(tmp_path):
    table = MetricsFile(tmp_path / "metrics.csv")
    table.log_metrics({"train/loss": 1.0}, 0)
    table.log_metrics({"train/loss": 2.0}, 1)
    table.log_metrics({"val/msd": 3.0}, 1)
    assert rows(table.file) == [
        {"step": "0", "train/loss": "1.0", "val/msd": ""},
        {"step": "1", "train/loss": "2.0", "val/msd": "3.0"},
    ]


def test_a_resumed_table_equals_the_undisturbed_one(tmp_path):
    whole = MetricsFile(tmp_path / "whole.csv")
    first = MetricsFile(tmp_path / "stopped.csv")
    for step in range(8):
        whole.log_metrics({"train/loss": float(step)}, step)
        if step < 6:
            first.log_metrics({"train/loss": float(step)}, step)
    # killed after step 6, whose row was cut short; the last checkpoint is of step 4
    with first.file.open("a") as file:
        file.write("6,")
    again = MetricsFile(first.file, start=4)
    for step in range(4, 8):
        again.log_metrics({"train/loss": float(step)}, step)
    assert first.file.read_bytes() == whole.file.read_bytes()


def test_a_table_that_is_no_table_is_begun_anew(tmp_path):
    for content in (b"", b"\x00\x00", b"step\n\xff"):
        (tmp_path / "metrics.csv").write_bytes(content)
        table = MetricsFile(tmp_path / "metrics.csv", start=3)
        table.log_metrics({"train/loss": 1.0}, 3)
        assert [row["step"] for row in rows(table.file)] == ["3"]
