/**
 * The built-in gold tables. The sink computes them from the merged cubes.
 *
 * With a = rating × 10: avg_rating = Σa / 10n, and the sample standard deviation is √((n·Σa² − (Σa)²) / (n·(n − 1))) / 10,
 * which needs no difference of rounded numbers. Two of its products have 38 digits at most, which both engines hold exactly.
 */
import { builtIn } from './built-in.ts';
import { declaredTables, type GoldTable } from './gold-table.ts';

export const goldTables: readonly GoldTable[] = declaredTables(builtIn.tables);

/** Whether a table shows names of titles, which the sink reads from title.basics itself. */
export const readsTitleNames = ({ reads }: GoldTable) => reads.includes('title_names');

/** Whether a table depends on earlier versions of the rows: no single dump determines it. */
export const isOfHistory = ({ reads }: GoldTable) => reads.includes('history');
