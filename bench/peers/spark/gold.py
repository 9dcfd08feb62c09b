"""What both Spark peers share: a session for two cores, and the queries of gold.sql."""

import re
import sys
from pathlib import Path

from pyspark.sql import SparkSession

HERE = Path(__file__).parent


def session(name: str) -> SparkSession:
    """Local mode: one JVM with two task slots, so nothing is sent between executors. Four shuffle partitions, as the
    200 of the default are for clusters; Kryo and Arrow play no part, as no row enters Python."""
    return (
        SparkSession.builder.master("local[2]")
        .appName(name)
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )


def queries() -> dict[str, str]:
    text = (HERE.parent / "gold.sql").read_text()
    return {table: query.strip() for table, query in re.findall(r"-- (\w+)\n(SELECT.*?);", text, re.S)}


def say(word: str) -> None:
    print(word, flush=True)


def write(spark: SparkSession, out: str) -> None:
    for table, query in queries().items():
        spark.sql(query).coalesce(1).write.parquet(f"{out}/{table}.parquet")
    sys.stdout.flush()
