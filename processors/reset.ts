/**
 * A reset begins a new generation with a mark in every partition of the delta topic. Stores and deltas of earlier
 * generations become invalid. The mark names the present end offsets of the sources. The sink publishes no snapshot before
 * it reaches them again, so CURRENT stays until a snapshot that is as complete replaces it.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { type LogBounds, logBounds } from '../kafka/bounds.ts';
import { type Broker, withAdmin } from '../kafka/client.ts';
import { asBrokerError } from '../kafka/failures.ts';
import { coordinatorPatienceMs, withCoordinator } from '../kafka/groups.ts';
import { LogReader } from '../kafka/log.ts';
import { commitAlone, sessionTimeoutMs } from '../kafka/membership.ts';
import { partitionCounts } from '../kafka/topics.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { cubes } from '../tables/cubes/cube-set.ts';
import { datasetNames, type TopicNames } from '../topics/catalog.ts';
import { encodeDelta } from '../topics/delta-wire.ts';
import { nextIn } from '../topics/position.ts';
import type { Registry } from '../topics/registry.ts';
import { Publisher } from './publisher.ts';
import { nextGeneration, publishMarks } from './reset-marks.ts';
import { ShardRequests } from './shard-requests.ts';

interface ResetOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  /** The generation of the newest snapshot, because a recreated delta topic has lost it; 0 without a snapshot. */
  readonly generationMin: number;
  /** Report what would happen and change nothing. */
  readonly dryRun: boolean;
}

interface ResetReport {
  readonly generation: number;
  readonly shards: number;
  /** Messages of the source topics that will be processed again. */
  readonly messages: number;
  /** Published records that will be processed again; null if trimmed deltas no longer show their number. */
  readonly records: number | null;
}

/** The coordinator checks sessions with some delay. */
const leaveMarginMs = 2_000;
/** How long a reset waits for the brokers in total, in milliseconds. */
const patienceMs = 30_000;

/**
 * Waits for a session for members that have ended to leave their groups; a dry run changes nothing and does not mind members.
 * @throws ReelflowError busy, while the processor or the sink group has members; input, if there is nothing to reset, or
 *   if a topic with published rows is empty now
 */
export async function reset({
  broker,
  registry,
  names,
  generationMin,
  dryRun,
}: ResetOptions): Promise<ResetReport> {
  if (!dryRun) await refuseWhileActive(broker, [names.processorGroup, names.sinkGroup]);
  const sources = await readSources(broker, names);
  const counts = await partitionCounts(broker, [names.deltas, ...sources]);
  const shards = counts.get(names.deltas);
  if (shards === undefined) {
    throw new ReelflowError('input', 'There is nothing to reset', {
      detail: `The topic ${names.deltas} does not exist.`,
      hint: 'Check --namespace.',
    });
  }
  const bounds = await logBounds(broker, [names.deltas, ...sources]);
  const schema = [names.deltas, 'reelflow.deltas'] as const;
  const deltaSchemaId = await (dryRun ? registry.registered(...schema) : registry.register(...schema));
  const producer = broker.kafka.producer({ allowAutoTopicCreation: false });
  const reader = new LogReader(broker);
  const context = {
    producer,
    reader,
    bounds: (topics: readonly string[]) => logBounds(broker, topics),
    endpoints: broker.endpoints,
    outages: broker.outages,
    signal: AbortSignal.timeout(patienceMs),
  };
  try {
    const publishers = new Map<number, Publisher>();
    let isTrimmed = false;
    for (let shard = 0; shard < shards; shard++) {
      const { start, end } = bounds.get(names.deltas)?.get(shard) ?? { start: 0, end: 0 };
      const requests = new ShardRequests(shard, context);
      const publisher = new Publisher(
        { producer: requests, reader: requests, topic: names.deltas, shard, deltaSchemaId },
        start,
      );
      await publisher.fold(end);
      publishers.set(shard, publisher);
      isTrimmed ||= start > 0;
    }
    const all = [...publishers.values()];
    refuseWhileEmpty(all, bounds);
    const records = isTrimmed ? null : all.reduce((sum, { records: seen }) => sum + seen, 0);
    let messages = 0;
    for (const topic of sources) {
      for (const { start, end } of bounds.get(topic)?.values() ?? []) messages += end - start;
    }
    const marking = { publishers, generationMin };
    let generation = nextGeneration(marking);
    if (!dryRun) {
      await producer.connect();
      generation = await publishMarks({
        ...marking,
        endsOf: (shard) =>
          Object.fromEntries(sources.map((topic) => [topic, bounds.get(topic)?.get(shard)?.end ?? 0])),
        encode: (mark) => encodeDelta(deltaSchemaId, mark),
      });
      // Without these commits monitors would show no lag until a processor starts.
      const processed = sources.filter((topic) => topic !== names.source('name.basics'));
      const partitions = Array.from({ length: shards }, (_, partition) => partition);
      await commitAlone(
        broker,
        names.processorGroup,
        processed.flatMap((topic) => partitions.map((partition) => ({ topic, partition, next: 0 }))),
      );
    }
    return { generation, shards, messages, records };
  } catch (thrown) {
    throw asBrokerError(thrown, broker.endpoints);
  } finally {
    await producer.disconnect();
    await reader.close();
  }
}

/** The existing topics among those that processors and sink read. */
async function readSources(broker: Broker, names: TopicNames): Promise<string[]> {
  const read = new Set<string>(['name.basics', ...cubes.flatMap((cube) => Object.keys(cube.reads))]);
  const topics = datasetNames.filter((dataset) => read.has(dataset)).map((dataset) => names.source(dataset));
  return [...(await partitionCounts(broker, topics)).keys()];
}

/** With an empty topic the mark would demand none of its rows, and a snapshot without them would replace CURRENT. */
function refuseWhileEmpty(
  publishers: readonly Publisher[],
  bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
): void {
  const published = new Set(
    publishers.flatMap(({ published: { position } }) =>
      Object.keys(position).filter((topic) => nextIn(position, topic) > 0),
    ),
  );
  for (const topic of published) {
    const ends = [...(bounds.get(topic)?.values() ?? [])];
    if (ends.some(({ end }) => end > 0)) continue;
    throw new ReelflowError('input', 'A topic with published rows is empty now', {
      detail: `${topic}: a snapshot without these rows would replace CURRENT.`,
      hint: 'Replay its dataset first, then run `reelflow reset`.',
    });
  }
}

/** A member that was killed, or that had no time to leave, stays in its group for a session. */
async function refuseWhileActive(broker: Broker, groups: readonly string[]): Promise<void> {
  const startedMs = performance.now();
  for (;;) {
    const active = await activeGroups(broker, groups);
    const [first] = active;
    if (first === undefined) return;
    if (performance.now() - startedMs > sessionTimeoutMs + leaveMarginMs) {
      throw new ReelflowError('busy', 'Members are active', {
        detail: `Group ${first.groupId} has ${first.hosts.length}: ${first.hosts.join(', ')}.`,
        hint: 'End processors and sink first.',
      });
    }
    await sleep(500);
  }
}

async function activeGroups(broker: Broker, groups: readonly string[]) {
  const { groups: described } = await withAdmin(broker, (admin) =>
    withCoordinator(() => admin.describeGroups([...groups]), coordinatorPatienceMs.acting),
  );
  return described
    .filter(({ members }) => members.length > 0)
    .map(({ groupId, members }) => ({ groupId, hosts: members.map(({ clientHost }) => clientHost) }));
}
