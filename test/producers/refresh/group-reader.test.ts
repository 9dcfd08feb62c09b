/**
 * Groups of rows against a computation by strings: however the file is cut into pieces, a group has the rows, ids and
 * hash that its lines have; every changed, added, removed or moved row changes the hash.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GroupReader, type UnsortedRows } from '../../../producers/refresh/group-reader.ts';
import { idText } from '../../../topics/catalog.ts';
import { groupOf, groupSize } from '../../../topics/id-groups.ts';

interface Group {
  readonly group: number;
  readonly hash: string;
  readonly ids: number[];
  readonly rows: number;
  readonly lines: [number, string][];
}

interface Reading {
  readonly groups: Group[];
  readonly strays: { rows: number; low: number; high: number };
  readonly reader: GroupReader;
}

function read(file: string, cuts: readonly number[] = [], idColumn = 0): Reading {
  const groups: Group[] = [];
  const reader = new GroupReader({
    prefix: 'tt',
    idColumn,
    keepRows: true,
    onGroup: (closed) => {
      const lines: [number, string][] = [];
      closed.forEachRun((bytes, start, end, firstRow) => {
        const run = bytes.toString('latin1', start, end - 1).split('\n');
        lines.push(...run.map((line, at): [number, string] => [firstRow + at, line]));
      });
      const ids = Array.from({ length: groupSize }, (_, bit) => bit)
        .filter((bit) => (bit < 32 ? closed.maskLow >>> bit : closed.maskHigh >>> (bit - 32)) & 1)
        .map((bit) => closed.group * groupSize + bit);
      groups.push({
        group: closed.group,
        hash: `${closed.low},${closed.high}`,
        ids,
        rows: closed.rows,
        lines,
      });
    },
  });
  const bytes = Buffer.from(file, 'latin1');
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  let from = 0;
  for (const end of ends) {
    // A copy: the reader must not keep the memory of a piece.
    const piece = Buffer.from(bytes.subarray(from, end));
    reader.push(piece);
    piece.fill(0x58);
    from = end;
  }
  reader.end();
  groups.sort((a, b) => a.group - b.group);
  return { groups, strays: reader.strays, reader };
}

const header = 'tconst\tx\n';
const ids = fc.oneof(
  fc.integer({ min: 1_000_000, max: 1_000_120 }),
  fc.integer({ min: 10_000_000, max: 10_001_200 }),
  fc.integer({ min: 100_000_000, max: 100_000_120 }),
);
const value = fc.oneof(
  fc.string({ maxLength: 20 }).map((text) => text.replace(/[\n\r\t]/g, '')),
  fc.constantFrom('', '\\N', '\u000b', '\u008a\u008a\u008a\u008a', 'a'.repeat(300)),
);
const order = fc.constantFrom<(a: number, b: number) => number>(
  (a, b) => a - b,
  (a, b) => (idText('tt', a) < idText('tt', b) ? -1 : 1),
);
/** Lines sorted by id, as numbers or as texts; several rows of an id now and then. */
const sortedLines = fc
  .tuple(
    fc.uniqueArray(ids, { maxLength: 40 }),
    order,
    fc.array(fc.array(value, { minLength: 1, maxLength: 3 }), { minLength: 40, maxLength: 40 }),
  )
  .map(([unique, by, values]) =>
    unique.sort(by).flatMap((id, at) => (values[at] as string[]).map((text) => ({ id, text }))),
  );
const fileOf = (lines: readonly { id: number; text: string }[]) =>
  header + lines.map(({ id, text }) => `${idText('tt', id)}\t${text}\n`).join('');

describe('groups', () => {
  test('have the lines and ids of the file, whatever its pieces', () => {
    fc.assert(
      fc.property(sortedLines, fc.array(fc.nat(), { maxLength: 8 }), (lines, cuts) => {
        const { groups } = read(fileOf(lines), cuts);
        const expected = Map.groupBy(
          lines.map(({ id, text }, row) => ({ id, row, text: `${idText('tt', id)}\t${text}` })),
          ({ id }) => groupOf(id),
        );
        expect(groups.map(({ group }) => group)).toEqual([...expected.keys()].sort((a, b) => a - b));
        for (const { group, rows, lines: found, ids: present } of groups) {
          const own = expected.get(group) ?? [];
          expect(rows).toBe(own.length);
          expect(found).toEqual(own.map(({ row, text }) => [row, text]));
          expect(present).toEqual([...new Set(own.map(({ id }) => id))].sort((a, b) => a - b));
        }
        expect(groups.map(({ hash }) => hash)).toEqual(read(fileOf(lines)).groups.map(({ hash }) => hash));
      }),
    );
  });

  test('have the same hash in both orders of ids', () => {
    fc.assert(
      fc.property(sortedLines, (lines) => {
        const byNumber = [...lines].sort((a, b) => a.id - b.id);
        const byText = [...lines].sort((a, b) =>
          idText('tt', a.id) < idText('tt', b.id) ? -1 : a.id === b.id ? 0 : 1,
        );
        const hashes = (of: typeof lines) => read(fileOf(of)).groups.map(({ hash }) => hash);
        expect(hashes(byText)).toEqual(hashes(byNumber));
      }),
    );
  });

  test('change their hash with every change of a row, and no other group does', () => {
    const change = fc.constantFrom('set', 'remove', 'repeat', 'swap');
    fc.assert(
      fc.property(sortedLines, fc.nat(), change, (lines, nth, how) => {
        fc.pre(lines.length > 1);
        const at = nth % lines.length;
        const row = lines[at] as { id: number; text: string };
        const next = lines[at + 1];
        const other =
          how === 'set'
            ? lines.with(at, { ...row, text: `${row.text}x` })
            : how === 'remove'
              ? lines.toSpliced(at, 1)
              : how === 'repeat'
                ? lines.toSpliced(at, 0, row)
                : next === undefined
                  ? lines
                  : lines.with(at, { ...row, text: next.text }).with(at + 1, { ...next, text: row.text });
        fc.pre(fileOf(other) !== fileOf(lines));
        const before = new Map(read(fileOf(lines)).groups.map(({ group, hash }) => [group, hash]));
        const after = new Map(read(fileOf(other)).groups.map(({ group, hash }) => [group, hash]));
        const changed = new Set(
          how === 'swap' && next !== undefined ? [groupOf(row.id), groupOf(next.id)] : [groupOf(row.id)],
        );
        for (const group of new Set([...before.keys(), ...after.keys()])) {
          expect(before.get(group) === after.get(group)).toBe(!changed.has(group));
        }
      }),
    );
  });
});

test('a line without a newline at the end is a row, and the reader says that it lacks it', () => {
  const whole = read(`${header}tt0000001\ta\n`);
  const lacking = read(`${header}tt0000001\ta`);
  expect(lacking.groups).toEqual(whole.groups);
  expect([whole.reader.endsWithNewline, lacking.reader.endsWithNewline]).toEqual([true, false]);
});

test('the id may stand in any column', () => {
  const { groups } = read('x\ttconst\na\ttt0000001\nb\ttt0000002\n', [], 1);
  expect(groups.map(({ ids: present }) => present)).toEqual([[1, 2]]);
});

test.each(['nm0000001\ta', 'tt001\ta', 'tt0000001', '', 'tt00000001\ta', 'tt12345678901\ta'])(
  'a row without an id belongs to no group: %j',
  (line) => {
    const { groups, strays } = read(`${header}${line}\ntt0000005\tb\n`);
    expect(groups.map(({ ids: present }) => present)).toEqual(line === 'tt0000001' ? [[1, 5]] : [[5]]);
    expect(strays.rows).toBe(line === 'tt0000001' ? 0 : 1);
  },
);

test.each([
  ['tt0000002\ta\ntt0000001\tb\n', 1],
  ['tt0000051\ta\ntt0000001\tb\n', 1],
  ['tt10000000\ta\ntt0000001\tb\ntt0000060\tb\ntt0000002\tc\n', 3],
])('ids of one length that descend are unsorted: %j', (lines, row) => {
  expect(() => read(header + lines)).toThrow(expect.objectContaining<Partial<UnsortedRows>>({ row }));
});

test('half of the hash of a million rows collides as often as chance does, and both halves never together', () => {
  const low = new Map<number, number>();
  let lowCollisions = 0;
  let highCollisions = 0;
  let both = 0;
  const high = new Set<number>();
  const reader = new GroupReader({
    prefix: 'tt',
    idColumn: 0,
    keepRows: false,
    onGroup: (closed) => {
      const known = low.get(closed.low);
      if (known !== undefined) lowCollisions++;
      if (known === closed.high) both++;
      low.set(closed.low, closed.high);
      if (high.has(closed.high)) highCollisions++;
      high.add(closed.high);
    },
  });
  // One row a group, of texts that differ in as little as one bit.
  const groups = 300_000;
  reader.push(Buffer.from(header));
  for (let from = 0; from < groups; from += 10_000) {
    let text = '';
    for (let n = from; n < from + 10_000; n++)
      text += `${idText('tt', n * groupSize)}\t1.${n % 10}\t${n % 7}\n`;
    reader.push(Buffer.from(text));
  }
  reader.end();
  const byChance = (groups * groups) / 2 ** 33;
  expect(lowCollisions).toBeLessThan(4 * byChance);
  expect(highCollisions).toBeLessThan(4 * byChance);
  expect(both).toBe(0);
});
