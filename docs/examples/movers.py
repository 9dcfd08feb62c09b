"""Which titles moved most since last week?

    python docs/examples/movers.py .reelflow/gold --days 7 --ranking votes --engine polars

Reads movers: of the 7 and of the 30 days before the newest dump, the 100 titles that gained most votes (`--ranking votes`)
and the 100 whose rating changed most (`--ranking rating`).
"""

from gold import Gold, Rows, main, spark_session

columns = ["place", "tconst", "titleType", "startYear", "votes_gained", "rating_change", "averageRating"]

sql = """
    SELECT {columns} FROM {table}
    WHERE days = {days} AND ranking = '{ranking}' AND place <= {top} ORDER BY place"""


def with_duckdb(gold: Gold, days: int, ranking: str, top: int) -> Rows:
    import duckdb

    table = f"read_parquet('{gold.table('movers')}', hive_partitioning = false)"
    query = sql.format(columns=", ".join(columns), table=table, days=days, ranking=ranking, top=top)
    found = duckdb.sql(query)
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def with_pandas(gold: Gold, days: int, ranking: str, top: int) -> Rows:
    import pandas

    # The types of pyarrow keep whole numbers whole beside nulls.
    movers = pandas.read_parquet(gold.table("movers"), partitioning=None, dtype_backend="pyarrow")
    found = movers[(movers.days == days) & (movers.ranking == ranking) & (movers.place <= top)]
    rows = found.sort_values("place")[columns].to_dict("records")
    return [{name: None if pandas.isna(value) else value for name, value in row.items()} for row in rows]


def with_polars(gold: Gold, days: int, ranking: str, top: int) -> Rows:
    import polars
    from polars import col

    return (
        polars.scan_parquet(gold.table("movers"), hive_partitioning=False)
        .filter(col("place") <= top, days=days, ranking=ranking)
        .sort("place")
        .select(columns)
        .collect()
        .to_dicts()
    )


def with_spark(gold: Gold, days: int, ranking: str, top: int) -> Rows:
    spark = spark_session()
    spark.read.parquet(gold.table("movers")).createOrReplaceTempView("movers")
    query = sql.format(columns=", ".join(columns), table="movers", days=days, ranking=ranking, top=top)
    return [row.asDict() for row in spark.sql(query).collect()]


if __name__ == "__main__":
    engines = {"duckdb": with_duckdb, "pandas": with_pandas, "polars": with_polars, "spark": with_spark}
    main(__doc__, engines, days=7, ranking="votes", top=10)
