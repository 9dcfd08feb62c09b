/** The mean and the deviation of the columns that a gold table standardises, from exact sums of its integer form. */

/**
 * A SELECT of one row for each column: its name, the number of known values, their mean and their sample standard
 * deviation. The mean of no values and the deviation of fewer than two are null.
 */
export function scalesOf(columns: readonly string[], relation: string): string {
  return columns
    .map(
      (column) => `
      SELECT '${column}' AS name, n AS known, s1::DOUBLE / nullif(n, 0) AS mean,
        CASE WHEN n > 1 THEN sqrt((n::HUGEINT * s2 - s1 * s1)::DOUBLE / (n::DOUBLE * (n - 1))) END AS deviation
      FROM (
        SELECT count(${column}) AS n, sum(${column})::HUGEINT AS s1, sum(${column}::BIGINT * ${column})::HUGEINT AS s2
        FROM ${relation}
      )`,
    )
    .join(' UNION ALL ');
}
