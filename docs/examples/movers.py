"""Which titles gained the most votes since last week, and how did their ratings change?

    python docs/examples/movers.py .reelflow/gold --days 7 --engine polars

Compares title_features of two snapshots: the current one, and the newest one that is so many days older. Retention must
keep that one: run the sink with a larger --keep, or pin a snapshot a week.
"""

from gold import Gold, Rows, main, spark_session

columns = ["tconst", "votes_gained", "rating_change", "averageRating"]

sql = """
    SELECT tconst, after.numVotes - before.numVotes AS votes_gained,
      round(after.averageRating - before.averageRating, 1) AS rating_change, after.averageRating
    FROM {after} AS after JOIN {before} AS before USING (tconst)
    WHERE after.numVotes > before.numVotes
    ORDER BY votes_gained DESC, tconst LIMIT {top}"""


def with_duckdb(gold: Gold, days: int, top: int) -> Rows:
    import duckdb

    def table(snapshot: str) -> str:
        return f"read_parquet('{gold.table('title_features', snapshot)}', hive_partitioning = false)"

    found = duckdb.sql(sql.format(after=table(gold.current), before=table(gold.before(days)), top=top))
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def with_pandas(gold: Gold, days: int, top: int) -> Rows:
    import pandas

    def table(snapshot: str):
        read = ["tconst", "averageRating", "numVotes"]
        return pandas.read_parquet(gold.table("title_features", snapshot), columns=read, partitioning=None)

    both = table(gold.current).merge(table(gold.before(days)), on="tconst", suffixes=("", "_before"))
    both["votes_gained"] = both.numVotes - both.numVotes_before
    both["rating_change"] = (both.averageRating - both.averageRating_before).round(1)
    gained = both[both.votes_gained > 0]
    return gained.sort_values(["votes_gained", "tconst"], ascending=[False, True])[columns].head(top).to_dict("records")


def with_polars(gold: Gold, days: int, top: int) -> Rows:
    import polars
    from polars import col

    def table(snapshot: str):
        return polars.scan_parquet(gold.table("title_features", snapshot), hive_partitioning=False)

    return (
        table(gold.current)
        .join(table(gold.before(days)), on="tconst", suffix="_before")
        .with_columns(
            votes_gained=col("numVotes") - col("numVotes_before"),
            rating_change=(col("averageRating") - col("averageRating_before")).round(1),
        )
        .filter(col("votes_gained") > 0)
        .sort("votes_gained", "tconst", descending=[True, False])
        .select(columns)
        .head(top)
        .collect()
        .to_dicts()
    )


def with_spark(gold: Gold, days: int, top: int) -> Rows:
    spark = spark_session()
    for name, snapshot in {"after": gold.current, "before": gold.before(days)}.items():
        spark.read.parquet(gold.table("title_features", snapshot)).createOrReplaceTempView(f"{name}_week")
    found = spark.sql(sql.format(after="after_week", before="before_week", top=top))
    return [row.asDict() for row in found.collect()]


if __name__ == "__main__":
    engines = {"duckdb": with_duckdb, "pandas": with_pandas, "polars": with_polars, "spark": with_spark}
    main(__doc__, engines, days=7, top=10)
