/**
 * Files as downloads, archives and other programs leave them: each is read to its last byte, or refused with an error
 * that says what it is. Method: small files on disk, opened and read as a replay does.
 */
import { execFileSync } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deflateRawSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { datasetOf } from '../../producers/file-names.ts';
import { openInputs } from '../../producers/input-files.ts';
import { bytesOf } from '../../runtime/file-bytes.ts';
import { failureOf } from '../support/failure.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const header = 'tconst\taverageRating\tnumVotes\n';
const row = (n: number) => `tt${String(n).padStart(7, '0')}\t5.5\t${n}\n`;
const rows = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, n) => row(from + n)).join('');
const text = header + rows(0, 60_000);
const half = header.length + 30_000 * row(0).length - 7;
const [first, second] = [Buffer.from(text.slice(0, half)), Buffer.from(text.slice(half))];

async function read(content: string | Buffer, name = 'title.ratings.tsv.gz'): Promise<string> {
  const { files } = await openInputs([join(temporaryFolder({ [name]: content }), name)]);
  const pieces: Buffer[] = [];
  for (const file of files) for await (const bytes of bytesOf(file)) pieces.push(Buffer.from(bytes));
  return Buffer.concat(pieces).toString();
}

describe('every byte of a file is read', () => {
  it.each([
    ['one gzip member', gzipSync(text)],
    ['several members', Buffer.concat([gzipSync(first), gzipSync(second)])],
    ['an empty member in between', Buffer.concat([gzipSync(first), gzipSync(''), gzipSync(second)])],
    ['a zero byte between members', Buffer.concat([gzipSync(first), Buffer.alloc(1), gzipSync(second)])],
    [
      'many zero bytes between members',
      Buffer.concat([gzipSync(first), Buffer.alloc(300_000), gzipSync(second)]),
    ],
    ['zero bytes at the end', Buffer.concat([gzipSync(text), Buffer.alloc(1_000)])],
    ['text under a name of gzip', Buffer.from(text)],
  ])('%s', async (_, content) => {
    expect(await read(content)).toBe(text);
  });

  it('gzip under a name of text', async () => {
    expect(await read(gzipSync(text), 'title.ratings.tsv')).toBe(text);
  });

  it.each([
    ['text behind the gzip data', Buffer.concat([gzipSync(text), Buffer.from('more')])],
    ['text behind zero bytes', Buffer.concat([gzipSync(text), Buffer.alloc(9), Buffer.from('more')])],
    ['a lone first byte of a member', Buffer.concat([gzipSync(text), Buffer.of(0x1f)])],
    ['a member that is cut', Buffer.concat([gzipSync(first), gzipSync(second).subarray(0, -9)])],
    ['a checksum that is cut', gzipSync(text).subarray(0, -2)],
    ['a wrong checksum', Buffer.concat([gzipSync(text).subarray(0, -8), Buffer.alloc(8, 7)])],
    ['a second member without its header', Buffer.concat([gzipSync(first), deflateRawSync(second)])],
  ])('%s is an error', async (_, content) => {
    await expect(read(content)).rejects.toThrow();
  });

  it('a file that grows while it is read is an error', async () => {
    const path = join(temporaryFolder({ 'title.ratings.tsv': text }), 'title.ratings.tsv');
    const { files } = await openInputs([path]);
    await appendFile(path, row(1));
    const [file] = files;
    const drained = async () => {
      for await (const _ of bytesOf(file as NonNullable<typeof file>));
    };
    await expect(drained()).rejects.toThrow('size changed');
  });
});

describe('a file of another format is refused by its content', () => {
  const page = '<!DOCTYPE html>\n<html><title>Sign in</title></html>\n';
  const utf16 = Buffer.from(`\uFEFF${text.slice(0, 200)}`, 'utf16le');
  /** As tar writes it: name, numbers, and its mark at a fixed place. */
  const tar = (name: string) => {
    const head = Buffer.alloc(512);
    head.write(name);
    head.write('0000644\0', 100);
    head.write('ustar\x0000', 257);
    return Buffer.concat([head, Buffer.from(text)]);
  };
  it.each<[name: string, content: string | Buffer, what: string]>([
    ['a ZIP archive', Buffer.from('504b03041400000008', 'hex'), 'ZIP'],
    ['an HTML page', page, 'HTML'],
    ['an HTML page after a byte order mark and white space', `\uFEFF\n ${page}`, 'HTML'],
    ['an HTML page in gzip', gzipSync(page), 'HTML'],
    ['UTF-16', utf16, 'UTF-16'],
    ['UTF-16, big end first', Buffer.from(utf16).swap16(), 'UTF-16'],
    ['UTF-16 without a mark', utf16.subarray(2), 'UTF-16'],
    ['UTF-16 in gzip', gzipSync(utf16), 'UTF-16'],
    ['zero bytes', Buffer.alloc(4_096), 'not text'],
    ['a tar archive', tar('imdb/title.ratings.tsv'), 'a tar archive'],
    ['a tar archive with a long name', tar(`imdb/${'a'.repeat(90)}`), 'a tar archive'],
    ['a tar archive in gzip', gzipSync(tar('imdb/title.ratings.tsv')), 'a tar archive'],
    ['gzip in gzip', gzipSync(gzipSync(text)), 'twice'],
    ['zstd', Buffer.from('28b52ffd04', 'hex'), 'zstd'],
    ['a Git LFS pointer', 'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'LFS'],
  ])('%s', async (_, content, what) => {
    for (const name of ['title.ratings.tsv', 'title.ratings.tsv.gz']) {
      const failure = await failureOf(read(content, name));
      expect(failure.kind).toBe('input');
      expect(failure.message).toContain(what);
      expect(failure.hint).not.toBe('');
    }
  });

  it('a file whose lines end with carriage returns alone, and one that lacks several columns', async () => {
    const name = 'title.ratings.tsv';
    const failure = await failureOf(read(text.replaceAll('\n', '\r'), name));
    expect(failure).toMatchObject({ kind: 'input', hint: expect.stringContaining('tr ') });
    expect(failure.message).toMatch(/ends its lines with carriage returns alone$/);
    expect(await read(text.replaceAll('\n', '\r\n'), name)).toContain('\r\n');
    expect((await failureOf(read('tconst\n', name))).message).toMatch(/lacks the columns averageRating, /);
    expect((await failureOf(read('tconst\taverageRating\n', name))).message).toMatch(/lacks the column numV/);
  });

  it('a loop of links, and a file in place of a folder, are not a matter of permissions', async () => {
    const folder = temporaryFolder({ 'title.ratings.tsv': text });
    const loop = join(folder, 'title.basics.tsv');
    symlinkSync(loop, loop);
    expect((await failureOf(openInputs([loop]))).hint).toBe(
      'Check its links, which lead back to themselves.',
    );
    const below = join(folder, 'title.ratings.tsv', 'title.basics.tsv');
    expect((await failureOf(openInputs([below]))).hint).toMatch(/^Check its path, of which a part is a file/);
  });

  it('a pipe is refused at once', async () => {
    const path = join(temporaryFolder(), 'title.ratings.tsv');
    execFileSync('mkfifo', [path]);
    expect(await failureOf(openInputs([path]))).toMatchObject({
      kind: 'input',
      message: expect.stringContaining('is a pipe'),
    });
  });

  it.each(['title.ratings.tsv.zip', 'title.ratings.csv', 'title_ratings.parquet'])(
    'the error for a missing dataset names %s',
    async (name) => {
      const files = { [name]: 'x', 'title.basics.tsv': header };
      const failure = await failureOf(openInputs([temporaryFolder(files)]));
      expect(failure.message).toContain('title.ratings not found');
      expect(failure.detail).toContain(`Found ${name}`);
    },
  );
});

describe('the name of a dataset', () => {
  it.each([
    ['title.ratings.tsv', 'title.ratings'],
    ['a/b/title.ratings.tsv.gz', 'title.ratings'],
    ['title_ratings.tsv', 'title.ratings'],
    ['title.ratings (1).tsv.gz', 'title.ratings'],
    ['title.ratings.tsv (2).gz', 'title.ratings'],
    ['TITLE.RATINGS.TSV', 'title.ratings'],
    ['title.ratings.tsv/data.tsv', 'title.ratings'],
    ['title.ratings/data.tsv.gz', 'title.ratings'],
    ['title.ratings.tsv/title.ratings.tsv', 'title.ratings'],
    ['name.basics.tsv/data.tsv', 'name.basics'],
    ['data.tsv', undefined],
    ['title.ratings.csv', undefined],
    ['title.ratings.tsv.zip', undefined],
    ['title.ratings.tsv.gz.part', undefined],
    ['my.title.ratings.tsv', undefined],
  ])('%s: %s', (path, dataset) => expect(datasetOf(path)).toBe(dataset));

  it('may be that of the folder, as Kaggle unpacks it', async () => {
    const basics =
      'tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres\n';
    const path = temporaryFolder({
      'title.ratings.tsv/data.tsv': text,
      'title.basics.tsv/title.basics.tsv': basics,
    });
    const { files } = await openInputs([path]);
    expect(files.map(({ dataset, size }) => [dataset, size])).toEqual([
      ['title.ratings', text.length],
      ['title.basics', basics.length],
    ]);
  });
});

it('a folder that is named after a dataset and lacks its file is named as that', async () => {
  const folder = temporaryFolder({ 'title.ratings.tsv/.keep': '' });
  expect(await failureOf(openInputs([folder], ['title.ratings']))).toMatchObject({
    detail: expect.stringMatching(/ Found the folder title\.ratings\.tsv without the file\.$/),
    hint: 'Put the file into its folder.',
  });
});

describe('a folder that lacks a dataset is refused, and the hint says how to replay what it has', () => {
  const akas = 'title.akas.tsv';
  const folder = temporaryFolder({ [akas]: 'titleId\tordering\ttitle\n' });

  it('by a name for each file', async () => {
    expect(await failureOf(openInputs([folder]))).toMatchObject({
      message: expect.stringContaining('title.ratings and title.basics not found in'),
      detail: expect.stringMatching(/ Found title\.akas\.tsv\.$/),
      hint: 'Add the files. To replay only the datasets that are there, name their files instead of the directory.',
    });
  });

  it.each([
    ['a folder', folder],
    ['named files', join(folder, akas)],
  ])('by --datasets, of %s', async (_, input) => {
    const { detail, hint } = await failureOf(openInputs([input], ['title.akas', 'title.crew']));
    expect(detail).toMatch(/ Found title\.akas\.tsv\.$/);
    expect(hint).toBe('Add the files, or leave title.crew out of --datasets.');
  });
});
