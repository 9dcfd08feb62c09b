"""What the examples share: the files of a gold folder, and the command line."""

import argparse
from pathlib import Path
from typing import Any, Callable

Rows = list[dict[str, Any]]


class Gold:
    """Reads CURRENT once, so all tables are of one snapshot, whatever is published meanwhile."""

    def __init__(self, folder: str | Path):
        current = (Path(folder) / "CURRENT").read_text().strip()
        self.snapshot = Path(folder).absolute() / "snapshots" / current

    def table(self, name: str) -> str:
        """The file of a table."""
        return str(self.snapshot / f"{name}.parquet")


def spark_session():
    """A Spark without a cluster, for files of one machine."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", "1").config("spark.log.level", "ERROR")
    return builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()


def main(about: str, engines: dict[str, Callable[..., Rows]], **options: Any) -> None:
    """Answers the question with the engine that the command line names, and prints the rows."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("gold", nargs="?", default=".reelflow/gold", help="the folder that holds CURRENT")
    parser.add_argument("--engine", choices=engines, default="duckdb")
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    given = parser.parse_args()
    rows = engines[given.engine](Gold(given.gold), **{name: getattr(given, name) for name in options})
    if not rows:
        print("No rows.")
        return
    cells = [list(rows[0])] + [[shown(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def shown(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
