/** Documents against the tree: the files, tests and symbols that they name exist. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { projectTexts } from './prose.ts';

const root = join(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const texts = projectTexts();
const documents = [...texts.keys()].filter((path) => path.endsWith('.md') && !path.startsWith('.github/'));

test.each(documents)('the files that %s names exist', (document) => {
  const text = read(document);
  const inCode = [...text.matchAll(/`([\w.-]+(?:\/[\w.@-]+)+\.(?:ts|js|py|md|yml|yaml|json|avsc))`/g)].map(
    ([, path]) => path as string,
  );
  const linked = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path]) =>
    join(document, '..', path as string),
  );
  const known = [...texts.keys()];
  const missing = [
    ...inCode.filter(
      (path) => !existsSync(join(root, path)) && !known.some((one) => one.endsWith(`/${path}`)),
    ),
    ...linked.filter((path) => !existsSync(join(root, path))),
  ];
  expect(missing).toEqual([]);
});

test('no document names a line number of a source', () => {
  const found = documents.filter((path) => /\b[\w-]+\.(?:ts|js):\d+/.test(read(path)));
  expect(found).toEqual([]);
});

describe('the invariants of DESIGN.md', () => {
  const items = read('DESIGN.md').matchAll(/^- (E\d+): .*?\n {2}By (.*?)\.\sTests:\s(.*?)\.$/gms);
  const rows = [...items].map(([, id, enforcedBy = '', tests = '']) => ({
    id,
    enforcedBy,
    tests: tests.replace(/\s+/g, ' '),
  }));
  const sources = [...texts].filter(([path]) => path.endsWith('.ts') && !path.startsWith('test/'));

  test('have consecutive numbers', () => {
    expect(rows.length).toBeGreaterThan(40);
    expect(rows.map(({ id }) => id)).toEqual(rows.map((_, at) => `E${at + 1}`));
  });

  test.each(rows)('$id names tests and symbols that exist', ({ enforcedBy, tests }) => {
    const paths = tests.split(', ').map((name) => `test/${name}.test.ts`);
    expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
    const symbols = [...enforcedBy.matchAll(/`(\w+)`/g)].map(([, symbol]) => new RegExp(`\\b${symbol}\\b`));
    expect(symbols.filter((symbol) => !sources.some(([, source]) => symbol.test(source)))).toEqual([]);
  });
});
