"""How did a series do, season by season?

    python docs/examples/seasons.py .reelflow/gold --series tt0903747 --engine polars

Reads seasons, one row per series and season with rated episodes. `change` is the mean rating less that of the season before.
Episodes that have no number of a season do not count.
"""

from gold import Gold, Rows, main, spark_session

columns = ["seasonNumber", "total_episodes", "avg_rating", "change", "best_episode", "best_rating", "total_votes"]

sql = """
    SELECT {columns} FROM (
      SELECT *, avg_rating - lag(avg_rating) OVER (ORDER BY seasonNumber) AS change
      FROM {table} WHERE parentTconst = '{series}' AND seasonNumber IS NOT NULL
    ) AS changes ORDER BY seasonNumber"""


def with_duckdb(gold: Gold, series: str) -> Rows:
    import duckdb

    table = f"read_parquet('{gold.table('seasons')}', hive_partitioning = false)"
    found = duckdb.sql(sql.format(columns=", ".join(columns), table=table, series=series.replace("'", "''")))
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def with_pandas(gold: Gold, series: str) -> Rows:
    import pandas

    # The types of pyarrow keep whole numbers whole beside nulls.
    seasons = pandas.read_parquet(gold.table("seasons"), partitioning=None, dtype_backend="pyarrow")
    seasons = seasons[(seasons.parentTconst == series) & seasons.seasonNumber.notna()].sort_values("seasonNumber")
    rows = seasons.assign(change=seasons.avg_rating.diff())[columns].to_dict("records")
    return [{name: None if pandas.isna(value) else value for name, value in row.items()} for row in rows]


def with_polars(gold: Gold, series: str) -> Rows:
    import polars
    from polars import col

    seasons = polars.scan_parquet(gold.table("seasons"), hive_partitioning=False)
    seasons = seasons.filter(col("seasonNumber").is_not_null(), parentTconst=series).sort("seasonNumber")
    return seasons.with_columns(change=col("avg_rating").diff()).select(columns).collect().to_dicts()


def with_spark(gold: Gold, series: str) -> Rows:
    spark = spark_session()
    spark.read.parquet(gold.table("seasons")).createOrReplaceTempView("seasons")
    text = series.replace("\\", "\\\\").replace("'", "\\'")
    found = spark.sql(sql.format(columns=", ".join(columns), table="seasons", series=text))
    return [row.asDict() for row in found.collect()]


if __name__ == "__main__":
    engines = {"duckdb": with_duckdb, "pandas": with_pandas, "polars": with_polars, "spark": with_spark}
    main(__doc__, engines, series="tt0903747")
