/**
 * Publishes the store as a snapshot, and does what follows: removes old snapshots, compacts the store, trims the deltas that
 * no kept snapshot needs, pushes to the bucket and writes the lake. Only the snapshot itself must succeed; the rest is repeated after the
 * next one.
 */
import { type BoundsByTopic, logBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { untilServed } from '../kafka/outage.ts';
import { partitionCounts } from '../kafka/topics.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { Declarations } from '../tables/built-in.ts';
import { datasetsIn, versionsOf } from '../tables/cubes/cube-set.ts';
import type { GoldTable } from '../tables/gold-table.ts';
import type { TopicNames } from '../topics/catalog.ts';
import type { CubeVersions } from '../topics/cube-versions.ts';
import { readChecked, tellsNothingNew, writeChecked } from './checked.ts';
import type { CubeStore } from './cube-store.ts';
import { trimDeltas } from './delta-trim.ts';
import { relationsOf } from './gold/earlier-files.ts';
import type { Lake } from './gold/lake.ts';
import { currentManifest, currentSnapshot, type Manifest } from './gold/manifest.ts';
import { type Keep, retain, stayingSnapshots } from './gold/retention.ts';
import { publishSnapshot } from './gold/snapshot.ts';
import { completes, DumpDirectories, dumpsIn } from './held-dumps.ts';
import { declaresOtherTables, type Held, hasReached, isAhead, otherCubes } from './progress.ts';
import type { SinkMetrics } from './sink-metrics.ts';

interface PublicationOptions {
  readonly broker: Broker;
  readonly names: TopicNames;
  readonly store: CubeStore;
  readonly gold: string;
  readonly clusterId: string;
  /** subject → registry id */
  readonly schemas: Readonly<Record<string, number>>;
  readonly keep: Keep;
  /** The sink's state folder. */
  readonly folder: string;
  /** Bucket that receives every snapshot, `s3://bucket/prefix`. */
  readonly pushTo?: string;
  /** Catalogue that shows every snapshot. */
  readonly lake?: Lake | undefined;
  readonly reelflowVersion: string;
  /** Length of the history of ratings, in days before the newest dump. */
  readonly historyDays: number;
  readonly metrics?: SinkMetrics | undefined;
  /** Ends the wait for a broker. */
  readonly signal?: AbortSignal;
  readonly declarations: Declarations;
  /** Called when CURRENT names the new snapshot. */
  readonly onSnapshot?: () => void;
}

export class Publication {
  readonly #options: PublicationOptions;
  readonly #peopleTopic: string;
  /** Versions of the declared cubes. */
  readonly #cubes: CubeVersions;
  readonly #directories: DumpDirectories;
  /** The last warning about tables that wait for their cubes. */
  #warnedOf = '';
  /** The snapshot that CURRENT names in the bucket. */
  #pushed: string | undefined;
  /** The last removals that failed: a warning appears only when they change. */
  #failures = '';
  /** Attempts that failed since the lake was last written. */
  #lakeFailures = 0;

  constructor(options: PublicationOptions) {
    this.#options = options;
    this.#cubes = versionsOf(options.declarations.cubes);
    this.#peopleTopic = options.names.source('name.basics');
    this.#directories = new DumpDirectories(options.broker, options.names);
  }

  /** The newest snapshot, if the sink holds all of it: after a reset, it does so only later. */
  reachedCurrent(): Manifest | undefined {
    const { gold, store } = this.#options;
    const current = currentManifest(gold);
    if (current === undefined) return undefined;
    const isSame = Object.entries(current.shards).every(
      ([shard, { generation }]) => store.shards.get(Number(shard))?.chain.generation === generation,
    );
    const reached = isSame && hasReached(this.#held(), current, () => Number.POSITIVE_INFINITY);
    return reached ? current : undefined;
  }

  /**
   * Whether a snapshot would hold something that CURRENT does not hold, or a history of another length, and everything
   * that CURRENT holds.
   */
  async isDue(): Promise<boolean> {
    const { gold, store, historyDays, declarations } = this.#options;
    if (store.isEmpty) return false;
    const current = currentManifest(gold);
    const held = this.#held();
    // Input that was checked already is not computed again at every interval.
    const checked = readChecked(this.#options.folder, current?.id);
    const isNew =
      isAhead(held, checked ?? current) ||
      current?.history?.days !== historyDays ||
      declaresOtherTables(declarations.tables, current) ||
      (current !== undefined && (await this.#completesDump(current, (checked ?? current).input)));
    if (!isNew || !hasReached(held, current, () => 0) || !this.#canPublish()) return false;
    if (hasReached(held, current, () => Number.POSITIVE_INFINITY)) return true;
    // A reset has begun all again, and less than CURRENT is held: it is enough if the sources hold no more.
    const ends = await this.#endsOfSources(Object.keys(current?.input ?? {}));
    return hasReached(held, current, (topic, partition) => ends.get(topic)?.get(partition)?.end ?? 0);
  }

  /**
   * A snapshot may hold the last message of a dump before its run has written the index.
   * @param input whose tables equal those of CURRENT
   */
  async #completesDump(current: Manifest, input: Manifest['input']): Promise<boolean> {
    const complete = Object.values(current.dumps ?? {}).filter((dump) => dump.complete);
    if (complete.length === Object.keys(input).length) return false;
    return completes(dumpsIn(input, await this.#readDirectories(), this.#options.names), current);
  }

  async #readDirectories(): ReturnType<DumpDirectories['read']> {
    const { broker, signal } = this.#options;
    try {
      return await untilServed(
        broker.outages,
        'reading the dump index',
        () => this.#directories.read(),
        signal,
      );
    } catch (thrown) {
      if (!(thrown instanceof ReelflowError) || thrown.kind !== 'accessRefused') throw thrown;
      broker.logger.warn({ reason: thrown.detail }, 'the manifest names no dumps: the dump index is refused');
      return new Map();
    }
  }

  async #endsOfSources(topics: readonly string[]): Promise<BoundsByTopic> {
    const { broker, signal } = this.#options;
    const read = async () => logBounds(broker, [...(await partitionCounts(broker, topics)).keys()]);
    return untilServed(broker.outages, 'reading end offsets', read, signal);
  }

  /** What the sink holds, on the topics of the cubes that all shards have as they are declared. */
  #held(): Held {
    const { store, names, declarations } = this.#options;
    const other = otherCubes(store.shards, this.#cubes);
    const ready = declarations.cubes.filter(({ name }) => !other.has(name));
    const topics = new Set(datasetsIn(ready).map((dataset) => names.source(dataset)));
    return { shards: store.shards, people: store.peopleStates, peopleTopic: this.#peopleTopic, topics };
  }

  /** The tables that must wait because some shards have other cubes, by name, with the reason. */
  #waiting(): Map<string, string> {
    const { store, declarations } = this.#options;
    const other = otherCubes(store.shards, this.#cubes);
    const waiting = new Map<string, string>();
    for (const table of declarations.tables) {
      const [cube] = relationsOf(table, new Set(this.#cubes.keys())).filter((name) => other.has(name));
      if (cube === undefined) continue;
      const shards = other.get(cube)?.join(', ');
      waiting.set(table.name, `cube ${cube} is missing, or of another version, on shards: ${shards}`);
    }
    return waiting;
  }

  /**
   * Whether every built-in table can be written, and any table. A table of a user that waits for its cubes is left out, and the manifest says
   * so: the others go on.
   */
  #canPublish(): boolean {
    const waiting = this.#waiting();
    const isBuiltIn = ({ name, file }: GoldTable) => file === undefined && waiting.has(name);
    const { tables } = this.#options.declarations;
    const lacks = tables.some(isBuiltIn) || waiting.size === tables.length;
    const text = JSON.stringify([...waiting]);
    if (text !== this.#warnedOf && waiting.size > 0) {
      this.#options.broker.logger.warn(
        { tables: Object.fromEntries(waiting) },
        lacks
          ? 'no snapshot: processors send other cubes than this version of the sink declares'
          : 'tables are left out: processors send other cubes than this sink declares',
      );
    }
    this.#warnedOf = text;
    return !lacks;
  }

  /**
   * Publishes, unless every table equals the one of CURRENT: then the input is recorded as checked.
   * @returns undefined if nothing was published
   * @throws ReelflowError diskFull, goldUnusable
   */
  async publish(): Promise<Manifest | undefined> {
    const {
      gold,
      names,
      clusterId,
      schemas,
      reelflowVersion,
      historyDays,
      broker,
      store,
      metrics,
      declarations,
    } = this.#options;
    const startedMs = performance.now();
    const current = currentManifest(gold);
    // Read while the tables are written. A failure is thrown where the manifest is made.
    const directories = this.#readDirectories();
    directories.catch(() => undefined);
    let isEqual = false;
    const manifest = await store.onAllThreads(() =>
      publishSnapshot(store, {
        gold,
        namespace: names.namespace,
        clusterId,
        schemas,
        peopleTopic: this.#peopleTopic,
        reelflowVersion,
        historyDays,
        dumpsIn: async (input) => dumpsIn(input, await directories, names),
        tables: declarations.tables,
        waiting: this.#waiting(),
        isWorthIt: (next) => {
          isEqual = tellsNothingNew(next, current);
          return !isEqual;
        },
      }),
    );
    if (isEqual) {
      const { created: at, input, shards, accounting } = manifest;
      writeChecked(this.#options.folder, { snapshot: current?.id as string, at, input, shards, accounting });
      broker.logger.info({ snapshot: current?.id }, 'every table equals the newest snapshot');
      metrics?.checked(at);
      return undefined;
    }
    this.#options.onSnapshot?.();
    for (const [table, reason] of Object.entries(manifest.leftOut ?? {})) {
      broker.logger.error({ table, reason }, 'the snapshot lacks a table');
    }
    const publishedMs = performance.now() - startedMs;
    // Versions expire before their files go.
    await this.register('log');
    const removed = this.#retain();
    await store.compact();
    await trimDeltas(this.#options);
    const rows = Object.fromEntries(Object.entries(manifest.tables).map(([name, of]) => [name, of.rows]));
    const ms = Math.round(performance.now() - startedMs);
    broker.logger.info({ snapshot: manifest.id, rows, removed, ms }, 'snapshot published');
    metrics?.published(manifest, publishedMs);
    return manifest;
  }

  /** A snapshot that cannot be removed takes room, but must not end the sink: the next publication tries again. */
  #retain(): readonly string[] {
    const { gold, keep, broker, metrics, lake } = this.#options;
    const { removed, failed } = retain(gold, keep, lake?.place.kind === 'object' ? undefined : lake?.newest);
    const failures = failed.map(({ id, reason }) => `${id}: ${reason}`);
    if (failures.join() !== this.#failures) {
      if (failures.length > 0) broker.logger.warn({ failures }, 'old snapshots cannot be removed');
      else broker.logger.info('all old snapshots are removed again');
      this.#failures = failures.join();
    }
    metrics?.unremovable(failed.length);
    return removed;
  }

  /**
   * Makes a lake that is a file show the snapshots that stay, if it does not show CURRENT yet.
   * @param onFailure `log`: the next interval tries again if it cannot be written
   */
  async register(onFailure: 'log' | 'throw'): Promise<void> {
    const { gold, keep, lake } = this.#options;
    const current = currentSnapshot(gold);
    if (
      lake === undefined ||
      lake.place.kind === 'object' ||
      current === undefined ||
      current === lake.newest
    )
      return;
    await this.#show(lake, stayingSnapshots(gold, keep), onFailure);
  }

  /** Pushes CURRENT to the bucket, then makes a lake in a bucket show what is there. @param onFailure as of `register` */
  async push(onFailure: 'log' | 'throw'): Promise<void> {
    const { gold, keep, pushTo, broker, lake } = this.#options;
    const current = currentSnapshot(gold);
    if (pushTo === undefined || current === undefined || current === this.#pushed) return;
    const { pushGold } = await import('./gold/push.ts');
    try {
      const report = await pushGold(gold, pushTo, keep, async (snapshots) => {
        if (lake?.place.kind !== 'object') return undefined;
        await this.#show(lake, snapshots, onFailure);
        return lake.newest;
      });
      if (this.#lakeFailures === 0) this.#pushed = report.snapshot;
      if (report.pushed) broker.logger.info({ ...report, bucket: pushTo }, 'snapshot pushed to the bucket');
    } catch (thrown) {
      const isPassing = thrown instanceof ReelflowError && thrown.kind === 'bucketUnusable';
      if (onFailure === 'throw' || !isPassing) throw thrown;
      broker.logger.warn({ reason: thrown.detail }, 'snapshot not pushed to the bucket');
    }
  }

  /** Readers of a lake that cannot be written have older snapshots; that must not stop gold. */
  async #show(lake: Lake, snapshots: readonly string[], onFailure: 'log' | 'throw'): Promise<void> {
    const { broker, metrics } = this.#options;
    try {
      const { added, expired } = await lake.show(snapshots);
      this.#lakeFailures = 0;
      broker.logger.info({ added, expired }, 'lake written');
    } catch (thrown) {
      const passing = ['lakeUnusable', 'bucketUnusable', 'busy'];
      if (!(thrown instanceof ReelflowError) || !passing.includes(thrown.kind)) throw thrown;
      if (onFailure === 'throw') throw thrown;
      this.#lakeFailures += 1;
      broker.logger.warn({ reason: thrown.detail, attempts: this.#lakeFailures }, 'lake not written');
    } finally {
      metrics?.lakeFailures(this.#lakeFailures);
    }
  }
}
