import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { Follower } from '../../sinks/follower.ts';
import type { ShardState } from '../../sinks/shard-state.ts';
import { topicNamesIn } from '../../topics/catalog.ts';
import { decodeDeltaHeader } from '../../topics/delta-wire.ts';
import { groupOf } from '../../topics/id-groups.ts';
import { type Position, startAfter } from '../../topics/position.ts';
import {
  type Chunk,
  type CubeDataset,
  chunk,
  cubeDatasets,
  markChunk,
  rating,
  titleNumbers,
} from '../support/chunks.ts';
import { addDeltas, type Cubes } from '../support/cube-model.ts';
import { deltaSchemaId, Logs, type ShardOverLogs, shardOver } from '../support/shard-over-logs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const names = topicNamesIn('');
const topicOf = (dataset: CubeDataset) => names.source(dataset);
const groups = [...new Set(titleNumbers.map(groupOf))];

let folder: string;
let logs: Logs;
/** Every chunk of each topic, at its offset. */
let chunks: Map<string, Chunk[]>;
let open: ShardOverLogs | undefined;

async function begin(): Promise<void> {
  await open?.shard.close(0);
  open = undefined;
  folder = temporaryFolder();
  logs = new Logs();
  chunks = new Map();
}

beforeEach(begin);

function produce(...some: readonly Chunk[]): void {
  for (const one of some) {
    logs.produce(one);
    const topic = topicOf(one.dataset);
    chunks.set(topic, [...(chunks.get(topic) ?? []), one]);
  }
}

/** The rows that a topic holds now as a base, each group in a message of its own. @returns the offset of the begin */
function produceBase(dataset: CubeDataset, id = 'base', marks: readonly string[] = ['begin', 'end']): number {
  const begin = logs.of(topicOf(dataset)).length;
  const held = [...logs.rows.of[dataset].values()];
  if (marks.includes('begin')) produce(markChunk(dataset, 'begin', id));
  for (const group of groups) {
    const records = held.filter(
      (row) => groupOf(Number(String(row.tconst ?? row.titleId).slice(2))) === group,
    );
    produce({ dataset, records, deletes: [], replaces: [group] });
  }
  if (marks.includes('end')) produce(markChunk(dataset, 'end', id));
  return begin;
}

/** Opens the shard, in a new folder or with the state of the last one, and publishes up to a position. */
async function publishTo(target: Position, state: 'kept' | 'lost' = 'kept'): Promise<void> {
  await open?.shard.close(0);
  if (state === 'lost') folder = temporaryFolder();
  open = shardOver(logs, folder);
  await open.shard.open(target);
  await open.until(target);
}

/** What the sink makes of the published deltas. */
function published(): { cubes: Cubes; state: ShardState } {
  const follower = new Follower<Buffer>();
  let cubes: Cubes = new Map();
  for (const [offset, value] of logs.deltas.entries()) {
    const { header } = decodeDeltaHeader(value, deltaSchemaId);
    const { verdict, parts } = follower.follow(header, offset, value);
    expect(verdict, `delta ${offset}`).not.toBe('refuse');
    if (verdict === 'apply' && header.kind === 'base') cubes = new Map();
    addDeltas(cubes, parts, deltaSchemaId);
  }
  return { cubes, state: follower.state as ShardState };
}

/** Records in [start, next) = applied + duplicate + rejected, for each topic. */
function expectAccounted(state: ShardState, starts: ReadonlyMap<string, number>): void {
  for (const [topic, { applied, duplicate, rejected }] of Object.entries(state.counts)) {
    const start = startAfter(state.chain.gaps[topic] ?? []);
    expect(start, topic).toBe(starts.get(topic) ?? 0);
    const counted = (chunks.get(topic) ?? []).slice(start, state.chain.position[topic]);
    const records = counted.reduce((sum, one) => sum + one.records.length + one.deletes.length, 0);
    expect(applied + duplicate + rejected, topic).toBe(records);
  }
}

const someChunks = fc.array(chunk, { maxLength: 8 });

test('cubes are those of the whole log after a base, from any store, with and without the messages before it', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        before: someChunks,
        between: someChunks,
        after: someChunks,
        based: fc.subarray([...cubeDatasets], { minLength: 1 }),
        isDeleted: fc.boolean(),
        isLost: fc.boolean(),
        stopsInside: fc.boolean(),
      }),
      async ({ before, between, after, based, isDeleted, isLost, stopsInside }) => {
        await begin();
        produce(...before);
        await publishTo(logs.ends);
        produce(...between);
        if (stopsInside) await publishTo(logs.ends);
        const begins = new Map(based.map((dataset) => [topicOf(dataset), produceBase(dataset)]));
        if (isDeleted) for (const [topic, start] of begins) logs.starts.set(topic, start);
        produce(...after);
        await publishTo(logs.ends, isLost ? 'lost' : 'kept');
        const { cubes, state } = published();
        expect(cubes).toEqual(logs.rows.cubes());
        expectAccounted(state, begins);
      },
    ),
    { numRuns: 8 },
  );
}, 600_000);

const ratings = topicOf('title.ratings');

describe('a topic without the messages before a base', () => {
  const story = () => {
    produce({ dataset: 'title.ratings', records: [rating(1, 7), rating(9_999, 5)], deletes: [] });
  };

  test('leaves no row of a store from before a row vanished', async () => {
    story();
    await publishTo(logs.ends);
    // The group is emptied before the base, which has no reason to repeat that.
    produce({ dataset: 'title.ratings', records: [], deletes: [], replaces: [groupOf(9_999)] });
    const begin = logs.of(ratings).length;
    produce(markChunk('title.ratings', 'begin', 'base'));
    produce({ dataset: 'title.ratings', records: [rating(1, 7)], deletes: [], replaces: [groupOf(1)] });
    produce(markChunk('title.ratings', 'end', 'base'));
    logs.starts.set(ratings, begin);
    await publishTo(logs.ends);
    expect(published().cubes).toEqual(logs.rows.cubes());
  });

  test('is refused where the base has no end, or ends another one', async () => {
    for (const [id, marks] of [
      ['killed', ['begin']],
      ['endless', ['end']],
    ] as const) {
      await begin();
      story();
      logs.starts.set(ratings, produceBase('title.ratings', id, marks));
      produce(markChunk('title.ratings', 'end', 'another'));
      await expect(publishTo(logs.ends)).rejects.toMatchObject({ kind: 'sourceLost' });
    }
  });

  test('is a base for a store only behind its end: what was published inside it is published again', async () => {
    story();
    const begin = logs.of(ratings).length;
    const endOf = () => ({ ...logs.ends });
    produce(markChunk('title.ratings', 'begin', 'base'));
    produce({ dataset: 'title.ratings', records: [rating(1, 9)], deletes: [], replaces: [groupOf(1)] });
    await publishTo(endOf());
    produce({
      dataset: 'title.ratings',
      records: [rating(9_999, 5)],
      deletes: [],
      replaces: [groupOf(9_999)],
    });
    produce(markChunk('title.ratings', 'end', 'base'));
    logs.starts.set(ratings, begin);
    await publishTo(endOf(), 'lost');
    const { cubes, state } = published();
    expect(cubes).toEqual(logs.rows.cubes());
    expectAccounted(state, new Map([[ratings, begin]]));
    const kinds = logs.deltas.map((value) => decodeDeltaHeader(value, deltaSchemaId).header.kind);
    expect(kinds).toEqual(['delta', 'delta', 'base']);
  });

  test('needs them if a message of the base was refused, which should have replaced them', async () => {
    story();
    produce(markChunk('title.ratings', 'begin', 'base'));
    logs.of(ratings).push(Buffer.from('damaged'));
    produce(markChunk('title.ratings', 'end', 'base'));
    await publishTo(logs.ends);
    const { cubes, state } = published();
    expect(cubes).toEqual(logs.rows.cubes());
    expect(state.chain.gaps[ratings]).toEqual([]);
  });

  test('gives a rebuilt store the published state: it publishes nothing', async () => {
    story();
    const begin = produceBase('title.ratings');
    await publishTo(logs.ends);
    const { length } = logs.deltas;
    logs.starts.set(ratings, begin);
    await publishTo(logs.ends, 'lost');
    expect(logs.deltas).toHaveLength(length);
  });
});
