/**
 * The history of ratings against a plain model: what a title has on each day is a map from days to ratings, from which
 * every message takes the days from its own on. Random messages of title.ratings, in random transactions, with replaced
 * groups, deletes, repeated dumps and dumps that are older than the one before.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CubeStore } from '../../sinks/cube-store.ts';
import type { RatingState } from '../../sinks/rating-history.ts';
import { StagedRatings } from '../../sinks/staged-ratings.ts';
import { RejectedMessage } from '../../topics/chunk.ts';
import { firstIdOf, groupOf, groupSize } from '../../topics/id-groups.ts';
import { IdSet } from '../../topics/id-set.ts';
import { Ownership } from '../../topics/ownership.ts';
import { decoderOf, encodeChunk, key, rating } from '../support/chunks.ts';
import { openCubes } from '../support/gold-lab.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const dayMs = 86_400_000;
const owner = { ownership: new Ownership('tt', 1), partition: 0 };
const decoder = decoderOf('title.ratings');

const folder = temporaryFolder();
let store: CubeStore;

beforeAll(async () => {
  store = await openCubes(folder);
});
afterAll(() => store.close());

type Rated = readonly [id: number, rating: number, votes: number];
interface Message {
  readonly day: number;
  readonly records: readonly Rated[];
  readonly deletes?: readonly number[];
  readonly replaces?: readonly number[];
}
/** A row as text: `<id> <day> <tenths> <votes>`, `gone` in place of the values of a title that vanished. */
type Row = string;

const bytesOf = ({ day, records, deletes = [], replaces = [] }: Message) =>
  encodeChunk(
    {
      dataset: 'title.ratings',
      records: records.map(([id, stars, votes]) => rating(id, stars, votes)),
      deletes: deletes.map((id) => ({ tconst: String(key(id, 1).titleId) })),
      replaces,
    },
    0,
    day * dayMs + 40_000_000,
  );

/** Writes each transaction of messages, prunes after those of `pruned`. @returns the rows that a snapshot would hold */
async function historyOf(
  transactions: readonly (readonly Message[])[],
  historyDays = 1_000,
  pruned: readonly boolean[] = [],
): Promise<Row[]> {
  const { ratings, connection } = store;
  await connection.run('DELETE FROM sink.rating_days');
  ratings.states.clear();
  const titles = new IdSet();
  const blank = { shard: 0, generation: 0, next: 0, lastHash: '', historyDays, gaps: [] };
  let newestDay = -1;
  for (const [t, messages] of transactions.entries()) {
    const staged = new StagedRatings(titles);
    await store.transaction(async () => {
      for (const message of messages) {
        newestDay = staged.add(bytesOf(message), decoder, owner, newestDay, historyDays);
      }
      await ratings.write(0, staged.take());
    });
    ratings.states.set(0, { ...blank, newestDay } satisfies RatingState);
    if (pruned[t] === true) await store.transaction(() => ratings.prune());
  }
  await ratings.createViews();
  const reader = await connection.runAndReadAll(`
    SELECT concat_ws(' ', tconst, day - DATE '1970-01-01', coalesce(tenths || ' ' || votes, 'gone'))
    FROM history ORDER BY tconst, day`);
  return reader.getRows().map(([row]) => String(row));
}

/** What each title has from each day on, by the rules alone. */
class Model {
  readonly #days = new Map<number, Map<number, string>>();
  #newest = -1;

  apply({ day, records, deletes = [], replaces = [] }: Message, historyDays: number): void {
    this.#newest = Math.max(this.#newest, day);
    const from = Math.max(day, this.#newest - historyDays);
    const said = new Map<number, string>();
    for (const group of replaces) {
      for (let i = 0; i < groupSize; i++) said.set(firstIdOf(group) + i, 'gone');
    }
    for (const [id, stars, votes] of records) said.set(id, `${Math.round(stars * 10)} ${votes}`);
    for (const id of deletes) said.set(id, 'gone');
    for (const [id, value] of said) {
      const days = this.#days.get(id) ?? new Map<number, string>();
      for (const known of [...days.keys()]) if (known >= from) days.delete(known);
      days.set(from, value);
      this.#days.set(id, days);
    }
  }

  rows(historyDays: number): Row[] {
    const cutOff = this.#newest - historyDays;
    return [...this.#days]
      .sort(([a], [b]) => a - b)
      .flatMap(([id, days]) => {
        let before = 'gone';
        const kept: [number, string][] = [];
        for (const [day, value] of [...days].sort(([a], [b]) => a - b)) {
          if (value !== before) kept.push([day, value]);
          before = value;
        }
        const first = kept.findLast(([day]) => day <= cutOff);
        const base = first === undefined || first[1] === 'gone' ? [] : [first];
        return [...base, ...kept.filter(([day]) => day > cutOff)].map(
          ([day, value]) => `${id} ${day} ${value}`,
        );
      });
  }
}

const modelOf = (messages: readonly Message[], historyDays = 1_000): Row[] => {
  const model = new Model();
  for (const message of messages) model.apply(message, historyDays);
  return model.rows(historyDays);
};

/** The ratings of a day: the newest row of each title up to it. */
function fileOf(rows: readonly Row[], until: number): Map<number, string> {
  const file = new Map<number, string>();
  for (const row of rows) {
    const [id, day, ...value] = row.split(' ');
    if (Number(day) <= until) file.set(Number(id), value.join(' '));
  }
  return new Map([...file].filter(([, value]) => value !== 'gone').sort(([a], [b]) => a - b));
}

const id = fc.constantFrom(1, 2, 49, 50, 10_000_001);
const records = fc.array(
  fc.tuple(id, fc.constantFrom(1, 5.5, 10), fc.constantFrom(0, 7)).map((one): Rated => one),
  { maxLength: 4 },
);
const message: fc.Arbitrary<Message> = fc.record({
  day: fc.integer({ min: 100, max: 112 }),
  records,
  deletes: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(id, { maxLength: 2 })),
  replaces: fc.oneof(
    { weight: 2, arbitrary: fc.constant([]) },
    fc.uniqueArray(id.map(groupOf), { maxLength: 2 }),
  ),
});
const transactions = fc.array(fc.array(message, { maxLength: 4 }), { maxLength: 5 });

test('the rows are those of the model, and the same in one batch', async () => {
  await fc.assert(
    fc.asyncProperty(transactions, async (batches) => {
      const expected = modelOf(batches.flat());
      expect(await historyOf(batches)).toEqual(expected);
      expect(await historyOf([batches.flat()])).toEqual(expected);
    }),
    { numRuns: 25 },
  );
});

test('pruning at any moments leaves the rows of the model, which prunes once, at the end', async () => {
  await fc.assert(
    fc.asyncProperty(
      transactions,
      fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
      fc.integer({ min: 0, max: 6 }),
      async (batches, pruned, historyDays) => {
        const expected = modelOf(batches.flat(), historyDays);
        expect(await historyOf(batches, historyDays, pruned)).toEqual(expected);
        expect(await historyOf([batches.flat()], historyDays)).toEqual(expected);
      },
    ),
    { numRuns: 25 },
  );
});

const dump = (day: number, ratings: readonly Rated[], replaced: readonly number[] = [1, 50]): Message => ({
  day,
  records: ratings,
  replaces: [...new Set(replaced.map(groupOf))],
});

test('for every day the newest rows up to it are the file of that day; the same dump again adds nothing', async () => {
  const files: [number, Rated[]][] = [
    [100, [[1, 8, 10], [2, 7, 5], [50, 3, 1]]], // biome-ignore format: a file a line
    [
      103,
      [
        [1, 8, 12],
        [50, 3, 1],
      ],
    ],
    [
      104,
      [
        [1, 8, 12],
        [2, 7, 5],
        [50, 4, 1],
      ],
    ],
    [109, [[2, 7, 5]]],
  ];
  const dumps = files.map(([day, ratings]) => dump(day, ratings));
  const rows = await historyOf(dumps.map((one) => [one]));
  for (const [day, ratings] of files) {
    const expected = ratings.map(([title, stars, votes]) => [title, `${stars * 10} ${votes}`] as const);
    expect(fileOf(rows, day), `day ${day}`).toEqual(new Map(expected));
    expect(fileOf(rows, day + 0.5), `after day ${day}`).toEqual(new Map(expected));
  }
  expect(rows).toHaveLength(3 + 2 + 2 + 2);
  const last = dumps.at(-1) as Message;
  expect(await historyOf([dumps, [last], [last, last]])).toEqual(rows);
});

test('a title of a group that is sent unchanged adds no row', async () => {
  const first = dump(100, [[1, 8, 10], [2, 7, 5]]); // biome-ignore format: as above
  const second = dump(101, [
    [1, 8, 10],
    [2, 7, 6],
  ]);
  expect(await historyOf([[first], [second]])).toEqual(['1 100 80 10', '2 100 70 5', '2 101 70 6']);
});

test('an older dump withdraws the later days of the titles that it touches, and of no others', async () => {
  const log = [dump(1, [[1, 8, 1], [50, 5, 1]]), dump(3, [[1, 9, 1], [50, 6, 1]])]; // biome-ignore format: as above
  const older = dump(1, [[1, 8, 1]], [1]);
  expect(await historyOf([[...log, older]])).toEqual(['1 1 80 1', '50 1 50 1', '50 3 60 1']);
  expect(await historyOf([log, [older], [dump(4, [[1, 8, 1]], [1])]])).toEqual([
    '1 1 80 1',
    '50 1 50 1',
    '50 3 60 1',
  ]);
});

test('pruning keeps the newest row at or before the cut-off', async () => {
  const log = [1, 2, 3, 4, 5].map((day) => [dump(day, [[1, day, 1]])]);
  expect(await historyOf(log, 2)).toEqual(['1 3 30 1', '1 4 40 1', '1 5 50 1']);
  const quiet = [[dump(1, [[1, 1, 1], [2, 2, 2]])], [dump(9, [[1, 1, 1]], [50])]]; // biome-ignore format: as above
  expect(await historyOf(quiet, 2)).toEqual(['1 1 10 1', '2 1 20 2']);
  expect(
    await historyOf([...log, [dump(5, [])], [dump(90, [[50, 1, 1]], [50])]], 2, Array(7).fill(true)),
  ).toEqual(['50 90 10 1']);
});

test('a message that is refused leaves nothing of it', () => {
  const staged = new StagedRatings(new IdSet());
  const foreign = { ownership: new Ownership('tt', 4), partition: -1 };
  const value = bytesOf({ day: 1, records: [[1, 5, 5]] });
  expect(() => staged.add(value, decoder, foreign, -1, 10)).toThrow(RejectedMessage);
  expect(staged.length).toBe(0);
});

/** Plausible readings of the rules that are wrong: what each makes of the log of a title, day and value, batch by batch. */
type Version = readonly [day: number, value: string];
const wrongReadings: Readonly<Record<string, (batches: readonly (readonly Version[])[]) => Version[]>> = {
  'a row where a batch changes what is stored': (batches) => {
    const rows: Version[] = [];
    for (const last of batches.map((batch) => batch.at(-1))) {
      if (last !== undefined && last[1] !== (rows.at(-1)?.[1] ?? 'gone')) rows.push(last);
    }
    return rows;
  },
  'an older dump withdraws nothing': (batches) => standing(batches.flat(), (day, later) => later === day),
  'the first version of a day counts': (batches) =>
    standing(batches.flat().reverse(), (day, later) => later <= day),
  'a day equal to the one before is a row': (batches) =>
    standing(batches.flat(), (day, later) => later <= day, false),
};

/** The versions that no later one withdraws, by day. */
function standing(
  log: readonly Version[],
  withdraws: (day: number, later: number) => boolean,
  isCompressed = true,
): Version[] {
  const left = log.filter(([day], at) => !log.slice(at + 1).some(([later]) => withdraws(day, later)));
  const days = [...left].sort(([a], [b]) => a - b);
  return isCompressed ? days.filter(([, value], at) => value !== (days[at - 1]?.[1] ?? 'gone')) : days;
}

test.each(Object.keys(wrongReadings))('the random logs tell the history from a wrong reading: %s', (name) => {
  const read = wrongReadings[name] as (typeof wrongReadings)[string];
  const differing = fc.sample(transactions, { numRuns: 40, seed: 1 }).filter((batches) => {
    const one = batches.map((batch) =>
      batch.flatMap(({ day, records: rated }): Version[] => {
        const last = rated.findLast(([title]) => title === 1);
        return last === undefined ? [] : [[day, `${Math.round(last[1] * 10)} ${last[2]}`]];
      }),
    );
    const log = one.flat().map(([day, value]): Message => {
      const [tenths, votes] = value.split(' ').map(Number) as [number, number];
      return { day, records: [[1, tenths / 10, votes]] };
    });
    const wrong = read(one).map(([day, value]) => `1 ${day} ${value}`);
    return wrong.join() !== modelOf(log).join();
  });
  expect(differing.length).toBeGreaterThan(0);
});

test('pruning deletes from the store what can never matter again', async () => {
  const log = Array.from({ length: 20 }, (_, i) => [dump(100 + i, [[1, 1 + (i % 9), 1]], [1])]);
  const gone = [dump(100, [[2, 5, 5]], [2]), dump(101, [], [2])];
  await historyOf([gone, ...log], 3, Array(21).fill(true));
  const stored = await store.connection.runAndReadAll(
    'SELECT tconst, day FROM sink.rating_days ORDER BY ALL',
  );
  // The cut-off is day 116: the newest row before it stays, because a message may still replace the one at it.
  expect(stored.getRowsJson()).toEqual([115, 116, 117, 118, 119].map((day) => [1, day]));
});
