/**
 * A Dictionary as a table `(number INTEGER, value VARCHAR)`. Numbers are dense and words are only ever added, so the
 * words that a table lacks are those from its size on.
 */
import { type DuckDBConnection, LIST, listValue, VARCHAR } from '@duckdb/node-api';
import type { Dictionary } from '../topics/dictionary.ts';

/** Adds the words of a table to an empty dictionary, under the numbers that they have in the table. */
export async function loadDictionary(
  connection: DuckDBConnection,
  table: string,
  dictionary: Dictionary,
): Promise<void> {
  const words = await connection.runAndReadAll(`SELECT value FROM ${table} ORDER BY number`);
  for (const [word] of words.getRows()) dictionary.numberOfText(String(word));
}

/**
 * Inserts the words that a table lacks.
 * @param stored how many words the table holds
 * @returns how many words it holds once the transaction commits; the dictionary may have grown further since
 */
export async function storeDictionary(
  connection: DuckDBConnection,
  table: string,
  dictionary: Dictionary,
  stored: number,
): Promise<number> {
  const { size } = dictionary;
  if (size === stored) return size;
  const words = Array.from({ length: size - stored }, (_, i) => dictionary.textOf(stored + i));
  await connection.run(
    `INSERT INTO ${table}
    SELECT ${stored} + i - 1, words[i] FROM (SELECT $1 AS words), range(1, ${words.length + 1}) AS numbers(i)`,
    [listValue(words)],
    [LIST(VARCHAR)],
  );
  return size;
}
