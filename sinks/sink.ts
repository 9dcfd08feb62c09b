/**
 * The sink: one active member that follows all deltas and names, and publishes them as a snapshot at an interval. The chain
 * of each shard judges every delta, so repeated outboxes, zombies, two owners and old copies of stores do no harm: a delta
 * that does not continue the chain is refused and counted.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { confine } from '../database/duckdb.ts';
import { asStorageError, storageFaultOf } from '../database/storage-errors.ts';
import { type Broker, clusterIdOf } from '../kafka/client.ts';
import { isPassing } from '../kafka/failures.ts';
import { commitAlone, Membership } from '../kafka/membership.ts';
import { untilServed } from '../kafka/outage.ts';
import { isAbort, messageOf, ReelflowError, reasonOf } from '../runtime/errors.ts';
import { makeFolder } from '../runtime/files.ts';
import { logEveryMinute } from '../runtime/logger.ts';
import { builtIn, type Declarations, hasUserDeclarations } from '../tables/built-in.ts';
import { projectionOf } from '../tables/cubes/cube-set.ts';
import { readsTitleNames } from '../tables/gold-tables.ts';
import { namespaceFolder, type TopicNames } from '../topics/catalog.ts';
import { ChunkDecoder } from '../topics/chunk.ts';
import type { Registry } from '../topics/registry.ts';
import { readChecked } from './checked.ts';
import { CubeStore } from './cube-store.ts';
import { withGoldLock } from './gold/gold-lock.ts';
import { goldStorage } from './gold/gold-storage.ts';
import type { Lake, LakePlace } from './gold/lake.ts';
import { currentManifest, type Manifest } from './gold/manifest.ts';
import type { Keep } from './gold/retention.ts';
import { Intake } from './intake.ts';
import { LevelIntake, type LevelState } from './level-intake.ts';
import { Publication } from './publication.ts';
import { restoreFrom } from './restore.ts';
import type { SinkMetrics } from './sink-metrics.ts';
import { SourceTrim, type TrimMode } from './source-trim.ts';

interface SinkOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  readonly gold: string;
  readonly state: string;
  /** Time between two snapshots, in milliseconds. */
  readonly intervalMs: number;
  /**
   * When it aborts, the sink reads up to the present end offsets, publishes if something changed, and ends. If it has aborted
   * at the start, the sink does not join the group.
   */
  readonly finish?: AbortSignal;
  /** Which snapshots stay. */
  readonly keep: Keep;
  /** Bucket that receives every snapshot, `s3://bucket/prefix`. */
  readonly pushTo?: string;
  /** Length of the history of ratings, in days before the newest dump. Default: as it is, else `newHistoryDays`. */
  readonly historyDays?: number;
  /** Whether `historyDays` may differ from the length so far. Default false. */
  readonly acceptLoss?: boolean;
  /** Catalogue that shows every snapshot. */
  readonly lake?: LakePlace;
  /** Whether messages before a base that nothing needs any more are deleted. Default: `delete`. */
  readonly trim?: TrimMode;
  /** DuckDB's limit, as DuckDB writes sizes. */
  readonly memoryLimit: string;
  readonly reelflowVersion: string;
  readonly signal: AbortSignal;
  /** Called when CURRENT names a new snapshot, before old ones are removed and topics are trimmed. */
  readonly onSnapshot?: () => void;
  /** Called once the state is open. */
  readonly onOpen?: () => void;
  readonly metrics?: SinkMetrics;
  /** Cubes and gold tables; default the built-in ones. */
  readonly declarations?: Declarations;
}

export interface SinkReport {
  /** The newest snapshot that this run published, null if nothing changed. */
  readonly snapshot: string | null;
  readonly snapshots: number;
  readonly deltas: number;
  readonly refused: number;
  /** Messages of source topics that were deleted because a base has replaced them; with `report`, those that could be. */
  readonly deleted: number;
}

interface Beside {
  readonly intake: Pick<LevelIntake<LevelState>, 'advance' | 'level' | 'isLevel' | 'close'>;
  /** Whether it is read all the time, not only before a publication. */
  readonly readsAlong: boolean;
}

/** Pause between two steps, in which messages gather: a transaction costs the same for one message as for hundreds. */
const gatherMs = 200;
/** How long a transaction or a publication may continue after SIGTERM. */
const graceMs = 2_000;

/**
 * Runs the sink until `signal`, or until `finish` has ended it.
 * @throws ReelflowError busy, if another sink holds the gold folder; foreignCluster; deltasTrimmed; diskFull; …
 */
export async function runSink(options: SinkOptions): Promise<SinkReport> {
  const { gold, finish, broker, signal } = options;
  try {
    makeFolder(join(gold, 'snapshots'));
  } catch (thrown) {
    throw asStorageError(thrown, goldStorage(gold));
  }
  return withGoldLock(
    gold,
    {
      patienceMs: finish?.aborted === true ? 10_000 : 2_000,
      onWait: (owner) => broker.logger.info({ owner }, 'another process holds the gold folder'),
    },
    async () => {
      const sink = new Sink(options);
      try {
        await sink.open();
        return await sink.run();
      } catch (thrown) {
        // SIGTERM while it waited for a service or ran a long statement: the work is rolled back.
        const isEnd =
          thrown === signal.reason ||
          isAbort(thrown) ||
          isPassing(thrown) ||
          storageFaultOf(thrown) === 'interrupted';
        if (signal.aborted && isEnd) return sink.report;
        throw thrown;
      } finally {
        await sink.close();
      }
    },
  );
}

class Sink {
  readonly #options: SinkOptions;
  readonly #peopleTopic: string;
  readonly #declarations: Declarations;
  #store!: CubeStore;
  #intake!: Intake;
  /** What is read beside the cubes: the history of ratings and, if a table shows them, the names of titles. */
  #beside: Beside[] = [];
  #publication!: Publication;
  #trim: SourceTrim | undefined;
  #membership: Membership | undefined;
  #endLog: () => void = () => undefined;
  #isActive = false;
  #failure: unknown;
  #snapshots = { snapshot: null as string | null, snapshots: 0 };

  get report(): SinkReport {
    return {
      ...this.#snapshots,
      deltas: this.#intake?.deltas ?? 0,
      refused: this.#intake?.refused ?? 0,
      deleted: this.#trim?.deleted ?? 0,
    };
  }

  constructor(options: SinkOptions) {
    this.#options = options;
    this.#declarations = options.declarations ?? builtIn;
    this.#peopleTopic = options.names.source('name.basics');
  }

  async open(): Promise<void> {
    const { broker, registry, names, state, memoryLimit, gold, signal, metrics, onOpen } = this.#options;
    const clusterId = await clusterIdOf(broker);
    const current = this.#requireOwnGold(clusterId);
    const lake = await this.#lakeOf(clusterId);
    await lake?.open().catch((thrown: unknown) => {
      // Gold does not depend on it: the next publication reports and counts this.
      if (!(thrown instanceof ReelflowError) || thrown.kind !== 'lakeUnusable') throw thrown;
      broker.logger.warn({ reason: thrown.detail }, 'lake not readable');
    });
    const folder = join(state, clusterId, namespaceFolder(names.namespace));
    const identity = { clusterId, namespace: names.namespace };
    const { cubes } = this.#declarations;
    const store = await CubeStore.open(folder, identity, memoryLimit, cubes);
    this.#store = store;
    // The settings stay open, because the sink changes the number of threads. A statement of a user is one SELECT.
    if (hasUserDeclarations(this.#declarations)) await confine(store.connection, [folder, gold], 'open');
    store.interruptAfter(signal, graceMs);
    const topic = names.source('title.ratings');
    const [deltaSchemaId, peopleSchemaId, ratingsSchemaId] = await Promise.all([
      registry.register(names.deltas, 'reelflow.deltas'),
      registry.register(this.#peopleTopic, 'imdb.name.basics'),
      registry.register(topic, 'imdb.title.ratings'),
    ]);
    const schemas: Record<string, number> = {
      [`${names.deltas}-value`]: deltaSchemaId,
      [`${this.#peopleTopic}-value`]: peopleSchemaId,
      [`${topic}-value`]: ratingsSchemaId,
    };
    const { history } = current ?? {};
    const historyDays = store.ratings.daysToKeep({
      wanted: this.#options.historyDays,
      published: typeof history?.newest === 'string' ? history.days : undefined,
      acceptLoss: this.#options.acceptLoss === true,
    });
    if (store.isEmpty && current !== undefined) {
      await restoreFrom(store, gold, current, broker.logger);
    }
    this.#publication = new Publication({
      ...this.#options,
      declarations: this.#declarations,
      historyDays,
      store,
      folder,
      clusterId,
      schemas,
      lake,
    });
    this.#intake = new Intake({
      ...this.#options,
      store,
      deltaSchemaId,
      decoder: new ChunkDecoder('name.basics', peopleSchemaId, registry),
      onCommit: (commits) => this.#membership?.commit(commits),
    });
    store.ratings.readFrom({
      decoder: new ChunkDecoder('title.ratings', ratingsSchemaId, registry),
      historyDays,
    });
    this.#beside.push({
      intake: new LevelIntake({
        ...{ broker, store, topic, signal },
        dataset: store.ratings,
        crashPoint: 'after-history-commit',
      }),
      // Several versions of a title cost least together.
      readsAlong: false,
    });
    if (this.#declarations.tables.some(readsTitleNames)) await this.#readTitles(schemas);
    this.#trim = new SourceTrim({
      broker,
      names,
      mode: this.#options.trim ?? 'delete',
      ratingsKeptFrom: (partition) => store.ratings.neededFrom(partition),
      metrics,
    });
    await this.#intake.open();
    const lags = () => this.#intake.lags();
    metrics?.open({
      lags,
      memoryBytes: () => store.memoryBytes(),
      outageSeconds: () => ({ broker: broker.outages.seconds, registry: registry.outage?.seconds ?? 0 }),
    });
    if (current !== undefined) {
      metrics?.current(current);
      metrics?.checked(readChecked(folder, current.id)?.at ?? current.created);
    }
    this.#endLog = logEveryMinute(
      broker.logger,
      'applied',
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
    // The wall clock may step back, and then nothing would be published until it has caught up.
    let publishAtMs = performance.now() + intervalMs;
    while (!signal.aborted && finish?.aborted !== true) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#intake.step();
      await this.#readAlong();
      await this.#gather();
      if (performance.now() < publishAtMs) continue;
      if (this.#isActive && (await this.#publication.isDue()) && (await this.#isLevel()))
        await this.#publish();
      if (this.#isActive) await this.#publication.register('log');
      if (this.#isActive) await this.#publication.push('log');
      if (this.#isActive) await this.#trimSources();
      publishAtMs = performance.now() + intervalMs;
    }
    if (finish?.aborted === true) {
      await this.#untilServed(() => this.#intake.findTopics());
      await this.#intake.readTo(await this.#untilServed(() => this.#intake.bounds()));
      await this.#commitAlone();
      if (!signal.aborted && (await this.#publication.isDue())) {
        for (const { intake } of this.#beside) await this.#untilServed(() => intake.level());
        if (!signal.aborted) await this.#publish();
      }
      if (!signal.aborted) await this.#publication.register('throw');
      if (!signal.aborted) await this.#publication.push('throw');
      if (!signal.aborted) await this.#trimSources();
    }
    return this.report;
  }

  /** Waits until messages have gathered, or until the sink is to finish. */
  async #gather(): Promise<void> {
    const { finish, signal } = this.#options;
    const end = AbortSignal.any(finish === undefined ? [signal] : [signal, finish]);
    await sleep(gatherMs, undefined, { signal: end }).catch(() => undefined);
  }

  async close(): Promise<void> {
    this.#endLog();
    this.#options.metrics?.close();
    await this.#membership?.leave();
    await this.#intake?.close();
    for (const { intake } of this.#beside) await intake.close();
    this.#store?.close();
  }

  /** @returns the manifest of CURRENT. @throws ReelflowError foreignCluster */
  #requireOwnGold(clusterId: string): Manifest | undefined {
    const { gold, names } = this.#options;
    const current = currentManifest(gold);
    if (current === undefined) return undefined;
    if (current.clusterId === clusterId && current.namespace === names.namespace) return current;
    throw new ReelflowError('foreignCluster', 'The gold folder belongs to another cluster or namespace', {
      detail: `${gold}: cluster ${current.clusterId}, namespace '${current.namespace}'; this is ${clusterId}, '${names.namespace}'.`,
      hint: 'Use another --gold folder.',
    });
  }

  async #lakeOf(clusterId: string): Promise<Lake | undefined> {
    const { lake, gold, names, pushTo } = this.#options;
    if (lake === undefined) return undefined;
    const bucket = lake.kind === 'object' ? pushTo : undefined;
    const { Lake } = await import('./gold/lake.ts');
    return new Lake(lake, { gold, clusterId, namespace: names.namespace, bucket });
  }

  #untilServed<T>(work: () => Promise<T>): Promise<T> {
    const { broker, signal } = this.#options;
    return untilServed(broker.outages, 'reading', work, signal);
  }

  async #join(): Promise<void> {
    const { broker, names, signal, finish } = this.#options;
    const isOver = () => signal.aborted || finish?.aborted === true;
    while (this.#intake.partitions.size < 2 && !isOver()) {
      // Before the first replay there are no topics to subscribe to.
      await sleep(250);
      await this.#untilServed(() => this.#intake.findTopics());
    }
    if (isOver()) return;
    this.#membership = await this.#untilServed(() =>
      Membership.join({
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
      }),
    );
  }

  /** Commits for monitors, without a membership. */
  async #commitAlone(): Promise<void> {
    if (this.#membership !== undefined) return;
    const { broker, names } = this.#options;
    const { shards, peopleStates } = this.#store;
    try {
      await commitAlone(broker, names.sinkGroup, [
        ...[...shards.values()].map(({ shard, next }) => ({ topic: names.deltas, partition: shard, next })),
        ...[...peopleStates.values()].map(({ partition, next }) => ({
          topic: this.#peopleTopic,
          partition,
          next,
        })),
      ]);
    } catch (thrown) {
      // The group has a member, which commits its own positions.
      if (thrown instanceof ReelflowError && thrown.kind === 'busy') return;
      // Gold does not depend on it.
      broker.logger.warn(
        { reason: reasonOf(thrown) },
        'offsets not committed: the lag of the sink stays as it was',
      );
    }
  }

  /** Reads the names of titles. They are read along with the cubes, so that little is left before a publication. */
  async #readTitles(schemas: Record<string, number>): Promise<void> {
    const { broker, registry, names, signal } = this.#options;
    const topic = names.source('title.basics');
    const schemaId = await registry.register(topic, 'imdb.title.basics');
    schemas[`${topic}-value`] = schemaId;
    const store = this.#store;
    store.titles.readFrom({
      topic,
      decoder: new ChunkDecoder('title.basics', schemaId, registry),
      checked: projectionOf(this.#declarations.cubes).get('title.basics') ?? [],
    });
    const intake = new LevelIntake({
      ...{ broker, store, topic, signal },
      dataset: store.titles,
      crashPoint: 'after-titles-commit',
    });
    this.#beside.push({ intake, readsAlong: true });
  }

  async #readAlong(): Promise<void> {
    for (const { intake, readsAlong } of this.#beside) {
      if (readsAlong) await this.#orLater(() => intake.advance());
    }
  }

  /** Brings what is read beside the cubes to where they are. */
  async #isLevel(): Promise<boolean> {
    for (const { intake } of this.#beside) await this.#orLater(() => intake.level());
    return this.#beside.every(({ intake }) => intake.isLevel);
  }

  /** Without an answer of the broker a later step tries again. */
  async #orLater(read: () => Promise<unknown>): Promise<void> {
    const { outages } = this.#options.broker;
    try {
      await read();
      outages.resumes('reading beside the cubes');
    } catch (thrown) {
      if (!isPassing(thrown)) throw thrown;
      outages.waits('reading beside the cubes', messageOf(thrown));
    }
  }

  /** After the publication: what a snapshot needs is not deleted before the next one has replaced it. */
  async #trimSources(): Promise<void> {
    const current = this.#publication.reachedCurrent();
    if (current !== undefined) await this.#trim?.run(current);
  }

  async #publish(): Promise<void> {
    const manifest = await this.#publication.publish();
    if (manifest === undefined) return;
    this.#snapshots = { snapshot: manifest.id, snapshots: this.#snapshots.snapshots + 1 };
  }
}
