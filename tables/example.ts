/** The example that `reelflow tables new` writes: a complete declaration in which each line says what it is for. */
export const exampleTable = `/*
# Metadata in YAML. The name of the file is the name of the table.
kind: table
# What a row is, for readers who have only the file.
about: Rated titles by start year.
# Cubes that the SELECT reads; \`reelflow tables list\` shows all of them.
reads: [title]
# The columns that identify a row. GROUP BY them.
key: [startYear]
# Integer columns of the first SELECT. The content hash covers key and measures.
measures: [total_titles, total_votes, s1]
# Columns of the last SELECT with their types, in order: BIGINT, INTEGER, DOUBLE, VARCHAR, VARCHAR[] or BOOLEAN.
# A column that no built-in table has needs a note; its unit is optional.
columns:
  startYear: INTEGER
  total_titles: BIGINT
  votes_per_title: { type: DOUBLE, about: Mean number of votes on a title., unit: votes }
  avg_rating: DOUBLE
# The order of the rows in the file. End it with the key, so that no two rows have the same place.
order: startYear
# Charts of the report, the page and \`gold show\`: bar or line, with SQL over the columns above.
plots:
  - { title: Votes per title by year, kind: line, x: startYear, y: sum(votes_per_title) }
# A table without this line must be in the SQL that DuckDB and Flink share:
# onlyDuckdb: why only DuckDB computes it
*/
-- First integers: they give the same result in any order. A rating is stored as ten times its value.
WITH integers AS (
  SELECT startYear,
    CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(rating * titles) AS BIGINT) AS s1
  FROM title
  WHERE startYear IS NOT NULL
  GROUP BY startYear
)
-- Then fractions.
SELECT startYear, total_titles,
  total_votes / CAST(total_titles AS DOUBLE) AS votes_per_title,
  s1 / CAST(10 * total_titles AS DOUBLE) AS avg_rating
FROM integers
`;
