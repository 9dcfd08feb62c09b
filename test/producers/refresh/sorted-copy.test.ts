/** The sorted copy of a file against a sort of its lines in memory. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeEach, expect, it } from 'vitest';
import { openInputs } from '../../../producers/input-files.ts';
import { SortedCopy, type SortedCopyOptions } from '../../../producers/refresh/sorted-copy.ts';
import type { FailureKind } from '../../../runtime/errors.ts';
import { idText } from '../../../topics/catalog.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

let folder: string;

beforeEach(() => {
  folder = temporaryFolder();
});

const header = 'tconst\taverageRating\tnumVotes';
/** Ids of all lengths and several buckets, some with more than one row, and lines without an id. */
const lines = Array.from({ length: 3_000 }, (_, n) => {
  const id = ((n * 7_919) % 1_500) * 99_991;
  return n % 500 === 3 ? `stray ${n}` : `${idText('tt', id)}\t5.0\t${n}`;
});

async function copyOf(content: string | Buffer, more: Partial<SortedCopyOptions> = {}): Promise<SortedCopy> {
  const path = join(folder, `title.ratings.tsv${typeof content === 'string' ? '' : '.gz'}`);
  writeFileSync(path, content);
  const { files } = await openInputs([path], ['title.ratings']);
  return SortedCopy.of(files[0] as (typeof files)[number], { path: join(folder, 'copy'), ...more });
}

const idOf = (line: string) => (line.startsWith('tt') ? Number(line.split('\t')[0]?.slice(2)) : -1);

it.each<[string, Partial<SortedCopyOptions>, boolean]>([
  ['in one go', {}, false],
  ['spilled after each piece', { pendingBytesMax: 1 }, false],
  ['from gzip', {}, true],
])('has the rows by id, those of one id in the order of the file: %s', async (_, more, isPacked) => {
  const text = `${[header, ...lines].join('\n')}\n`;
  const copy = await copyOf(isPacked ? gzipSync(text) : text, more);
  const expected = lines
    .map((line, row) => ({ line, row, id: idOf(line) }))
    .sort((a, b) => a.id - b.id || a.row - b.row);
  expect(readFileSync(copy.file.path, 'utf8')).toBe(
    `${[header, ...expected.map(({ line }) => line)].join('\n')}\n`,
  );
  for (const [n, { row }] of expected.entries()) expect(copy.originalRow(n)).toBe(row);
  expect(copy.file.name).toContain('title.ratings');
  await copy.close();
  expect(readdirSync(folder)).toHaveLength(1);
});

it.each<[string, FailureKind, string, Partial<SortedCopyOptions>?]>([
  ['a last line without its newline', 'cutFile', `${header}\ntt0000002\t5.0\t1\ntt0000001\t5.0\t1`],
  ['a line that no message can hold', 'unsorted', `${header}\ntt0000002\t${'x'.repeat(1_500_000)}\n`],
  ['a bucket above its limit', 'unsorted', `${[header, ...lines].join('\n')}\n`, { bucketBytesMax: 20 }],
])('refuses %s and leaves nothing behind: %s', async (_, kind, text, more) => {
  await expect(copyOf(text, more)).rejects.toMatchObject({ kind });
  expect(existsSync(join(folder, 'copy'))).toBe(false);
  expect(readdirSync(folder)).toHaveLength(1);
});
