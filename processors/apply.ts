/**
 * Applies one micro-batch to a store, in one DuckDB transaction:
 *
 * 1. guard: each source continues exactly at the store's next offset;
 * 2. find the changes (`changes.ts`);
 * 3. copy the rows of the affected titles; write the changes; contribution after minus before (`contributions.ts`);
 * 4. record: the difference as a delta in the outbox, position, last messages, counts and dead letters;
 * 5. commit.
 *
 * A micro-batch that reaches the end of a base writes the whole cubes in place of the difference: from there on the input
 * of the shard starts at the begin of the base.
 *
 * Publishing is a separate step that may fail or be repeated, because a delta is identified by its source range.
 */
import { DuckDBBlobValue } from '@duckdb/node-api';
import { storeDictionary } from '../database/stored-dictionary.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { cubeSetOf } from '../tables/cubes/cube-set.ts';
import { gapsAfterBase } from '../topics/base.ts';
import type { DatasetName } from '../topics/catalog.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import { type DeltaHeader, encodeDelta } from '../topics/delta-wire.ts';
import { sameGaps, withGap } from '../topics/position.ts';
import { differenceOf, noRecords, type RecordCounts, sumOf } from '../topics/record-counts.ts';
import { type Changes, findChanges, writeChanges } from './changes.ts';
import { cubeChanges, touchRows } from './contributions.ts';
import { baseHeader, wholeCubes } from './cube-base.ts';
import { lastMessageOf, type MicroBatch, type SourceProgress } from './micro-batch.ts';
import type { OutboxEntry, ShardStore, SourceState } from './shard-store.ts';

export interface AppliedBatch extends RecordCounts {
  /** Undefined during a silent catch-up, when other owners have published the range. */
  readonly entry: OutboxEntry | undefined;
  readonly deltaRows: number;
}

interface ApplyOptions {
  /** Registry id of the delta schema. */
  readonly deltaSchemaId: number;
  /** Write no delta: the store catches up to a position that is already published. */
  readonly silently: boolean;
  /** The dead letter of a rejected message: its bytes and its headers. */
  readonly deadLetterOf: (rejected: MicroBatch['rejected'][number]) => { value: Buffer; about: string };
  /** Outbox entries up to this number are published and leave the outbox with this transaction. */
  readonly publishedEntry: number;
}

/**
 * @throws ReelflowError stateUnusable if a source does not continue at the next offset; any error of DuckDB, with the
 *   transaction rolled back
 */
export async function applyMicroBatch(
  store: ShardStore,
  batch: MicroBatch,
  options: ApplyOptions,
): Promise<AppliedBatch> {
  guard(store, batch);
  batch.seal();
  const { connection } = store;
  await connection.run('BEGIN');
  try {
    const changes = new Map<DatasetName, Changes>();
    for (const staged of batch.staged.values()) {
      changes.set(staged.dataset, await findChanges(store, staged));
    }
    const counts = countSources(store, batch, changes);
    const isBase = !options.silently && counts.some(({ startsAtBase }) => startsAtBase);
    if (!options.silently && !isBase) await touchRows(store, changes);
    for (const [dataset, change] of changes) await writeChanges(store, dataset, change);
    crashPoint('after-append');
    let cubeRows: CubeRows[] | undefined;
    if (isBase) cubeRows = await wholeCubes(store);
    else if (!options.silently) cubeRows = await cubeChanges(store, changes);

    const sources = new Map([...store.sources, ...counts.map(({ state }) => [state.topic, state] as const)]);
    const header = isBase
      ? baseHeader(store, [...sources.values()], batch.recordTimeMs)
      : headerOf(store, batch, counts);
    const messages =
      cubeRows === undefined ? [] : encodeDelta(options.deltaSchemaId, header, cubeRows, store.dictionary);
    const entry = cubeRows === undefined ? undefined : { number: store.nextEntry, header, messages };
    const words = await record(store, batch, counts, entry, options);
    crashPoint('before-commit');
    await connection.run('COMMIT');

    store.sources = sources;
    // Not the dictionary's present size: the next micro-batch has added words since.
    store.dictionaryStored = words;
    if (entry !== undefined) store.nextEntry += 1;
    const total = (of: (count: SourceCount) => number) => counts.reduce((sum, count) => sum + of(count), 0);
    return {
      entry,
      applied: total(({ applied }) => applied),
      duplicate: total(({ duplicate }) => duplicate),
      rejected: total(({ rejected }) => rejected),
      removed: total(({ removed }) => removed),
      deltaRows: (cubeRows ?? []).reduce((sum, { length }) => sum + length, 0),
    };
  } catch (thrown) {
    await connection.run('ROLLBACK').catch(() => undefined);
    throw thrown;
  }
}

// 1. guard

function guard(store: ShardStore, batch: MicroBatch): void {
  for (const { topic, from } of batch.sources.values()) {
    const next = store.sources.get(topic)?.next ?? 0;
    if (from !== next) {
      throw new ReelflowError(
        'stateUnusable',
        'A micro-batch does not continue at the position of the store',
        {
          detail: `${topic}: expected offset ${next}, got ${from}.`,
          hint: 'Start the processor again: it continues at the position of its store.',
        },
      );
    }
  }
}

// 4. record

/** The counts of a source in this micro-batch. */
interface SourceCount extends RecordCounts {
  /** Its state after the micro-batch. */
  readonly state: SourceState;
  /** Whether the source starts at a base from this micro-batch on. */
  readonly startsAtBase: boolean;
}

function countSources(
  store: ShardStore,
  batch: MicroBatch,
  changes: ReadonlyMap<DatasetName, Changes>,
): SourceCount[] {
  return [...batch.sources.values()].map((source) => {
    const { topic, dataset, to, gap, records, rejected, last } = source;
    const change = changes.get(dataset);
    const removed = change?.removed ?? 0;
    const applied = (change?.freshCount ?? 0) + (change?.changed ?? 0) - removed;
    const duplicate = records - rejected - applied;
    const before = store.sources.get(topic);
    const gaps = before?.gaps ?? [];
    const counts = { applied, duplicate, rejected, removed };
    const state: SourceState = {
      topic,
      next: to,
      last: lastMessageOf(last),
      ...sumOf(before ?? noRecords, counts),
      gaps: gap === undefined ? gaps : withGap(gaps, gap),
      openBase: before?.openBase,
    };
    return { ...counts, ...afterMarks(source, state, before ?? noRecords) };
  });
}

/** What the marks of a base that a micro-batch has read make of the state of their source. */
function afterMarks(
  { from, beginsBase, endsBase, hasRefused }: SourceProgress,
  state: SourceState,
  { applied, duplicate, rejected, removed }: RecordCounts,
): Pick<SourceCount, 'state' | 'startsAtBase'> {
  // A refused message of a base leaves the rows that it should have replaced.
  const begun =
    beginsBase === undefined
      ? state.openBase
      : { id: beginsBase, begin: from, before: { applied, duplicate, rejected, removed } };
  const openBase = hasRefused === true ? undefined : begun;
  const isWhole = endsBase !== undefined && endsBase.id === openBase?.id;
  const base = isWhole ? { begin: openBase.begin, end: endsBase.next } : undefined;
  const gaps = base && gapsAfterBase(state.gaps, base);
  if (openBase === undefined || gaps === undefined)
    return { state: { ...state, openBase: isWhole ? undefined : openBase }, startsAtBase: false };
  return {
    state: { ...state, ...differenceOf(state, openBase.before), gaps, openBase: undefined },
    startsAtBase: !sameGaps({ [state.topic]: gaps }, { [state.topic]: state.gaps }),
  };
}

/** The range names every source of the shard, also those without new messages: it is a whole position. */
function headerOf(store: ShardStore, batch: MicroBatch, counts: readonly SourceCount[]): DeltaHeader {
  const { identity } = store;
  const moved = new Map(counts.map((count) => [count.state.topic, count]));
  const topics = new Set([...store.sources.keys(), ...moved.keys()]);
  return {
    shard: identity.shard,
    shards: identity.shards,
    generation: identity.generation,
    cubeSet: cubeSetOf(identity.cubeSet),
    storeId: store.writerId,
    kind: 'delta',
    range: [...topics].sort().map((topic) => {
      const count = moved.get(topic);
      const next = store.sources.get(topic)?.next ?? 0;
      return {
        topic,
        from: next,
        to: count?.state.next ?? next,
        applied: count?.applied ?? 0,
        duplicate: count?.duplicate ?? 0,
        rejected: count?.rejected ?? 0,
        removed: count?.removed ?? 0,
        gaps: (count?.state ?? store.sources.get(topic))?.gaps ?? [],
      };
    }),
    recordTimeMs: batch.recordTimeMs,
  };
}

/** @returns how many words of the dictionary the database holds after the commit */
async function record(
  store: ShardStore,
  batch: MicroBatch,
  counts: readonly SourceCount[],
  entry: OutboxEntry | undefined,
  options: ApplyOptions,
): Promise<number> {
  const { connection, catalog } = store;
  for (const { state } of counts) {
    const { topic, next, last, applied, duplicate, rejected, removed, gaps, openBase } = state;
    if (store.sources.has(topic))
      await connection.run(`DELETE FROM ${catalog}.source WHERE topic = $1`, [topic]);
    await connection.run(
      `INSERT INTO ${catalog}.source VALUES ($1, ${next}, $2, ${last.chunk}, $3, ${applied}, ${duplicate}, ${rejected}, $4, ${removed}, $5)`,
      [
        topic,
        last.runId,
        last.hash,
        JSON.stringify(gaps),
        openBase === undefined ? null : JSON.stringify(openBase),
      ],
    );
  }
  if (options.publishedEntry > 0) {
    await connection.run(`DELETE FROM ${catalog}.outbox WHERE number <= ${options.publishedEntry}`);
    await connection.run(`DELETE FROM ${catalog}.dead_letter WHERE number <= ${options.publishedEntry}`);
  }
  const words = await storeDictionary(
    connection,
    store.dictionaryTable,
    store.dictionary,
    store.dictionaryStored,
  );
  const number = entry?.number ?? store.nextEntry;
  if (entry !== undefined) await store.writeOutbox(entry);
  if (!options.silently) {
    for (const rejected of batch.rejected) {
      const { value, about } = options.deadLetterOf(rejected);
      await connection.run(`INSERT INTO ${catalog}.dead_letter VALUES (${number}, $1, $2)`, [
        new DuckDBBlobValue(value),
        about,
      ]);
    }
  }
  return words;
}
