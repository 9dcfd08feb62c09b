/**
 * The sink: one active member that follows all deltas and names, and publishes a snapshot of them from time to time.
 * Every delta is judged by the chain of its shard, so a republished outbox, a zombie, two owners or an old copy of a
 * store do no harm: what does not go on where the shard stands is refused and counted.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { asStorageError, storageFaultOf } from '../database/storage-errors.ts';
import { type Broker, clusterIdOf } from '../kafka/client.ts';
import { commitAlone, Membership } from '../kafka/membership.ts';
import { deleteBefore } from '../kafka/topics.ts';
import { isAbort, messageOf, ReelflowError } from '../runtime/errors.ts';
import { logEveryMinute } from '../runtime/logger.ts';
import type { TopicNames } from '../topics/catalog.ts';
import { ChunkDecoder } from '../topics/chunk.ts';
import type { Gaps, Position } from '../topics/position.ts';
import type { Registry } from '../topics/registry.ts';
import { CubeStore, type ShardState } from './cube-store.ts';
import { goldStorage } from './gold/gold-storage.ts';
import { currentSnapshot, type Manifest, readManifest, snapshotFolder } from './gold/manifest.ts';
import { newestSnapshots, retain, withGoldLock } from './gold/retention.ts';
import { publishSnapshot, requireCubes } from './gold/snapshot.ts';
import { Intake } from './intake.ts';
import { hasReached, isAhead } from './progress.ts';
import type { SinkMetrics } from './sink-metrics.ts';

export interface SinkOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  readonly gold: string;
  readonly state: string;
  /** Time between two snapshots, in milliseconds. */
  readonly intervalMs: number;
  /**
   * From its abort on: read up to the ends of that moment, publish if something moved, and end. Aborted already means
   * the ends of the start, without joining the group.
   */
  readonly finish?: AbortSignal;
  /** Snapshots that stay. */
  readonly keep: number;
  /** Bucket that follows the gold folder, `s3://bucket/prefix`. */
  readonly pushTo?: string;
  /** DuckDB's limit, as DuckDB writes sizes. */
  readonly memoryLimit: string;
  readonly reelflowVersion: string;
  readonly signal: AbortSignal;
  readonly onSnapshot?: (manifest: Manifest) => void;
  /** Called once its state is open. */
  readonly onOpen?: () => void;
  readonly metrics?: SinkMetrics;
}

export interface SinkReport {
  /** The newest snapshot that this run published, null when nothing had moved. */
  readonly snapshot: string | null;
  readonly snapshots: number;
  readonly deltas: number;
  readonly refused: number;
}

/** While following, messages gather for so long: a transaction costs the same for one as for hundreds. */
const gatherMs = 200;
/** How long a transaction or a publication may go on after SIGTERM, in milliseconds. */
const graceMs = 2_000;

/**
 * Runs the sink until `signal`, or once.
 * @throws ReelflowError busy, when another sink holds the gold folder; foreignCluster; deltasTrimmed; diskFull; …
 */
export async function runSink(options: SinkOptions): Promise<SinkReport> {
  const { gold, finish, broker, signal } = options;
  try {
    mkdirSync(join(gold, 'snapshots'), { recursive: true });
  } catch (thrown) {
    throw asStorageError(thrown, goldStorage(gold));
  }
  return withGoldLock(
    gold,
    {
      patienceMs: finish?.aborted === true ? 10_000 : 2_000,
      onWait: (pid) => broker.logger.info({ pid }, 'another sink holds the gold folder'),
    },
    async () => {
      const sink = new Sink(options);
      try {
        await sink.open();
        return await sink.run();
      } catch (thrown) {
        // SIGTERM while a message waited for the registry or a statement took its time: what was begun is rolled back.
        if (signal.aborted && (isAbort(thrown) || storageFaultOf(thrown) === 'interrupted'))
          return sink.report;
        throw thrown;
      } finally {
        await sink.close();
      }
    },
  );
}

class Sink {
  readonly #options: SinkOptions;
  readonly #namesTopic: string;
  #store!: CubeStore;
  #intake!: Intake;
  #membership: Membership | undefined;
  #clusterId = '';
  #schemas: Record<string, number> = {};
  #endLog: () => void = () => undefined;
  #isActive = false;
  #failure: unknown;
  /** What CURRENT in the bucket names. */
  #pushed: string | undefined;
  #snapshots = { snapshot: null as string | null, snapshots: 0 };

  get report(): SinkReport {
    return { ...this.#snapshots, deltas: this.#intake?.deltas ?? 0, refused: this.#intake?.refused ?? 0 };
  }

  constructor(options: SinkOptions) {
    this.#options = options;
    this.#namesTopic = options.names.source('name.basics');
  }

  async open(): Promise<void> {
    const { broker, registry, names, state, memoryLimit, gold } = this.#options;
    this.#clusterId = await clusterIdOf(broker);
    this.#checkGold();
    const folder = join(state, this.#clusterId, names.namespace === '' ? '_' : names.namespace);
    const identity = { clusterId: this.#clusterId, namespace: names.namespace };
    this.#store = await CubeStore.open(folder, identity, memoryLimit);
    this.#store.interruptAfter(this.#options.signal, graceMs);
    const deltaSchemaId = await registry.register(names.deltas, 'reelflow.deltas');
    const nameSchemaId = await registry.register(this.#namesTopic, 'imdb.name.basics');
    this.#schemas = {
      [`${names.deltas}-value`]: deltaSchemaId,
      [`${this.#namesTopic}-value`]: nameSchemaId,
    };
    const current = currentSnapshot(gold);
    if (this.#store.isEmpty && current !== undefined) await this.#restore(current);
    this.#intake = new Intake({
      ...this.#options,
      store: this.#store,
      deltaSchemaId,
      decoder: new ChunkDecoder('name.basics', nameSchemaId, registry),
      onCommit: async (positions) => this.#membership?.commit(positions),
    });
    await this.#intake.open();
    const { metrics, onOpen } = this.#options;
    const lags = () => this.#intake.lags();
    metrics?.open({
      lags,
      memoryBytes: () => this.#store.memoryBytes(),
      outageSeconds: () => broker.outages.seconds,
    });
    if (current !== undefined) metrics?.current(readManifest(gold, current));
    this.#endLog = logEveryMinute(
      broker.logger,
      'taken in',
      () => {
        const { deltas, refused, snapshots } = this.report;
        return { deltas, refused, names: this.#intake.people, snapshots };
      },
      () => ({ lagMessages: lags().reduce((sum, { messages }) => sum + messages, 0) }),
    );
    onOpen?.();
  }

  async run(): Promise<SinkReport> {
    const { finish, intervalMs, signal } = this.#options;
    if (finish?.aborted !== true) await this.#join();
    let publishAtMs = Date.now() + intervalMs;
    while (!signal.aborted && finish?.aborted !== true) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#intake.step();
      await sleep(gatherMs);
      if (Date.now() < publishAtMs) continue;
      if (this.#isActive && this.#isDue()) await this.#publish();
      if (this.#isActive) await this.#push('log');
      publishAtMs = Date.now() + intervalMs;
    }
    if (finish?.aborted === true) {
      await this.#intake.findTopics();
      await this.#intake.readTo(await this.#intake.ends());
      await this.#tellGroup();
      if (!signal.aborted && this.#isDue()) await this.#publish();
      if (!signal.aborted) await this.#push('throw');
    }
    return this.report;
  }

  async close(): Promise<void> {
    this.#endLog();
    this.#options.metrics?.close();
    await this.#membership?.leave();
    await this.#intake?.close();
    this.#store?.close();
  }

  /** Gold knows its cluster and namespace. */
  #checkGold(): void {
    const { gold, names } = this.#options;
    const current = currentSnapshot(gold);
    if (current === undefined) return;
    const { clusterId, namespace } = readManifest(gold, current);
    if (clusterId === this.#clusterId && namespace === names.namespace) return;
    throw new ReelflowError('foreignCluster', 'The gold folder belongs to another cluster or namespace', {
      detail: `${gold}: cluster ${clusterId}, namespace '${namespace}'; this is ${this.#clusterId}, '${names.namespace}'.`,
      hint: 'Use another --gold folder.',
    });
  }

  async #restore(id: string): Promise<void> {
    const { gold, broker } = this.#options;
    const manifest = readManifest(gold, id);
    broker.logger.warn({ snapshot: id }, 'the state is empty: restoring from the newest snapshot');
    const shards = Object.entries(manifest.shards).map(([shard, of]): ShardState => {
      const sources = Object.entries(of.sources);
      const position: Position = Object.fromEntries(sources.map(([topic, { next }]) => [topic, next]));
      const gaps: Gaps = Object.fromEntries(sources.map(([topic, { gaps }]) => [topic, gaps]));
      return {
        shard: Number(shard),
        shards: of.shards,
        chain: { generation: of.generation, cubeSet: of.cubeSet, position, gaps },
        next: manifest.deltas[shard] ?? 0,
        lastDelta: of.lastDelta,
        heldUntil: {},
        counts: Object.fromEntries(
          sources.map(([topic, { applied, duplicate, rejected }]) => [
            topic,
            { applied, duplicate, rejected },
          ]),
        ),
      };
    });
    await requireCubes(gold, manifest);
    await this.#store.restore(join(snapshotFolder(gold, id), 'cubes'), shards);
  }

  async #join(): Promise<void> {
    const { broker, names, signal, finish } = this.#options;
    const isOver = () => signal.aborted || finish?.aborted === true;
    while (this.#intake.partitions.size < 2 && !isOver()) {
      // Nothing is produced yet: there are no topics to subscribe to.
      await sleep(250);
      await this.#intake.findTopics();
    }
    if (isOver()) return;
    this.#membership = await Membership.join({
      broker,
      groupId: names.sinkGroup,
      topics: [...this.#intake.partitions.keys()],
      assignment: 'single',
      freshness: () => new Map([[0, this.#store.shards.size]]),
      onAssigned: (shards) => {
        this.#options.metrics?.rebalanced();
        this.#isActive = shards.length > 0;
      },
      onCrash: (reason) => {
        this.#failure ??= reason;
      },
    });
  }

  /** A sink that runs once is no member, and yet monitors shall see where it has come to. */
  async #tellGroup(): Promise<void> {
    if (this.#membership !== undefined) return;
    const { broker, names } = this.#options;
    const { shards, names: people } = this.#store;
    try {
      await commitAlone(broker, names.sinkGroup, [
        ...[...shards.values()].map(({ shard, next }) => ({ topic: names.deltas, partition: shard, next })),
        ...[...people.values()].map(({ partition, next }) => ({ topic: this.#namesTopic, partition, next })),
      ]);
    } catch (thrown) {
      // A sink that is a member tells by itself.
      broker.logger.debug({ reason: messageOf(thrown) }, 'positions not mirrored');
    }
  }

  /** Whether a snapshot would hold something that CURRENT does not, and all that it does. */
  #isDue(): boolean {
    if (this.#store.isEmpty) return false;
    const { gold } = this.#options;
    const id = currentSnapshot(gold);
    const current = id === undefined ? undefined : readManifest(gold, id);
    const held = { shards: this.#store.shards, names: this.#store.names, namesTopic: this.#namesTopic };
    return isAhead(held, current) && hasReached(held, current);
  }

  async #publish(): Promise<void> {
    const { gold, names, reelflowVersion, keep, broker, onSnapshot, metrics } = this.#options;
    if (this.#store.isEmpty) return;
    const startedMs = Date.now();
    const manifest = await this.#store.onAllThreads(() =>
      publishSnapshot(this.#store, {
        gold,
        namespace: names.namespace,
        clusterId: this.#clusterId,
        schemas: this.#schemas,
        namesTopic: this.#namesTopic,
        reelflowVersion,
      }),
    );
    const publishedMs = Date.now() - startedMs;
    const removed = retain(gold, keep);
    await this.#store.compact();
    await this.#trimDeltas();
    const rows = Object.fromEntries(Object.entries(manifest.tables).map(([name, of]) => [name, of.rows]));
    broker.logger.info(
      { snapshot: manifest.id, rows, removed, ms: Date.now() - startedMs },
      'snapshot published',
    );
    metrics?.published(manifest, publishedMs);
    this.#snapshots = { snapshot: manifest.id, snapshots: this.#snapshots.snapshots + 1 };
    onSnapshot?.(manifest);
  }

  /** Lets the bucket follow. One that cannot be reached is tried again at the next interval. */
  async #push(onFailure: 'log' | 'throw'): Promise<void> {
    const { gold, keep, pushTo, broker } = this.#options;
    const current = currentSnapshot(gold);
    if (pushTo === undefined || current === undefined || current === this.#pushed) return;
    const { pushGold } = await import('./gold/bucket.ts');
    try {
      const report = await pushGold(gold, pushTo, keep);
      this.#pushed = report.snapshot;
      broker.logger.info({ ...report, bucket: pushTo }, 'bucket follows');
    } catch (thrown) {
      const isPassing = thrown instanceof ReelflowError && thrown.kind === 'bucketUnusable';
      if (onFailure === 'throw' || !isPassing) throw thrown;
      broker.logger.warn({ reason: thrown.detail }, 'the bucket does not follow');
    }
  }

  /**
   * Deltas below the oldest snapshot that `keep` keeps are not needed any more; a pin keeps a snapshot, not the deltas
   * after it. What stays begins with the last delta that the oldest snapshot contains, so that whoever folds the
   * partition from its start finds a range that counts.
   */
  async #trimDeltas(): Promise<void> {
    const { gold, keep, broker, names } = this.#options;
    const [oldest] = newestSnapshots(gold, keep);
    if (oldest === undefined) return;
    const { shards } = readManifest(gold, oldest);
    const partitions = Object.entries(shards)
      .filter(([, { lastDelta }]) => lastDelta > 0)
      .map(([shard, { lastDelta }]) => ({ partition: Number(shard), offset: lastDelta }));
    if (partitions.length === 0) return;
    try {
      await deleteBefore(broker, names.deltas, partitions);
    } catch (thrown) {
      // The next snapshot trims as well; until then the deltas only take room.
      broker.logger.warn({ reason: messageOf(thrown) }, 'deltas not trimmed');
    }
  }
}
