/**
 * The columnar decoder against avsc: arbitrary rows in any blocks give what avsc gives, and arbitrary damage is either
 * seen as damage or as what avsc reads.
 */
import avsc from 'avsc';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MalformedRows, readLong } from '../../topics/avro-reader.ts';
import { AvroWriter } from '../../topics/avro-writer.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import { formOf, recordColumns } from '../../topics/chunk.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import { schemaText } from '../../topics/registry.ts';
import { nullInt, planRows } from '../../topics/row-plan.ts';
import { Columns, decodeRows } from '../../topics/rows.ts';

type Row = Record<string, unknown>;

/** What a test wants of a dataset: everything that has a column form, and columns as texts. */
interface Subject {
  readonly name: DatasetName;
  readonly wanted: readonly string[];
  readonly texts?: readonly string[];
}

const subjects: Subject[] = [
  { name: 'title.ratings', wanted: ['averageRating', 'tconst', 'numVotes'] },
  { name: 'title.basics', wanted: ['tconst', 'genres', 'isAdult', 'runtimeMinutes', 'startYear'] },
  { name: 'title.principals', wanted: ['tconst', 'ordering', 'nconst', 'category'] },
  {
    name: 'title.akas',
    wanted: ['titleId', 'ordering', 'region', 'isOriginalTitle'],
    texts: ['title', 'attributes'],
  },
  { name: 'title.crew', wanted: ['writers', 'tconst', 'directors'] },
  { name: 'title.episode', wanted: ['parentTconst'] },
  { name: 'name.basics', wanted: ['nconst', 'birthYear'], texts: ['primaryName'] },
];

const arrayTypes = new Map(
  subjects.map(({ name }) => {
    const schema = JSON.parse(schemaText(`imdb.${name}`)) as {
      fields: { name: string; type: avsc.Schema }[];
    };
    const records = schema.fields.find((field) => field.name === 'records');
    return [name, avsc.Type.forSchema(records?.type as avsc.Schema) as avsc.types.ArrayType];
  }),
);

const arrayTypeOf = ({ name }: Subject) => arrayTypes.get(name) as avsc.types.ArrayType;

const idNumber = fc.oneof(fc.nat(9_999_999), fc.integer({ min: 10_000_000, max: 999_999_999 }));
const int = fc.oneof(fc.integer({ min: -2_147_483_647 }), fc.integer({ min: -100, max: 100 }));
const text = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ minLength: 120, maxLength: 300 }),
  fc.constant('\0'),
);

const person = fc.oneof(
  { weight: 4, arbitrary: idNumber.map((number) => `nm${String(number).padStart(7, '0')}`) },
  { weight: 1, arbitrary: fc.constantFrom('', 'nm1', 'tt0000001', 'nm01234567', 'nm000000é', ' nm0000001') },
);
const people = fc.option(fc.array(person, { maxLength: 4 }).map((list) => list.join(',')));

function valueFor(name: DatasetName, column: string): fc.Arbitrary<unknown> {
  if (column === 'directors' || column === 'writers') return people;
  const { type } = datasets[name].columns.find((each) => each.name === column) as { type: string };
  const isId = column === datasets[name].columns[0]?.name || column === 'nconst' || column === 'parentTconst';
  if (isId) {
    const prefix = formOf(datasets[name], column);
    return idNumber.map((number) => prefix + String(number).padStart(7, '0'));
  }
  const plain: Record<string, fc.Arbitrary<unknown>> = {
    string: text,
    int,
    boolean: fc.boolean(),
    tenths: fc.integer({ min: 10, max: 100 }).map((tenths) => tenths / 10),
  };
  const base = plain[type.replace('nullable-', '')] as fc.Arbitrary<unknown>;
  return type.startsWith('nullable-') ? fc.option(base) : base;
}

const recordsOf = ({ name }: Subject): fc.Arbitrary<Row[]> =>
  fc.array(
    fc.record(
      Object.fromEntries(datasets[name].columns.map((column) => [column.name, valueFor(name, column.name)])),
    ),
    { maxLength: 12 },
  );

/** An array in blocks of the given sizes, with (negative count) or without their length in bytes. */
function encodeBlocks(
  subject: Subject,
  records: readonly Row[],
  blocks: readonly (readonly [number, boolean])[],
) {
  const writer = new AvroWriter();
  const item = arrayTypeOf(subject).itemsType;
  let from = 0;
  const cuts = [...blocks, [records.length, false] as const];
  for (const [size, withLength] of cuts) {
    const rows = records.slice(from, from + size);
    from += rows.length;
    if (rows.length === 0) continue;
    const bytes = Buffer.concat(rows.map((row) => item.toBuffer(row)));
    writer.long(withLength ? -rows.length : rows.length);
    if (withLength) writer.long(bytes.length);
    writer.raw(bytes);
  }
  writer.byte(0);
  return writer.take();
}

const blocks = fc.array(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.boolean()), { maxLength: 4 });

function columnsFor({ name, wanted, texts = [] }: Subject): { out: Columns; words: Dictionary } {
  const words = new Dictionary();
  const all = [...wanted, ...texts];
  const out = recordColumns(name, all, Object.fromEntries(all.map((each) => [each, words])), texts);
  return { out, words };
}

/** Columns as the rows that they stand for. */
function read(out: Columns, words: Dictionary): Row[] {
  const rows: Row[] = [];
  let textStart = 0;
  for (let row = 0; row < out.length; row++) {
    const values = out.plan.forms.map((form, c) => {
      const value = out.column(c)[row] as number;
      if (form === 'text') {
        if (value < 0) return null;
        const bytes = out.text.subarray(textStart, value);
        textStart = value;
        return Buffer.from(bytes).toString();
      }
      if (value === nullInt) return null;
      if (form === 'dictionary') return words.textOf(value);
      if (form === 'people') {
        const people = out.lists.subarray(value + 1, value + 1 + (out.lists[value] as number));
        return Array.from(people, (person) => `nm${String(person).padStart(7, '0')}`).join();
      }
      if (form === 'tenths') return value / 10;
      if (form === 'boolean') return value === 1;
      return form === 'tt' || form === 'nm' ? form + String(value).padStart(7, '0') : value;
    });
    rows.push(Object.fromEntries(out.plan.names.map((name, c) => [name, values[c]])));
  }
  return rows;
}

/** The ids in a list; null without any. */
const peopleIn = (list: string | null) =>
  list
    ?.split(',')
    .filter((person) => /^nm([0-9]{7}|[1-9][0-9]{7,8})$/.test(person))
    .join() || null;

/** The wanted columns of rows; a double with one decimal means its tenths. */
const picked = (rows: readonly Row[], out: Columns) =>
  rows.map((row) =>
    Object.fromEntries(
      out.plan.names.map((name, c) => {
        if (out.plan.forms[c] === 'people') return [name, peopleIn(row[name] as string | null)];
        const isTenths = out.plan.forms[c] === 'tenths';
        return [name, isTenths ? Math.round(Number(row[name]) * 10) / 10 : row[name]];
      }),
    ),
  );

/** Truncated, or with a few bytes changed, put in or taken out. */
const damage = fc.oneof(
  fc.nat().map((at) => (bytes: Buffer) => bytes.subarray(0, at % (bytes.length + 1))),
  fc
    .array(fc.tuple(fc.nat(), fc.constantFrom('set', 'insert', 'remove'), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 3,
    })
    .map((edits) => (bytes: Buffer) => {
      const list = [...bytes];
      for (const [at, how, byte] of edits) {
        const place = at % (list.length + 1);
        if (how === 'insert') list.splice(place, 0, byte);
        else if (how === 'remove') list.splice(place, 1);
        else if (place < list.length) list[place] = byte;
      }
      return Buffer.from(list);
    }),
);

describe.each(subjects.map((subject) => [subject.name, subject] as const))('%s', (_, subject) => {
  const records = recordsOf(subject);

  test('rows in any blocks are what avsc reads, behind what the columns held before', () => {
    fc.assert(
      fc.property(
        records,
        records,
        blocks,
        fc.uint8Array({ maxLength: 5 }),
        (first, second, cuts, behind) => {
          const { out, words } = columnsFor(subject);
          decodeRows(encodeBlocks(subject, first, []), 0, out);
          const bytes = encodeBlocks(subject, second, cuts);
          const end = decodeRows(Buffer.concat([Buffer.alloc(3), bytes, behind]), 3, out);
          expect(end).toBe(3 + bytes.length);
          expect(read(out, words)).toEqual(picked([...first, ...second], out));
          // The blocks themselves are Avro.
          expect(arrayTypeOf(subject).fromBuffer(bytes)).toHaveLength(second.length);
        },
      ),
      { numRuns: 150 },
    );
  });

  test('damaged bytes are malformed and leave the columns as they were, or are what avsc reads', () => {
    fc.assert(
      fc.property(records, records, blocks, damage, (first, second, cuts, spoil) => {
        const { out, words } = columnsFor(subject);
        decodeRows(encodeBlocks(subject, first, []), 0, out);
        const before = read(out, words);
        const textBefore = out.textLength;
        const bytes = spoil(encodeBlocks(subject, second, cuts));
        let end: number;
        try {
          end = decodeRows(bytes, 0, out);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(MalformedRows);
          expect(out.length).toBe(first.length);
          expect(out.textLength).toBe(textBefore);
          expect(read(out, words)).toEqual(before);
          return;
        }
        const { value, offset } = arrayTypeOf(subject).decode(bytes, 0) as { value: Row[]; offset: number };
        expect(offset).toBe(end);
        expect(read(out, words)).toEqual(picked([...first, ...value], out));
      }),
      { numRuns: 400 },
    );
  });

  test('every truncation is malformed', () => {
    fc.assert(
      fc.property(records, blocks, (rows, cuts) => {
        const bytes = encodeBlocks(subject, rows, cuts);
        for (let length = 0; length < bytes.length; length++) {
          const { out } = columnsFor(subject);
          expect(() => decodeRows(bytes.subarray(0, length), 0, out)).toThrow(MalformedRows);
          expect(out.length).toBe(0);
        }
      }),
      { numRuns: 4 },
    );
  });
});

test('a word is a number of the dictionary of its columns, also where another has the same words', () => {
  const subject: Subject = { name: 'title.akas', wanted: ['titleId', 'region', 'language'] };
  const akas = (region: string | null, language: string | null) => ({
    ...{ titleId: 'tt0000001', ordering: 1, title: '', region, language, types: null, attributes: null },
    isOriginalTitle: null,
  });
  // The last two have the same hash.
  const words = [null, '', 'DE', 'XDE', 'en', 'x'.repeat(52), 'x'.repeat(60), 'declinate', 'macallums'];
  const rows = words.flatMap((region) => words.map((language) => akas(region, language)));
  for (const some of [rows, rows.toReversed()]) {
    const { out, words } = columnsFor(subject);
    // The second time all words are known that the fast decoder remembers.
    for (const times of [1, 2]) {
      decodeRows(encodeBlocks(subject, some, []), 0, out);
      const expected = Array.from({ length: times }, () => some).flat();
      expect(read(out, words)).toEqual(picked(expected, out));
    }
  }
});

test('rows are decoded alike whatever their number is', () => {
  const subject: Subject = { name: 'title.ratings', wanted: ['tconst', 'averageRating', 'numVotes'] };
  const ids = [1, 9_999_999, 10_000_000, 99_999_999, 100_000_000];
  const rows = Array.from({ length: 9_000 }, (_, i) => ({
    tconst: `tt${String((ids[i % 5] as number) - (i % 2)).padStart(7, '0')}`,
    averageRating: (10 + (i % 91)) / 10,
    numVotes: (i * 999_983) % 2_147_483_647,
  }));
  const { out, words } = columnsFor(subject);
  decodeRows(encodeBlocks(subject, rows, [[4_500, true]]), 0, out);
  expect(read(out, words)).toEqual(rows);
});

test('texts and lists are decoded alike whatever their number is', () => {
  const pick = <T>(values: readonly T[], i: number) => values[i % values.length] as T;
  const person = (i: number) => `nm${String((i * 7_919) % 100_000_000).padStart(7, '0')}`;
  const people = (i: number) =>
    pick([null, person(i), `${person(i)},${person(i + 1)}`, '', 'nm12', `${person(i)},`, 'nm100000000'], i);
  const name = (i: number) => pick([null, '', `Title ${i}`, 'Übermut'.repeat(i % 40)], i);
  const wanted = ['tconst', 'directors', 'writers'];
  const crew = Array.from({ length: 9_000 }, (_, i) => ({
    ...{ tconst: `tt${1_000_000 + i}`, directors: people(i), writers: people((i * i) % 97) },
  }));
  const names = Array.from({ length: 9_000 }, (_, i) => ({
    ...{ nconst: `nm${1_000_000 + i}`, primaryName: name((i * i) % 101), birthYear: pick([null, i], i) },
    ...{ deathYear: null, primaryProfession: null, knownForTitles: null },
  }));
  const cases: [Subject, Row[]][] = [
    [{ name: 'title.crew', wanted }, crew],
    [{ name: 'name.basics', wanted: ['nconst', 'birthYear'], texts: ['primaryName'] }, names],
  ];
  for (const [subject, rows] of cases) {
    const { out, words } = columnsFor(subject);
    for (let times = 0; times < 2; times++) decodeRows(encodeBlocks(subject, rows, [[4_500, true]]), 0, out);
    expect(read(out, words)).toEqual(picked([...rows, ...rows], out));
  }
});

test('noise ends at once and takes memory in proportion to its length', () => {
  fc.assert(
    fc.property(fc.constantFrom(...subjects), fc.uint8Array({ maxLength: 200 }), (subject, bytes) => {
      const { out } = columnsFor(subject);
      try {
        decodeRows(bytes, 0, out);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(MalformedRows);
      }
      for (const ints of out.ints) expect(ints.length).toBeLessThanOrEqual(1024);
    }),
    { numRuns: 1_000 },
  );
});

test.each([2 ** 20, 2 ** 31, 2 ** 40, 2 ** 53 - 1])(
  'a count of %d records in a few bytes reserves nothing',
  (count) => {
    for (const sign of [1, -1]) {
      const writer = new AvroWriter();
      writer.long(sign * count);
      writer.long(10);
      writer.raw(Buffer.alloc(10));
      const { out } = columnsFor(subjects[0] as Subject);
      expect(() => decodeRows(writer.take(), 0, out)).toThrow(MalformedRows);
      expect(out.ints[0]?.length).toBe(0);
    }
  },
);

test.each(['dictionary', 'text', 'tt', undefined] as const)(
  'a string (%s) whose length is negative or past the end is malformed and takes no memory',
  (form) => {
    const words = new Dictionary();
    const wanted = form === undefined ? [] : [{ name: 'word', form }];
    const plan = planRows([{ name: 'word', type: 'string' }], wanted, { word: words });
    for (const length of [-1, -2, 3, 2 ** 27]) {
      const writer = new AvroWriter();
      writer.long(1);
      writer.long(length);
      writer.raw(Buffer.from([0, 0]));
      const out = new Columns(plan);
      expect(() => decodeRows(writer.take(), 0, out)).toThrow(
        expect.objectContaining({ reason: 'undecodable', message: expect.stringContaining('string') }),
      );
      expect([out.length, out.text.length, words.size]).toEqual([0, 0, 0]);
    }
  },
);

const ratings = subjects[0] as Subject;
const good = { tconst: 'tt0000001', averageRating: 5.5, numVotes: 1 };

test.each([
  ['an id of six digits', { ...good, tconst: 'tt000001' }],
  ['an id of eight digits with a leading zero', { ...good, tconst: 'tt01234567' }],
  ['an id of ten digits', { ...good, tconst: 'tt1234567890' }],
  ['a person where a title belongs', { ...good, tconst: 'nm0000001' }],
  ['an id with a letter', { ...good, tconst: 'tt000000x' }],
  ['an empty id', { ...good, tconst: '' }],
  ['a rating below 1.0', { ...good, averageRating: 0.9 }],
  ['a rating above 10.0', { ...good, averageRating: 10.1 }],
  ['a rating of two decimals', { ...good, averageRating: 5.55 }],
  ['a rating that is not a number', { ...good, averageRating: Number.NaN }],
  ['the int that stands for null', { ...good, numVotes: nullInt }],
])('%s is an invalid value', (_, row) => {
  const { out } = columnsFor(ratings);
  expect(() => decodeRows(encodeBlocks(ratings, [good, row], []), 0, out)).toThrow(
    expect.objectContaining({ name: 'MalformedRows', reason: 'invalid_value' }),
  );
  expect(out.length).toBe(0);
});

test('bytes that are not UTF-8 are an invalid value in a column of words', () => {
  // Two such words would become one in the store's table of words, and the numbers of all later ones would shift.
  const subject: Subject = { name: 'title.basics', wanted: ['tconst', 'genres'] };
  const row = { ...good, titleType: null, primaryTitle: null, originalTitle: null, isAdult: false };
  const basics = { ...row, startYear: null, endYear: null, runtimeMinutes: null, genres: 'QQ' };
  const bytes = encodeBlocks(subject, [basics], []);
  const at = bytes.indexOf('QQ');
  for (const wrong of [
    [0xff, 0x41],
    [0x41, 0xc3],
    [0xc0, 0x80],
  ]) {
    bytes.set(wrong, at);
    const { out, words } = columnsFor(subject);
    expect(() => decodeRows(bytes, 0, out)).toThrow(expect.objectContaining({ reason: 'invalid_value' }));
    expect(words.size).toBe(0);
  }
});

test('an int or a length of more than 32 bits is malformed', () => {
  const plan = planRows(
    [
      { name: 'number', type: 'int' },
      { name: 'word', type: 'string' },
    ],
    [
      { name: 'number', form: 'int' },
      { name: 'word', form: 'dictionary' },
    ],
  );
  const tooLong = [0x82, 0x80, 0x80, 0x80, 0x10];
  for (const row of [
    [...tooLong, 0],
    [2, ...tooLong, 0x41],
  ]) {
    expect(() => decodeRows(Buffer.from([2, ...row, 0]), 0, new Columns(plan))).toThrow(MalformedRows);
  }
});

test('whole numbers up to 2^52 are written and read as avsc does', () => {
  const long = avsc.Type.forSchema('long');
  const most = 2 ** 52 - 1;
  const edges = [0, 1, -1, 63, 64, -64, -65, 2 ** 31, -(2 ** 31), most, -most];
  fc.assert(
    fc.property(fc.oneof(fc.constantFrom(...edges), fc.integer({ min: -most, max: most })), (value) => {
      const writer = new AvroWriter();
      writer.long(value);
      expect(writer.take()).toEqual(long.toBuffer(value));
      expect(readLong(writer.take(), 0)).toEqual([value, writer.length]);
    }),
  );
});
