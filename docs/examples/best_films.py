"""Which films of a decade are the best, if few votes count less?

    python docs/examples/best_films.py .reelflow/gold --decade 1990 --engine polars

The weighted rating of a film with v votes and the rating R is v/(v+m)·R + m/(v+m)·C: it moves from C, the mean rating of
all films, towards R as votes arrive, and is halfway at m votes. Reads title_features, one row per rated title.
"""

from gold import Gold, Rows, main, spark_session

columns = ["tconst", "startYear", "averageRating", "numVotes", "weighted_rating"]

sql = """
    WITH films AS (SELECT *, avg(averageRating) OVER () AS mean FROM {table} WHERE titleType = 'movie')
    SELECT tconst, startYear, averageRating, numVotes,
      (numVotes * averageRating + {halfway} * mean) / (numVotes + {halfway}) AS weighted_rating
    FROM films WHERE startYear BETWEEN {decade} AND {decade} + 9
    ORDER BY weighted_rating DESC, tconst LIMIT {top}"""


def with_duckdb(gold: Gold, decade: int, halfway: int, top: int) -> Rows:
    import duckdb

    table = f"read_parquet('{gold.table('title_features')}', hive_partitioning = false)"
    found = duckdb.sql(sql.format(table=table, decade=decade, halfway=halfway, top=top))
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def with_pandas(gold: Gold, decade: int, halfway: int, top: int) -> Rows:
    import pandas

    films = pandas.read_parquet(gold.table("title_features"), partitioning=None).query("titleType == 'movie'")
    prior = halfway * films.averageRating.mean()
    films["weighted_rating"] = (films.numVotes * films.averageRating + prior) / (films.numVotes + halfway)
    films = films[films.startYear.between(decade, decade + 9)].astype({"startYear": int})
    best = films.sort_values(["weighted_rating", "tconst"], ascending=[False, True]).head(top)
    return best[columns].to_dict("records")


def with_polars(gold: Gold, decade: int, halfway: int, top: int) -> Rows:
    import polars
    from polars import col

    films = polars.scan_parquet(gold.table("title_features"), hive_partitioning=False).filter(titleType="movie")
    prior = halfway * col("averageRating").mean()
    weighted = (col("numVotes") * col("averageRating") + prior) / (col("numVotes") + halfway)
    best = (
        films.with_columns(weighted_rating=weighted)
        .filter(col("startYear").is_between(decade, decade + 9))
        .sort("weighted_rating", "tconst", descending=[True, False])
        .head(top)
    )
    return best.select(columns).collect().to_dicts()


def with_spark(gold: Gold, decade: int, halfway: int, top: int) -> Rows:
    spark = spark_session()
    spark.read.parquet(gold.table("title_features")).createOrReplaceTempView("title_features")
    found = spark.sql(sql.format(table="title_features", decade=decade, halfway=halfway, top=top))
    return [row.asDict() for row in found.collect()]


if __name__ == "__main__":
    engines = {"duckdb": with_duckdb, "pandas": with_pandas, "polars": with_polars, "spark": with_spark}
    main(__doc__, engines, decade=1990, halfway=25_000, top=10)
