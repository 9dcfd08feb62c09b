/** Gold against the batch computation of the verifier. */
import { withDatabase } from '../../database/duckdb.ts';
import { currentSnapshot, snapshotFolder } from '../../sinks/gold/manifest.ts';
import { compareTables, type Difference } from '../../sinks/verify/compare.ts';
import { batchGold } from '../../sinks/verify/file-gold.ts';

/** As `compareTables`. @returns the first differences of each table, [] if there are none */
export async function compareGold(...compared: Parameters<typeof compareTables>): Promise<Difference[]> {
  return (await compareTables(...compared)).flatMap(({ first }) => first);
}

/** Where the newest snapshot of a gold folder differs from a batch computation over these files. */
export function goldDifferences(gold: string, data: string): Promise<Difference[]> {
  return withDatabase(async (connection) => {
    await batchGold(connection, data, 'expected');
    return compareGold(connection, 'expected', snapshotFolder(gold, currentSnapshot(gold) ?? 'none'));
  });
}
