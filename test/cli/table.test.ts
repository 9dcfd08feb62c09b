/** Tables at given widths: what is dropped, what is cut, what stays, and how wide characters count. */
import { describe, expect, test } from 'vitest';
import { lettersText } from '../../cli/dlq.ts';
import { viewText } from '../../cli/gold-text.ts';
import { firstLines } from '../../cli/lag.ts';
import { lagText } from '../../cli/lag-text.ts';
import { memberLine } from '../../cli/member.ts';
import { tableText } from '../../cli/table.ts';
import { findingLines } from '../../cli/verify.ts';
import type { LagReport } from '../../monitor/lag.ts';
import { filled, widthOf } from '../../runtime/terminal.ts';

interface Row {
  readonly name: string;
  readonly count: number;
  readonly note: string;
}
const rows: Row[] = [
  { name: 'short', count: 1, note: 'a' },
  { name: 'a longer name', count: 12_345, note: 'something to say' },
];
const columns = [
  { head: 'name', cell: ({ name }: Row) => name },
  { head: 'count', align: 'right' as const, cell: ({ count }: Row) => count.toLocaleString('en-US') },
  { head: 'note\nof the row', drop: 1, cell: ({ note }: Row) => note },
];

describe('a table', () => {
  test('without a limit shows all, numbers to the right, without rules between rows', () => {
    expect(tableText(columns, rows, Number.POSITIVE_INFINITY).split('\n')).toEqual([
      'name            count  note',
      '                       of the row',
      '───────────────────────────────────────',
      'short               1  a',
      'a longer name  12,345  something to say',
    ]);
  });

  test('that is too wide drops the column of the highest priority number', () => {
    expect(tableText(columns, rows, 38)).not.toContain('note');
    expect(tableText(columns, rows, 39)).toContain('something to say');
  });

  test('that is still too wide cuts texts, and never a number', () => {
    const narrow = tableText(columns, rows, 18);
    expect(narrow).toMatch(/^a longe.*… +12,345$/m);
    expect(narrow).toContain('12,345');
    for (const line of narrow.split('\n')) expect(widthOf(line)).toBeLessThanOrEqual(18);
  });

  test('that cuts names which differ at their end keeps the end', () => {
    const topics = ['a-namespace.imdb.title.basics', 'a-namespace.imdb.title.ratings'];
    const column = { head: 'topic', cell: (topic: string) => topic };
    const cutTo = (width: number, keep?: 'end') =>
      tableText([{ ...column, ...(keep !== undefined && { keep }) }], topics, width)
        .split('\n')
        .slice(2);
    expect(cutTo(10, 'end')).toEqual(['…le.basics', '…e.ratings']);
    expect(cutTo(10)).toEqual(['a-namespa…', 'a-namespa…']);
  });

  test('without rows is its head', () => {
    expect(tableText(columns, [], 80).split('\n')).toHaveLength(3);
  });
});

test('colours take no width, combining marks none, and wide characters two', () => {
  expect(widthOf('\x1b[31mSTOP\x1b[39m')).toBe(4);
  expect(widthOf('e\u0301')).toBe(1);
  expect(widthOf('千と千尋')).toBe(8);
  expect(widthOf('Amélie – 1')).toBe(10);
});

test('lag at 80 columns shows topic, partition, lag, state and the time to catch up', () => {
  const row = {
    group: 'reelflow-processors',
    topic: 'a-namespace-of-some-length.imdb.title.principals',
    partition: 11,
    startOffset: 1_000_000_000,
    endOffset: 9_000_000_000,
    nextOffset: 8_000_000_000,
    lag: 1_000_000_000,
    lagRecords: 1_000_000_000_000,
    state: 'WARN',
    timeLagMs: 90_061_000,
    consumedPerSecond: 123_456,
    producedPerSecond: 1_234_567,
    catchUpMs: 90_061_000,
    isSubscribed: true,
  };
  const group = { ...row, exists: true, whyUnknown: null, lagUnknown: 0 };
  const report = { atMs: 0, rows: [row], groups: [group] } as unknown as LagReport;
  const lines = lagText(report, { width: 80, trendOf: () => [1, 2, 3] }).split('\n');
  for (const line of lines) expect(widthOf(line)).toBeLessThanOrEqual(80);
  const table = lines.slice(lines.findIndex((line) => line.startsWith('topic')));
  expect(table[0]).toMatch(/^topic +partition +lag +state .*caught up in/);
  expect(table[2]).toMatch(/^…\S+imdb\.title\.principals +11 +1,000,000,000 +WARN .*1 d 1 h/);
});

test('a gold table names the number of columns that it shows', () => {
  const view = {
    snapshot: '20260101_000000_000001',
    table: 'some',
    about: 'Some rows.',
    columns: ['first', 'second', 'third'].map((name) => ({ name, type: 'INTEGER', about: '' })),
    rowsTotal: 1,
    rows: [[1, 2, 3]],
  };
  expect(viewText(view, 80)).toContain('1 of 1 row, snapshot');
  expect(viewText(view, 16).replaceAll('\n', ' ')).toContain('1 of 1 row, 2 of 3 columns, snapshot');
});

test('a gold table keeps the name of the row, whatever its place', () => {
  const column = (name: string, type: string) => ({ name, type, about: '' });
  const view = {
    snapshot: '20260101_000000_000001',
    table: 'top',
    about: 'Some rows.',
    columns: [
      ...[column('titleType', 'VARCHAR'), column('rank', 'INTEGER'), column('tconst', 'VARCHAR')],
      ...[column('primaryTitle', 'VARCHAR'), column('votes', 'BIGINT')],
    ],
    rowsTotal: 1,
    rows: [['movie', 1, 'tt0000001', 'A name', 5]],
  };
  expect(viewText(view, 40).split('\n')[0]).toMatch(/^titleType +rank +primaryTitle +votes$/);
});

test('a screen that is too low says how many lines are missing, and one of unknown height shows all', () => {
  const lines = ['1', '2', '3', '4', '5'];
  expect(firstLines(lines, 5)).toEqual(lines);
  expect(firstLines(lines, 3)).toEqual(['1', '2', expect.stringMatching(/^… 3 more lines: /)]);
  for (const unknown of [0, -1, Number.NaN]) expect(firstLines(lines, unknown)).toEqual(lines);
});

describe('a text', () => {
  test('breaks between words, and a word that is too long stays whole', () => {
    expect(filled('one two three', 7)).toBe('one two\nthree');
    expect(filled('a /very/long/path b', 6, 2)).toBe('a\n  /very/long/path\n  b');
    expect(filled('one two three', Number.POSITIVE_INFINITY)).toBe('one two three');
  });

  test('never breaks within a command, so that it can be copied', () => {
    expect(filled('Run `reelflow dlq list` now', 8)).toBe('Run\n`reelflow dlq list`\nnow');
  });

  test('of several lines breaks each of them', () => {
    expect(filled('one two\nthree', 7)).toBe('one two\nthree');
  });

  test('of a member that is idle says so, and is cut nowhere', () => {
    const line = JSON.stringify({
      level: 'info',
      time: '2026-11-21T10:00:00Z',
      component: 'process',
      pid: 1,
      version: '1',
      shards: 4,
      lastMinute: { applied: 0, duplicate: 0 },
      applied: 1234567,
      duplicate: 7654321,
      rejected: 42,
      msg: 'processed',
    });
    for (const width of [60, 80, 120]) {
      const lines = memberLine(line, 'processor-1', width).split('\n');
      expect(Math.max(...lines.map(widthOf))).toBeLessThanOrEqual(width);
      const text = lines.map((one) => one.trim()).join(' ');
      for (const value of ['lastMinute=nothing', 'applied=1234567', 'duplicate=7654321', 'rejected=42']) {
        expect(text).toContain(value);
      }
    }
  });

  test('of many differences shows the first of each table and the number of the others', () => {
    const findings = [...Array(20).keys()].map((n) => ({
      about: n < 5 ? 'genres' : 'trends',
      text: `row ${n}`,
    }));
    expect(findingLines(findings)).toEqual([
      ...['genres: row 0', 'genres: row 1', 'genres: row 2'],
      ...['trends: row 5', 'trends: row 6', 'trends: row 7'],
      '14 more findings; --json prints all.',
    ]);
    expect(findingLines(findings.slice(0, 3))).toHaveLength(3);
  });
});

test('the detail of a dead letter is shown whole: beside it, or below it where the terminal is narrow', () => {
  const detail = `numVotes: expected a 32-bit integer, ${'0 or more in a column of counts, '.repeat(4)}got "43.5"`;
  const letter = (offset: number) => ({
    ...{ partition: 0, offset, timeMs: 0, stage: 'producer', reason: 'integer', fate: 'open', detail },
    source: { file: 'title.ratings.tsv', line: 7 },
  });
  const letters = { latest: [letter(1), letter(2)] } as unknown as Parameters<typeof lettersText>[0];
  expect(lettersText(letters, Number.POSITIVE_INFINITY).split('\n').slice(2)).toEqual([
    expect.stringContaining(`  open  ${detail}`),
    expect.stringContaining(`  open  ${detail}`),
  ]);
  for (const width of [60, 80, 120]) {
    const text = lettersText(letters, width);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(width);
    expect(text.replaceAll(/\s+/g, ' ').split(detail)).toHaveLength(3);
    expect(text.split('\n')[2]).toMatch(/^0:1 /);
  }
});
