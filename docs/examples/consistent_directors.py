"""Which directors are the most consistent?

    python docs/examples/consistent_directors.py .reelflow/gold --titles 10 --rating 7 --engine polars

Of the directors with so many rated titles and so high a mean rating, those whose ratings vary least. Reads directors, one row
per person that title.crew names as a director of a rated title.
"""

from gold import Gold, Rows, main, spark_session

columns = ["nconst", "primaryName", "total_titles", "avg_rating", "rating_volatility"]

sql = """
    SELECT {columns} FROM {table} WHERE total_titles >= {titles} AND avg_rating >= {rating}
    ORDER BY rating_volatility, nconst LIMIT {top}"""


def with_duckdb(gold: Gold, titles: int, rating: float, top: int) -> Rows:
    import duckdb

    table = f"read_parquet('{gold.table('directors')}', hive_partitioning = false)"
    query = sql.format(columns=", ".join(columns), table=table, titles=titles, rating=rating, top=top)
    found = duckdb.sql(query)
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def with_pandas(gold: Gold, titles: int, rating: float, top: int) -> Rows:
    import pandas

    directors = pandas.read_parquet(gold.table("directors"), partitioning=None)
    directors = directors[(directors.total_titles >= titles) & (directors.avg_rating >= rating)]
    return directors.sort_values(["rating_volatility", "nconst"]).head(top)[columns].to_dict("records")


def with_polars(gold: Gold, titles: int, rating: float, top: int) -> Rows:
    import polars
    from polars import col

    directors = polars.scan_parquet(gold.table("directors"), hive_partitioning=False)
    found = directors.filter(col("total_titles") >= titles, col("avg_rating") >= rating)
    return found.sort("rating_volatility", "nconst").head(top).select(columns).collect().to_dicts()


def with_spark(gold: Gold, titles: int, rating: float, top: int) -> Rows:
    spark = spark_session()
    spark.read.parquet(gold.table("directors")).createOrReplaceTempView("directors")
    query = sql.format(columns=", ".join(columns), table="directors", titles=titles, rating=rating, top=top)
    return [row.asDict() for row in spark.sql(query).collect()]


if __name__ == "__main__":
    engines = {"duckdb": with_duckdb, "pandas": with_pandas, "polars": with_polars, "spark": with_spark}
    main(__doc__, engines, titles=10, rating=7.0, top=10)
