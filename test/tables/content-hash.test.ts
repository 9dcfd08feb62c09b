/** The content hash against rows that differ in one thing. */
import { createHash } from 'node:crypto';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { contentHash, contentSum, hashOfSum } from '../../tables/content-hash.ts';

const table = { key: ['id', 'name'], attributes: ['note'], measures: ['n', 'm'] };
let connection: DuckDBConnection;
let instance: DuckDBInstance;

beforeAll(async () => {
  instance = await DuckDBInstance.create(':memory:');
  connection = await instance.connect();
});
afterAll(() => {
  connection.closeSync();
  instance.closeSync();
});

const rows = ["(2, 'b', NULL, 7, 8)", "(1, 'a', '', 5, 6)", "(1, NULL, 'x', 5, -6)"];
const relation = (values: readonly string[]) =>
  `(SELECT * FROM (VALUES ${values.join(', ')}) AS rows(id, name, note, n, m))`;
const hash = (values: readonly string[]) => contentHash(connection, table, relation(values));

test('rows in any order have the same hash, and any other rows another', async () => {
  const expected = await hash(rows);
  expect(expected).toMatch(/^[0-9a-f]{64}$/);
  expect(await hash(rows.toReversed())).toBe(expected);
  const first = "(2, 'b', NULL, 7, 8)";
  const others: Record<string, readonly string[]> = {
    'a measure': rows.with(0, "(2, 'b', NULL, 7, 9)"),
    'measures that change places': rows.with(0, "(2, 'b', NULL, 8, 7)"),
    'a text in place of null': rows.with(0, "(2, 'b', '', 7, 8)"),
    'a null measure': rows.with(0, "(2, 'b', NULL, NULL, 8)"),
    'the other measure null': rows.with(0, "(2, 'b', NULL, 7, NULL)"),
    'a tab that moves': rows.with(0, "(2, 'b' || chr(9) || '-', '', 7, 8)"),
    'a row less': rows.slice(1),
    'a row twice': [...rows, first],
    'values of two rows exchanged': ["(2, 'b', NULL, 5, 6)", "(1, 'a', '', 7, 8)", rows[2] as string],
  };
  const hashes = new Map([[expected, 'the rows']]);
  for (const [name, values] of Object.entries(others)) {
    const other = await hash(values);
    expect(hashes.get(other), name).toBeUndefined();
    hashes.set(other, name);
  }
});

test('the sums of two parts add up to the sum of all rows, and no rows have a sum of 0', async () => {
  const sum = (values: readonly string[]) => contentSum(connection, table, relation(values));
  const [all, one, rest] = [await sum(rows), await sum(rows.slice(0, 1)), await sum(rows.slice(1))];
  expect({ rows: one.rows + rest.rows, hashes: one.hashes + rest.hashes }).toEqual(all);
  const none = await contentSum(connection, table, `${relation(rows)} WHERE false`);
  expect(none).toEqual({ rows: 0n, hashes: 0n });
  expect(hashOfSum(all)).toBe(await hash(rows));
});

test('the hash of an earlier manifest, over the lines in order, can still be computed', async () => {
  const lines = ['=1\t-\t=x\t5\t-6', '=1\t=a\t=\t5\t6', '=2\t=b\t-\t7\t8'];
  const expected = createHash('sha256')
    .update(`${lines.join('\n')}\n`)
    .digest('hex');
  expect(await contentHash(connection, table, relation(rows), 1)).toBe(expected);
});
