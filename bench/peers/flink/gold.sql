-- The five gold tables in Flink SQL. The relations ratings, basics, principals, akas and names are made by flink.ts, for
-- chunks or for rows; the results go to upsert-kafka tables of the names of the gold tables, also made there.
-- Averages and deviations come from sums of tenths: with doubles a deviation of equal ratings is not quite zero.

CREATE TEMPORARY VIEW rated AS
SELECT tconst, CAST(ROUND(averageRating * 10) AS BIGINT) AS tenths, CAST(numVotes AS BIGINT) AS votes FROM ratings;

CREATE TEMPORARY VIEW titles AS
SELECT basics.genres, basics.startYear, basics.runtimeMinutes, rated.tenths, rated.votes
FROM basics JOIN rated ON basics.tconst = rated.tconst;

CREATE TEMPORARY VIEW people AS
SELECT nconst, COUNT(*) AS n, SUM(credits) AS credits, SUM(tenths) AS s1, SUM(tenths * tenths) AS s2, SUM(votes) AS votes,
  MAX(tenths) AS most, MIN(tenths) AS least
FROM (
  SELECT principals.nconst, principals.tconst, COUNT(*) AS credits, MAX(rated.tenths) AS tenths, MAX(rated.votes) AS votes
  FROM principals JOIN rated ON principals.tconst = rated.tconst GROUP BY principals.nconst, principals.tconst)
GROUP BY nconst;

CREATE TEMPORARY VIEW regions AS
SELECT region, COUNT(*) AS n, SUM(akas) AS akas, SUM(tenths) AS s1, SUM(tenths * tenths) AS s2, SUM(votes) AS votes,
  MAX(tenths) AS most, MIN(tenths) AS least
FROM (
  SELECT akas.region, akas.titleId, COUNT(*) AS akas, MAX(rated.tenths) AS tenths, MAX(rated.votes) AS votes
  FROM akas JOIN rated ON akas.titleId = rated.tconst WHERE akas.region IS NOT NULL GROUP BY akas.region, akas.titleId)
GROUP BY region;

INSERT INTO genre_analysis
SELECT genres, COUNT(*), SUM(tenths) / 10e0 / COUNT(*), SUM(votes), AVG(CAST(startYear AS DOUBLE)),
  SQRT(CAST(COUNT(*) * SUM(tenths * tenths) - SUM(tenths) * SUM(tenths) AS DOUBLE) / NULLIF(COUNT(*) * (COUNT(*) - 1), 0)) / 10,
  MAX(tenths) / 10e0, MIN(tenths) / 10e0
FROM titles WHERE genres IS NOT NULL GROUP BY genres;

INSERT INTO decade_trends
SELECT decade, COUNT(*), SUM(tenths) / 10e0 / COUNT(*), SUM(votes), AVG(CAST(runtimeMinutes AS DOUBLE)),
  SQRT(CAST(COUNT(*) * SUM(tenths * tenths) - SUM(tenths) * SUM(tenths) AS DOUBLE) / NULLIF(COUNT(*) * (COUNT(*) - 1), 0)) / 10
FROM (SELECT startYear / 10 * 10 AS decade, tenths, votes, runtimeMinutes FROM titles WHERE startYear IS NOT NULL)
GROUP BY decade;

INSERT INTO title_ratings_agg
SELECT startYear, COALESCE(genres, '\N'), COUNT(*), SUM(tenths) / 10e0 / COUNT(*), SUM(votes),
  MAX(tenths) / 10e0, MIN(tenths) / 10e0,
  SQRT(CAST(COUNT(*) * SUM(tenths * tenths) - SUM(tenths) * SUM(tenths) AS DOUBLE) / NULLIF(COUNT(*) * (COUNT(*) - 1), 0)) / 10
FROM titles WHERE startYear IS NOT NULL GROUP BY startYear, COALESCE(genres, '\N');

INSERT INTO contributor_analysis
SELECT people.nconst, names.primaryName, n, credits, s1 / 10e0 / n, votes,
  SQRT(CAST(n * s2 - s1 * s1 AS DOUBLE) / NULLIF(n * (n - 1), 0)) / 10, most / 10e0, least / 10e0
FROM people LEFT JOIN names ON people.nconst = names.nconst;

INSERT INTO region_analysis
SELECT region, n, akas, s1 / 10e0 / n, votes,
  SQRT(CAST(n * s2 - s1 * s1 AS DOUBLE) / NULLIF(n * (n - 1), 0)) / 10, most / 10e0, least / 10e0
FROM regions;
