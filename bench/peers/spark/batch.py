"""The peer PySpark batch: the five tables from the files. Arguments: folder of the files, folder for the results.

Set up as for two cores: declared schemas (no inference pass), only the columns that are needed, ratings and the titles
that have one cached, as four of five queries use them; adaptive execution broadcasts what is small.
"""

import sys

from gold import say, session, write

data, out = sys.argv[1:3]
spark = session("peer-batch")
spark.sparkContext.setLogLevel("ERROR")
say("ready")


def rows(dataset: str, schema: str):
    return spark.read.csv(
        f"{data}/{dataset}.tsv", schema=schema, sep="\t", header=True, quote="", escape="", nullValue="\\N",
        enforceSchema=True,
    )


ratings = rows("title.ratings", "tconst STRING, rating DOUBLE, votes BIGINT").cache()
ratings.createOrReplaceTempView("ratings")
basics = rows(
    "title.basics",
    "tconst STRING, titleType STRING, primaryTitle STRING, originalTitle STRING, isAdult STRING, startYear INT,"
    " endYear INT, runtimeMinutes INT, genres STRING",
).select("tconst", "startYear", "runtimeMinutes", "genres")
basics.join(ratings, "tconst").cache().createOrReplaceTempView("titles")
rows(
    "title.principals",
    "tconst STRING, ordering INT, nconst STRING, category STRING, job STRING, characters STRING",
).select("tconst", "nconst").createOrReplaceTempView("credits")
rows(
    "title.akas",
    "titleId STRING, ordering INT, title STRING, region STRING, language STRING, types STRING, attributes STRING,"
    " isOriginalTitle STRING",
).select("titleId", "region").createOrReplaceTempView("akas")
rows(
    "name.basics",
    "nconst STRING, primaryName STRING, birthYear INT, deathYear INT, primaryProfession STRING, knownForTitles STRING",
).select("nconst", "primaryName").createOrReplaceTempView("names")

write(spark, out)
say("done")
spark.stop()
