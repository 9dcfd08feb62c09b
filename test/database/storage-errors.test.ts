/** Faults that DuckDB and the file system really report, each made for the test, become errors of their kind. */
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { beforeEach, expect, test } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { parquetFile, sqlPath } from '../../database/sql.ts';
import {
  asOpeningError,
  asStorageError,
  type Storage,
  storageFaultOf,
} from '../../database/storage-errors.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});

const storage: Storage = {
  path: '/there',
  folder: 'the state folder',
  kind: 'stateUnusable',
  unusable: 'The state cannot be used',
  hint: 'Move it away.',
};
const mapped = (thrown: unknown) => asStorageError(thrown, storage) as ReelflowError;

async function failureOf(sql: string, memoryLimit = '200MB'): Promise<unknown> {
  return withDatabase(
    async (connection) => {
      return await connection.run(sql).then(
        () => expect.unreachable(sql),
        (thrown: unknown) => thrown,
      );
    },
    ':memory:',
    {
      memory_limit: memoryLimit,
      threads: '1',
      temp_directory: '',
    },
  );
}

test('a statement that needs more memory than the limit says to raise --memory', async () => {
  const thrown = await failureOf('CREATE TABLE t AS SELECT hash(range) FROM range(10_000_000)', '20MB');
  expect(mapped(thrown)).toMatchObject({
    kind: 'stateUnusable',
    message: /memory limit/,
    hint: 'Raise --memory.',
  });
  expect(mapped(thrown).detail).not.toContain('\n');
});

test('a full disk is a full disk, whether Node or DuckDB reports it', () => {
  const ofNode = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  const ofQuota = Object.assign(new Error('EDQUOT: disk quota exceeded, write'), { code: 'EDQUOT' });
  const ofDuckdb = new Error('IO Error: Could not write file "/x": No space left on device');
  for (const thrown of [ofNode, ofQuota, ofDuckdb]) {
    expect(mapped(thrown)).toMatchObject({
      kind: 'diskFull',
      message: 'The disk under the state folder is full',
    });
  }
});

test('a folder that is missing and a file that is not a Parquet file are faults of the file', async () => {
  writeFileSync(join(folder, 'trash.parquet'), 'x'.repeat(2_000));
  for (const sql of [
    `COPY (SELECT 1) TO ${sqlPath(join(folder, 'none', 'x.parquet'))} (FORMAT parquet)`,
    `FROM ${parquetFile(join(folder, 'trash.parquet'))}`,
  ]) {
    expect(storageFaultOf(await failureOf(sql))).toBe('file');
  }
});

test('a path that cannot be written has another hint than a damaged file', async () => {
  writeFileSync(join(folder, 'file'), 'x'.repeat(20_000));
  const opened = (path: string) => DuckDBInstance.create(path).catch((thrown: unknown) => thrown);
  const hintOf = (thrown: unknown) =>
    (asStorageError(thrown, { ...storage, hintWhenDenied: 'Name another.' }) as ReelflowError).hint;
  const denied = [
    await mkdir(join(folder, 'file', 'x')).catch((thrown: unknown) => thrown),
    await opened(join(folder, 'file', 'x')),
    Object.assign(new Error("EROFS: read-only file system, mkdir '/x'"), { code: 'EROFS' }),
    new Error('IO Error: Cannot open file "/x": Read-only file system'),
  ];
  expect(denied.map(hintOf)).toEqual(denied.map(() => 'Name another.'));
  expect(hintOf(await opened(join(folder, 'file')))).toBe(storage.hint);
});

test('a database that another process holds is busy', () => {
  const held = new Error(
    'IO Error: Could not set lock on file "/x": Conflicting lock is held in node (PID 1)',
  );
  const busy = { what: 'Another sink holds it', hint: 'End it.' };
  expect(asStorageError(held, { ...storage, busy })).toMatchObject({ kind: 'busy', message: busy.what });
  expect(mapped(held)).toMatchObject({ kind: 'stateUnusable' });
});

test('what the storage has not caused stays as it is', () => {
  const refused = new ReelflowError('deltaRefused', 'No');
  for (const thrown of [
    refused,
    new TypeError('x is not a function'),
    new Error('Binder Error: no column x'),
  ]) {
    expect(asStorageError(thrown, storage)).toBe(thrown);
  }
});

// Method: the number of the format in the header of a real file, and the header's checksum as DuckDB computes it.
test('a database of another format is not called damaged', async () => {
  const path = join(folder, 'newer.duckdb');
  (await DuckDBInstance.create(path)).closeSync();
  const bytes = readFileSync(path);
  bytes.writeUInt32LE(99, 12);
  let checksum = 5381n;
  for (let at = 8; at < 4096; at += 8)
    checksum ^= BigInt.asUintN(64, bytes.readBigUInt64LE(at) * 0xbf58476d1ce4e5b9n);
  bytes.writeBigUInt64LE(checksum, 0);
  writeFileSync(path, bytes);
  const thrown = await DuckDBInstance.create(path).catch((error: unknown) => error);
  expect(asOpeningError(thrown, storage)).toMatchObject({
    kind: 'stateUnusable',
    message: 'A database was written by another version of DuckDB',
    detail: expect.stringContaining('version number 99'),
    hint: expect.stringContaining('Use the version of reelflow'),
  });
});

test('while a file is opened every error of DuckDB is about the file, and no defect is', async () => {
  const path = join(folder, 'trash.duckdb');
  writeFileSync(path, 'x'.repeat(20_000));
  const thrown = await DuckDBInstance.create(path).catch((error: unknown) => error);
  for (const error of [thrown, new Error('Catalog Error: Table meta does not exist')]) {
    expect(asOpeningError(error, storage)).toMatchObject({ kind: 'stateUnusable' });
  }
  const defect = new TypeError('x is not a function');
  expect(asOpeningError(defect, storage)).toBe(defect);
});
