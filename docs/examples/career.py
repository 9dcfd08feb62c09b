"""What has a person achieved, and where does that place the person among all people?

    python docs/examples/career.py .reelflow/gold --person nm0000151 --engine polars

Reads contributor_analysis, one row per person with a credit on a rated title. Ranks count from 1; people with equal figures
share a rank.
"""

from gold import Gold, Rows, main, spark_session

columns = ["nconst", "primaryName", "total_titles", "total_votes", "avg_rating", "votes_rank", "titles_rank", "people"]

sql = """
    SELECT {columns} FROM (
      SELECT *, rank() OVER (ORDER BY total_votes DESC) AS votes_rank,
        rank() OVER (ORDER BY total_titles DESC) AS titles_rank, count(*) OVER () AS people
      FROM {table}
    ) AS ranked WHERE nconst = '{person}' OR primaryName = '{person}' ORDER BY nconst"""


def with_duckdb(gold: Gold, person: str) -> Rows:
    import duckdb

    table = f"read_parquet('{gold.table('contributor_analysis')}', hive_partitioning = false)"
    found = duckdb.sql(sql.format(columns=", ".join(columns), table=table, person=person.replace("'", "''")))
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def with_pandas(gold: Gold, person: str) -> Rows:
    import pandas

    people = pandas.read_parquet(gold.table("contributor_analysis"), partitioning=None)
    people["people"] = len(people)
    for figure in ["votes", "titles"]:
        ranks = people[f"total_{figure}"].rank(method="min", ascending=False)
        people[f"{figure}_rank"] = ranks.astype(int)
    found = people[(people.nconst == person) | (people.primaryName == person)]
    return found.sort_values("nconst")[columns].to_dict("records")


def with_polars(gold: Gold, person: str) -> Rows:
    import polars
    from polars import col

    return (
        polars.scan_parquet(gold.table("contributor_analysis"), hive_partitioning=False)
        .with_columns(
            votes_rank=col("total_votes").rank("min", descending=True),
            titles_rank=col("total_titles").rank("min", descending=True),
            people=polars.len(),
        )
        .filter((col("nconst") == person) | (col("primaryName") == person))
        .sort("nconst")
        .select(columns)
        .collect()
        .to_dicts()
    )


def with_spark(gold: Gold, person: str) -> Rows:
    spark = spark_session()
    spark.read.parquet(gold.table("contributor_analysis")).createOrReplaceTempView("contributor_analysis")
    text = person.replace("\\", "\\\\").replace("'", "\\'")
    found = spark.sql(sql.format(columns=", ".join(columns), table="contributor_analysis", person=text))
    return [row.asDict() for row in found.collect()]


if __name__ == "__main__":
    engines = {"duckdb": with_duckdb, "pandas": with_pandas, "polars": with_polars, "spark": with_spark}
    main(__doc__, engines, person="nm0000151")
