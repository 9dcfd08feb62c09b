"""The peer Spark Structured Streaming: the five tables from topics. Arguments: brokers, what goes before the dataset in
the names of the topics, chunks or rows, folder of the Avro schemas, folder for the results.

One query per topic, micro-batches of about a million rows (availableNow: to the ends of the topics, then stop). Each
joins the ratings, which were read before as a table, and appends its partial aggregates to Parquet; the partials are
merged at the end. That is its fastest form: joins of two streams keep every row in a state store, and aggregates after
them are not allowed in update mode. It is exact as long as no row comes twice or changes.
"""

import sys
from pathlib import Path

from gold import say, session
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.functions import col, explode, expr

brokers, prefix, kind, schemas, out = sys.argv[1:6]
PER_BATCH = 1_000_000 if kind == "rows" else 50
spark = session("peer-stream")
spark.sparkContext.setLogLevel("ERROR")
say("ready")


def source(reader, dataset: str, *columns: str):
    """The rows of a topic as columns. The registry's five bytes are cut off: the schema is known."""
    schema = Path(schemas, f"{dataset}.avsc").read_text()
    value = from_avro(expr("substring(value, 6)"), schema).alias("value")
    messages = reader.select(value)
    rows = messages.select(explode("value.records").alias("value")) if kind == "chunks" else messages
    return rows.select(*[col(f"value.{name}") for name in columns])


def options(dataset: str) -> dict[str, str]:
    return {
        "kafka.bootstrap.servers": brokers,
        "subscribe": f"{prefix}{dataset}",
        "startingOffsets": "earliest",
        "maxOffsetsPerTrigger": str(PER_BATCH),
    }


def table(dataset: str, *columns: str):
    return source(spark.read.format("kafka").options(**options(dataset)).load(), dataset, *columns)


def stream(dataset: str, columns: list[str], partial: str) -> None:
    """Runs a topic to its end; `partial` is the query of a micro-batch over the relation `batch`."""
    rows = source(spark.readStream.format("kafka").options(**options(dataset)).load(), dataset, *columns)

    def append(batch, _number) -> None:
        batch.createOrReplaceTempView("batch")
        batch.sparkSession.sql(partial).write.mode("append").parquet(f"{out}/partials/{dataset}")

    query = (
        rows.writeStream.foreachBatch(append)
        .trigger(availableNow=True)
        .option("checkpointLocation", f"{out}/checkpoints/{dataset}")
        .start()
    )
    query.awaitTermination()
    spark.read.parquet(f"{out}/partials/{dataset}").createOrReplaceTempView(dataset.replace(".", "_"))


ratings = table("title.ratings", "tconst", "averageRating", "numVotes").selectExpr(
    "tconst", "CAST(round(averageRating * 10) AS BIGINT) AS tenths", "CAST(numVotes AS BIGINT) AS votes"
)
ratings.cache().createOrReplaceTempView("ratings")

MOMENTS = """count(*) AS n, sum(tenths) AS s1, sum(tenths * tenths) AS s2, sum(votes) AS votes, max(tenths) AS most,
  min(tenths) AS least"""
MERGED = """sum(n) AS total_titles, sum(s1) / 10 / sum(n) AS avg_rating, sum(votes) AS total_votes,
  sqrt((sum(n) * sum(s2) - sum(s1) * sum(s1)) / nullif(sum(n) * (sum(n) - 1), 0)) / 10 AS rating_volatility,
  max(most) / 10 AS max_rating, min(least) / 10 AS min_rating"""

stream(
    "title.basics",
    ["tconst", "startYear", "runtimeMinutes", "genres"],
    f"""SELECT startYear, genres, {MOMENTS}, sum(runtimeMinutes) AS runtime, count(runtimeMinutes) AS with_runtime
    FROM batch JOIN ratings USING (tconst) GROUP BY startYear, genres""",
)
stream(
    "title.principals",
    ["tconst", "nconst"],
    "SELECT nconst, tconst, count(*) AS credits FROM batch LEFT SEMI JOIN ratings USING (tconst) GROUP BY nconst, tconst",
)
stream(
    "title.akas",
    ["titleId", "region"],
    """SELECT region, titleId, count(*) AS akas FROM batch LEFT SEMI JOIN ratings ON tconst = titleId
    WHERE region IS NOT NULL GROUP BY region, titleId""",
)
table("name.basics", "nconst", "primaryName").createOrReplaceTempView("names")

GOLD = {
    "genre_analysis": f"""SELECT genres, {MERGED}, sum(startYear * n) / sum(n) FILTER (WHERE startYear IS NOT NULL) AS avg_year
        FROM title_basics WHERE genres IS NOT NULL GROUP BY genres""",
    "decade_trends": f"""SELECT CAST(floor(startYear / 10) * 10 AS INT) AS decade, {MERGED},
        sum(runtime) / sum(with_runtime) AS avg_runtime FROM title_basics WHERE startYear IS NOT NULL GROUP BY 1""",
    "title_ratings_agg": f"""SELECT startYear, genres, {MERGED}
        FROM title_basics WHERE startYear IS NOT NULL GROUP BY startYear, genres""",
    "contributor_analysis": f"""SELECT nconst, primaryName, total_titles, total_credits, avg_rating, total_votes, rating_volatility, max_rating, min_rating FROM (
        SELECT nconst, {MERGED}, sum(credits) AS total_credits FROM (
          SELECT nconst, credits, 1 AS n, tenths AS s1, tenths * tenths AS s2, votes, tenths AS most, tenths AS least
          FROM (SELECT nconst, tconst, sum(credits) AS credits FROM title_principals GROUP BY nconst, tconst)
          JOIN ratings USING (tconst)) GROUP BY nconst) AS people LEFT JOIN names USING (nconst)""",
    "region_analysis": f"""SELECT region, {MERGED}, sum(akas) AS total_akas FROM (
        SELECT region, akas, 1 AS n, tenths AS s1, tenths * tenths AS s2, votes, tenths AS most, tenths AS least
        FROM (SELECT region, titleId AS tconst, sum(akas) AS akas FROM title_akas GROUP BY region, titleId)
        JOIN ratings USING (tconst)) GROUP BY region""",
}
for name, query in GOLD.items():
    spark.sql(query).coalesce(1).write.parquet(f"{out}/{name}.parquet")
say("done")
spark.stop()
