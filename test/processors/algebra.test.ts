/**
 * The algebra of micro-batches on a real store, without a broker: whatever way a log of chunks is cut, repeated,
 * interleaved and interrupted, the published deltas add up to the cubes of the rows that the log leaves behind.
 * fast-check prints seed and path of a failure; pass them to `fc.assert` to see it again.
 */
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { writeBase } from '../../processors/cube-base.ts';
import { MicroBatch } from '../../processors/micro-batch.ts';
import { blockKey, idText, partitionOf } from '../../topics/catalog.ts';
import { toOf } from '../../topics/delta-wire.ts';
import { Ownership } from '../../topics/ownership.ts';
import { samePosition } from '../../topics/position.ts';
import {
  aka,
  basics,
  type Chunk,
  type CubeDataset,
  chunk,
  cubeDatasets,
  type decoderOf,
  dump,
  encodeChunk,
  key,
  principal,
  rating,
} from '../support/chunks.ts';
import { addDeltas, type Cubes } from '../support/cube-model.ts';
import { createStore, decoders, deltaSchemaId, identity, Lab, type Message } from '../support/shard-lab.ts';

// So that the smallest failure found until then is shown before the test's own time is up.
fc.configureGlobal({ interruptAfterTimeLimit: 30_000 });

/** What happens behind a message of the log. */
type Cut =
  /** Nothing: the micro-batch stays open. */
  | 'none'
  | 'commit'
  /** The next messages are staged while the transaction runs, as a shard does under load. */
  | 'overlap'
  | 'reopen'
  | 'crash';

interface Step {
  readonly message: Message;
  readonly cut: Cut;
}

const garbage = fc
  .tuple(fc.constantFrom(...cubeDatasets), fc.uint8Array({ maxLength: 20 }))
  .map(([dataset, bytes]): Message => ({ dataset, garbage: Buffer.from([9, ...bytes]) }));

const cut = fc.oneof(
  { weight: 5, arbitrary: fc.constant<Cut>('none') },
  { weight: 3, arbitrary: fc.constant<Cut>('commit') },
  { weight: 2, arbitrary: fc.constant<Cut>('overlap') },
  { weight: 1, arbitrary: fc.constant<Cut>('reopen') },
  { weight: 1, arbitrary: fc.constant<Cut>('crash') },
);

/** Chunks of all topics as they come: new ones, earlier ones once more, and bytes that are none. */
const steps: fc.Arbitrary<Step[]> = fc
  .array(
    fc.tuple(
      fc.oneof(
        { weight: 8, arbitrary: chunk },
        { weight: 2, arbitrary: fc.nat().map((again) => ({ again })) },
        { weight: 1, arbitrary: garbage },
      ),
      cut,
    ),
    { minLength: 1, maxLength: 14 },
  )
  .map((drawn) => {
    const log: Step[] = [];
    for (const [what, after] of drawn) {
      const message = 'again' in what ? log[what.again % Math.max(1, log.length)]?.message : what;
      if (message !== undefined) log.push({ message, cut: after });
    }
    return log;
  });

async function play(lab: Lab, log: readonly Step[]): Promise<void> {
  for (let i = 0; i < log.length; i++) {
    const { message, cut: after } = log[i] as Step;
    lab.stage(message);
    if (after === 'none') continue;
    if (after === 'crash') await lab.crash();
    await lab.commit(async () => {
      if (after !== 'overlap') return;
      for (; i + 1 < log.length; i++) {
        await setImmediate();
        lab.stage((log[i + 1] as Step).message);
        if ((log[i + 1] as Step).cut !== 'none') {
          i += 1;
          break;
        }
      }
    });
    if (after === 'reopen') await lab.reopen();
  }
  if (!lab.batch.isEmpty) await lab.commit();
}

/** A law that holds for a new lab and any value. */
const holds = <T>(
  numRuns: number,
  values: fc.Arbitrary<T>,
  law: (lab: Lab, value: T) => Promise<void>,
  options: { allKnown?: boolean } = {},
) =>
  fc.assert(
    fc.asyncProperty(values, async (value) => {
      const lab = await Lab.open(options);
      await law(lab, value);
      await lab.close();
    }),
    { numRuns },
  );

test('any split of any log into micro-batches, with repeats, crashes and reopening, gives the cubes of its last rows', async () => {
  await holds(45, steps, play);
});

test('deltas are the same when every row counts as known', async () => {
  await holds(18, steps, play, { allKnown: true });
});

test('a base is the sum of the earlier deltas, and replaying the same log changes nothing', async () => {
  await holds(14, steps, async (lab, log) => {
    await play(lab, log);
    const { moves } = lab;
    for (const { message } of log) lab.stage(message);
    await lab.commit();
    expect(lab.moves).toBe(moves);

    const { header, messages } = await writeBase(lab.store, deltaSchemaId);
    const base: Cubes = new Map();
    addDeltas(base, messages, deltaSchemaId);
    expect(base).toEqual(lab.cubes);
    expect(samePosition(toOf(header), lab.store.position)).toBe(true);
  });
});

test('a dump replayed in any split gives only duplicates and empty deltas', async () => {
  const cutDump = fc.tuple(dump, fc.infiniteStream(fc.boolean()));
  await holds(8, fc.tuple(cutDump, cutDump), async (lab, [[chunks, cuts], [changed]]) => {
    for (const each of [...chunks, ...changed, ...chunks]) lab.stage(each);
    await lab.commit();
    const { moves } = lab;
    for (const each of chunks) {
      lab.stage(each);
      if (cuts.next().value === true) expect((await lab.commit()).applied).toBe(0);
    }
    if (!lab.batch.isEmpty) expect((await lab.commit()).applied).toBe(0);
    expect(lab.moves).toBe(moves);
  });
});

test('a store that caught up silently in any split continues the deltas of the earlier store', async () => {
  await holds(8, fc.tuple(steps, steps, fc.infiniteStream(fc.boolean())), async (lab, [log, rest, cuts]) => {
    await play(lab, log);
    await lab.replace(() => cuts.next().value === true);
    await play(lab, rest);
  });
});

test('deltas do not depend on the order of the topics', async () => {
  const forward = [rating(1, 5.5, 7), basics(1, 'Drama'), principal(1, 1, 1), aka(1, 1, 'DE')];
  const datasets = ['title.ratings', 'title.basics', 'title.principals', 'title.akas'] as const;
  const chunks = forward.map(
    (row, i): Chunk => ({ dataset: datasets[i] as CubeDataset, records: [row], deletes: [] }),
  );
  const results: Cubes[] = [];
  for (const order of [chunks, [...chunks].reverse(), [...chunks.slice(2), ...chunks.slice(0, 2)]]) {
    for (const together of [true, false]) {
      const lab = await Lab.open();
      for (const each of order) {
        lab.stage(each);
        if (!together) await lab.commit();
      }
      if (together) await lab.commit();
      results.push(lab.cubes);
      await lab.close();
    }
  }
  for (const result of results) expect(result).toEqual(results[0]);
  // Three groups, and what each of the four datasets knows of the title.
  expect(results[0]?.size).toBe(7);
});

test('a row that changes and changes back within a micro-batch is a duplicate', async () => {
  const lab = await Lab.open();
  const original: Chunk = {
    dataset: 'title.basics',
    records: [basics(1, 'Drama'), basics(2, null)],
    deletes: [],
  };
  lab.stage(original);
  lab.stage({ dataset: 'title.ratings', records: [rating(1, 5.5), rating(2, 8.3)], deletes: [] });
  await lab.commit();
  lab.stage({ dataset: 'title.basics', records: [basics(1, 'Western'), basics(2, 'Drama')], deletes: [] });
  lab.stage(original);
  expect(await lab.commit()).toMatchObject({ applied: 0, duplicate: 4, deltaRows: 0 });
});

test('a delta holds no group that its micro-batch did not change', async () => {
  const lab = await Lab.open();
  lab.stage({ dataset: 'title.ratings', records: [rating(1, 5.5), rating(2, 5.5)], deletes: [] });
  lab.stage({ dataset: 'title.basics', records: [basics(1, 'Drama'), basics(2, 'Western')], deletes: [] });
  await lab.commit();
  lab.stage({ dataset: 'title.basics', records: [basics(1, 'Western'), basics(2, 'Drama')], deletes: [] });
  // Only each title's own features change, the old ones out and the new ones in.
  expect(await lab.commit()).toMatchObject({ applied: 2, duplicate: 0, deltaRows: 4 });
});

/** The key of what a dataset knows of a title. */
const featuresOf = (dataset: string, ...key: number[]) => JSON.stringify([`feature_${dataset}`, ...key]);

test('a repeated title counts with all its rows: within a chunk, within a micro-batch, and later', async () => {
  const lab = await Lab.open();
  lab.stage({ dataset: 'title.ratings', records: [rating(1, 5.5, 7), rating(2, 8.3, 9)], deletes: [] });
  const split = [principal(1, 1, 1), principal(2, 1, 1), principal(1, 2, 1)];
  lab.stage({ dataset: 'title.principals', records: split, deletes: [] });
  lab.stage({ dataset: 'title.principals', records: [principal(2, 2, 2), principal(1, 1, 2)], deletes: [] });
  await lab.commit();
  lab.stage({ dataset: 'title.principals', records: [principal(1, 3, 2), principal(2, 1, 2)], deletes: [] });
  await lab.commit();
  expect(lab.cubes).toEqual(
    new Map([
      ['["contributor",1,55]', [1, 1, 7]],
      ['["contributor",2,55]', [1, 2, 7]],
      ['["contributor",2,83]', [1, 2, 9]],
      [featuresOf('ratings', 1, 55), [1, 7]],
      [featuresOf('principals', 1), [3, 2]],
      [featuresOf('ratings', 2, 83), [1, 9]],
      [featuresOf('principals', 2), [2, 1]],
    ]),
  );
});

test('deletes subtract the contributions of their rows; later rows count again', async () => {
  const lab = await Lab.open();
  lab.stage({ dataset: 'title.ratings', records: [rating(1, 5.5, 7)], deletes: [] });
  lab.stage({ dataset: 'title.akas', records: [aka(1, 1, 'DE'), aka(1, 2, 'US')], deletes: [key(1, 2)] });
  await lab.commit();
  const regionOf = (region: string) => JSON.stringify(['region', region, 55]);
  const rated: [string, number[]] = [featuresOf('ratings', 1, 55), [1, 7]];
  const counted: [string, number[]] = [featuresOf('akas', 1), [1, 1]];
  expect(lab.cubes).toEqual(new Map([[regionOf('DE'), [1, 1, 7]], rated, counted]));
  lab.stage({ dataset: 'title.akas', records: [], deletes: [key(1, 1)] });
  lab.stage({ dataset: 'title.akas', records: [aka(1, 1, 'US')], deletes: [] });
  await lab.commit();
  expect(lab.cubes).toEqual(new Map([[regionOf('US'), [1, 1, 7]], rated, counted]));
  lab.stage({ dataset: 'title.ratings', records: [], deletes: [{ tconst: idText('tt', 1) }] });
  await lab.commit();
  expect(lab.cubes.size).toBe(0);
});

test('a micro-batch that does not start at the next offset is refused and changes nothing', async () => {
  const one: Chunk = { dataset: 'title.basics', records: [basics(1, 'Drama')], deletes: [] };
  for (const skipped of [-1, 1, 5]) {
    const lab = await Lab.open();
    lab.stage(one);
    await lab.commit();
    const { sources } = lab.store;
    lab.skip('title.basics', skipped);
    lab.stage(one);
    await expect(lab.apply(lab.batch)).rejects.toMatchObject({ kind: 'stateUnusable' });
    expect(lab.store.sources).toEqual(sources);
    await lab.reopen();
    expect((await lab.store.readOutbox()).length).toBe(1);
    await lab.close();
  }
});

test('a chunk with a row of another shard is rejected as a whole', async () => {
  const other = Array.from({ length: 100 }, (_, block) => block).find(
    (block) => partitionOf(blockKey('tt', block), 2) === 1,
  ) as number;
  const mine = Array.from({ length: 100 }, (_, block) => block).find(
    (block) => partitionOf(blockKey('tt', block), 2) === 0,
  ) as number;
  const store = await createStore({ ...identity, shards: 2 });
  const batch = new MicroBatch(0, store, store.projection, new Ownership('tt', 2));
  const add = (offset: number, ...ids: number[]) => {
    const value = encodeChunk({
      dataset: 'title.ratings',
      records: ids.map((id) => rating(id, 10)),
      deletes: [],
    });
    const message = { topic: 't', dataset: 'title.ratings', offset, timestampMs: 0, value } as const;
    batch.add(message, decoders['title.ratings'] as ReturnType<typeof decoderOf>, value);
  };
  add(0, mine * 10_000 + 1);
  add(1, mine * 10_000 + 2, other * 10_000 + 1, mine * 10_000 + 3);
  expect(batch.sources.get('t')).toMatchObject({ from: 0, to: 2, records: 4, rejected: 3 });
  expect(batch.rejected).toMatchObject([{ rejection: { reason: 'wrong_partition', records: 3 } }]);
  expect([...(batch.staged.get('title.ratings')?.records.column(0) ?? [])]).toEqual([mine * 10_000 + 1]);
});

test('words first seen during a commit are in the store after it is reopened', async () => {
  const lab = await Lab.open();
  const { connection } = lab.store;
  const run = connection.run.bind(connection);
  lab.stage({ dataset: 'title.basics', records: [basics(1, 'Drama')], deletes: [] });
  vi.spyOn(connection, 'run').mockImplementation(async (sql, ...rest) => {
    if (sql === 'COMMIT')
      lab.stage({ dataset: 'title.basics', records: [basics(2, 'Western')], deletes: [] });
    return run(sql, ...rest);
  });
  await lab.commit();
  vi.restoreAllMocks();
  await lab.commit();
  await lab.reopen();
  lab.stage({ dataset: 'title.ratings', records: [rating(1, 5.5), rating(2, 8.3)], deletes: [] });
  await lab.commit();
});
