/**
 * One processor member: it joins the consumer group, owns the shards that it is given, and feeds them from one fetch
 * loop. Every failure that is not a passing one ends the member: it never stays alive without working.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { memoryBytesOf, openInstance } from '../database/duckdb.ts';
import { type Broker, clusterIdOf } from '../kafka/client.ts';
import { LogInterrupted, LogReader, logBounds, OutsideLog } from '../kafka/log.ts';
import { type Freshness, Membership } from '../kafka/membership.ts';
import { ensureRetainedTopics, partitionCounts } from '../kafka/topics.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { isAbort, messageOf, ReelflowError } from '../runtime/errors.ts';
import { logEveryMinute } from '../runtime/logger.ts';
import { cubes as allCubes, type Cube } from '../tables/cubes/cube.ts';
import { type DatasetName, datasetNames, type TopicNames } from '../topics/catalog.ts';
import { nextIn, type Position } from '../topics/position.ts';
import type { Registry } from '../topics/registry.ts';
import { Backups } from './backup.ts';
import type { MicroBatchReport, ProcessorMetrics } from './metrics.ts';
import { Shard, type Window } from './shard.ts';
import { asStoreError, surveyStores } from './store.ts';
import { Watchdog } from './watchdog.ts';

export interface ProcessorOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  /** The state folder. */
  readonly state: string;
  readonly window: Window;
  /**
   * From its abort on: end when the end offsets of that moment are applied, published and mirrored. Aborted already
   * means those of the start.
   */
  readonly finish?: AbortSignal;
  readonly acceptLoss: boolean;
  /** DuckDB's limit for all shards of this member, as DuckDB writes sizes. */
  readonly memoryLimit: string;
  /** Partition count when the topics do not exist yet. */
  readonly shards: number;
  /** SIGTERM: finish or drop the open micro-batch, and end. */
  readonly signal: AbortSignal;
  readonly cubeSet?: readonly Cube[];
  /** A shard that does not move for so long while its log does ends the member, in milliseconds. */
  readonly stuckAfterMs: number;
  /** Positions of record batches that cannot be decoded and shall count as rejected: `topic:partition:offset`. */
  readonly skipBatches?: readonly string[];
  /** Where stores are backed up to, in a folder that members may share, and how often, in milliseconds. */
  readonly backups?: { readonly folder: string; readonly everyMs: number } | undefined;
  readonly metrics?: ProcessorMetrics;
  /** Called once with a function that tells how the member is. */
  readonly onHealth?: (health: () => Health) => void;
}

export interface Health {
  /** Whether it works, or may still come to work. */
  readonly isHealthy: boolean;
  /** Whether it has an assignment and all its shards are open. */
  readonly isReady: boolean;
  readonly shards: readonly number[];
  readonly detail: string;
}

export interface ProcessorReport {
  readonly shards: number[];
  readonly microBatches: number;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
}

const isRefused = (thrown: unknown): thrown is ReelflowError =>
  thrown instanceof ReelflowError && thrown.kind === 'deltaRefused';

/** How long a store that another member holds is waited for: as long as its session may last. */
const lockPatienceMs = 6_000;
/** How long a micro-batch may finish after SIGTERM before it is rolled back. */
const graceMs = 7_000;
const fetchWaitMs = 100;
const mebibyte = 1024 * 1024;
/** The fewer partitions a fetch asks for, the more it takes of each. */
const fetchBytes = { all: 16 * mebibyte, least: mebibyte, most: 4 * mebibyte };
const deltaSegmentBytes = 64 * 1024 * 1024;
/** After so long without a look at the logs they may be others under the same names. */
const distrustAfterMs = 3_000;
/** How long a member that has failed may take to end in order; a promise that hangs must not keep it alive. */
const endWithinMs = graceMs + 3_000;

/**
 * Runs a member until `signal`, or until it has caught up.
 * @throws ReelflowError of whatever ended it
 */
export async function runProcessor(options: ProcessorOptions): Promise<ProcessorReport> {
  const member = await Member.start(options).catch((thrown) => {
    if (isAbort(thrown) && options.signal.aborted) return undefined;
    throw thrown;
  });
  if (member === undefined) return { shards: [], microBatches: 0, applied: 0, duplicate: 0, rejected: 0 };
  try {
    const shards = await member.run();
    await member.stop();
    // The last micro-batch may have ended only now.
    return { shards, ...member.counts };
  } catch (thrown) {
    await Promise.race([member.stop().catch(() => undefined), sleep(endWithinMs, undefined, { ref: false })]);
    throw thrown;
  }
}

class Member {
  readonly #options: ProcessorOptions;
  readonly #cubeSet: readonly Cube[];
  readonly #shards = new Map<number, Shard>();
  readonly #reader: LogReader;
  readonly #tails: LogReader;
  readonly #sources: string[];
  #membership: Membership | undefined;
  #openShard!: (shard: number) => Promise<Shard>;
  #close: (() => Promise<void>)[] = [];
  /** Shards that the group has given us; the ones that are open follow. */
  #assigned: readonly number[] | undefined;
  #reassignment: Promise<void> = Promise.resolve();
  #failure: unknown;
  /** Rejects with the failure, whatever the member waits for at that moment. */
  readonly #failed = Promise.withResolvers<never>();
  #fetchedMs = Date.now();
  #watchdog: Watchdog | undefined;
  #backupTimer: NodeJS.Timeout | undefined;
  /** Stores in the state folder when the member started, for the first join. */
  #survey: Freshness = new Map();
  #wake: () => void = () => undefined;
  /** Where each shard has to get to before this member may end. */
  #targets: Map<number, Position> | undefined;
  #mirrored: Promise<unknown> = Promise.resolve();
  #report = { microBatches: 0, applied: 0, duplicate: 0, rejected: 0 };

  private constructor(options: ProcessorOptions) {
    this.#options = options;
    this.#cubeSet = options.cubeSet ?? allCubes;
    this.#reader = new LogReader(options.broker, options.skipBatches);
    this.#tails = new LogReader(options.broker);
    const read = new Set(this.#cubeSet.flatMap((cube) => Object.keys(cube.reads)));
    this.#sources = datasetNames.filter((name) => read.has(name)).map((name) => options.names.source(name));
    this.#failed.promise.catch(() => undefined);
  }

  static async start(options: ProcessorOptions): Promise<Member> {
    const member = new Member(options);
    try {
      await member.#prepare();
      return member;
    } catch (thrown) {
      await member.stop();
      throw thrown;
    }
  }

  async #prepare(): Promise<void> {
    const { broker, registry, names, state, window, signal } = this.#options;
    const { logger } = broker;
    const clusterId = await clusterIdOf(broker);
    const shards = await this.#ensureTopics();

    const schemaIds = new Map<DatasetName, number>();
    for (const dataset of datasetNames) {
      if (!this.#sources.includes(names.source(dataset))) continue;
      schemaIds.set(dataset, await registry.register(names.source(dataset), `imdb.${dataset}`));
    }
    const deltaSchemaId = await registry.register(names.deltas, 'reelflow.deltas');

    const place = join(clusterId, names.namespace === '' ? '_' : names.namespace);
    const folder = join(state, place);
    try {
      mkdirSync(folder, { recursive: true });
    } catch (thrown) {
      throw asStoreError(thrown, folder);
    }
    const instance = await openInstance({
      memoryLimit: this.#options.memoryLimit,
      // A shard's statements run one after the other, shards beside each other: each on the thread that asks. Threads of
      // DuckDB's own would only spin for work between them.
      threads: 1,
      spillFolder: join(folder, 'spill'),
    });
    this.#close.push(async () => instance.closeSync());
    const { metrics } = this.#options;
    const lags = () => [...this.#shards.values()].flatMap((shard) => shard.lags());
    const endLog = logEveryMinute(
      logger,
      'processed',
      () => this.#report,
      () => ({
        shards: this.#shards.size,
        lagMessages: lags().reduce((sum, { messages }) => sum + messages, 0),
      }),
    );
    metrics?.open({ lags, memoryBytes: () => memoryBytesOf(instance) });
    this.#close.push(async () => {
      endLog();
      metrics?.close();
    });

    this.#survey = await surveyStores(instance, folder, shards);
    const producer = broker.kafka.producer({ allowAutoTopicCreation: false });
    await producer.connect();
    this.#close.push(() => producer.disconnect());

    const { backups: backingUp, finish } = this.#options;
    const backups = backingUp && new Backups(instance, join(backingUp.folder, place));
    if (finish?.aborted === true) this.#targets = await this.#endOffsets(shards);
    else finish?.addEventListener('abort', () => this.#finish(shards), { once: true });

    this.#openShard = async (number) => {
      const identity = {
        clusterId,
        namespace: names.namespace,
        shard: number,
        shards,
        cubeSet: this.#cubeSet,
      };
      const shard = new Shard(identity, {
        instance,
        producer,
        reader: this.#tails,
        registry,
        names,
        folder,
        window,
        logger,
        schemaIds,
        deltaSchemaId,
        lockPatienceMs,
        bounds: (topics) => logBounds(broker, topics),
        acceptLoss: this.#options.acceptLoss,
        backups,
        ...(metrics !== undefined && { metrics }),
        onPublished: (from, report) => this.#onPublished(from, report),
        onFailure: (from, reason) => this.#onShardFailure(from, reason),
      });
      try {
        await shard.open(this.#targets?.get(number));
      } catch (thrown) {
        await shard.close(0);
        // Somebody else has published while it was being opened: what is published now decides.
        if (isRefused(thrown)) return this.#openShard(number);
        throw thrown;
      }
      return shard;
    };

    this.#membership = await Membership.join({
      broker,
      groupId: names.processorGroup,
      topics: this.#sources,
      assignment: 'shards',
      freshness: () =>
        new Map([
          ...this.#survey,
          ...[...this.#shards].map(([number, shard]) => [number, shard.recordsSeen] as const),
        ]),
      onAssigned: (given) => this.#onAssigned(given),
      onCrash: (reason) => this.#fail(reason),
    });
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    this.#watchdog = new Watchdog({
      bounds: () => logBounds(broker, [...this.#sources, names.deltas]),
      deltas: names.deltas,
      shards: () => [...this.#shards.values()],
      expectedPartitions: shards,
      stuckAfterMs: this.#options.stuckAfterMs,
      logger,
      onFailure: (reason) => this.#fail(reason),
      onForeignDeltas: () => this.#reassignSoon(),
    });
    if (backingUp !== undefined) this.#scheduleBackups(backingUp.everyMs);
    this.#options.onHealth?.(() => this.#health());
  }

  #scheduleBackups(everyMs: number): void {
    this.#backupTimer = setTimeout(async () => {
      await this.#backUp();
      if (this.#backupTimer !== undefined) this.#scheduleBackups(everyMs);
    }, everyMs);
    this.#backupTimer.unref();
  }

  /** One shard after the other: a backup must not take the memory and the disk from the work. */
  async #backUp(): Promise<void> {
    for (const shard of [...this.#shards.values()]) await shard.backUp();
  }

  #health(): Health {
    const assigned = this.#assigned ?? [];
    const isReady = this.#assigned !== undefined && assigned.every((number) => this.#shards.has(number));
    return {
      isHealthy: this.#failure === undefined,
      isReady: isReady && this.#failure === undefined,
      shards: [...this.#shards.keys()],
      detail: this.#failure === undefined ? '' : messageOf(this.#failure),
    };
  }

  /** @returns the partition count of the source topics */
  async #ensureTopics(): Promise<number> {
    const { broker, names } = this.#options;
    const counts = await partitionCounts(broker, this.#sources);
    const shards = counts.values().next().value ?? this.#options.shards;
    const topics = [...this.#sources, names.deltas, names.deadLetter];
    await ensureRetainedTopics(
      broker,
      topics.map((topic) => ({
        topic,
        partitions: shards,
        // The sink trims the deltas: in segments of a gigabyte, the default, that would give back nothing for long.
        ...(topic === names.deltas ? { segmentBytes: deltaSegmentBytes } : {}),
      })),
    );
    return shards;
  }

  async #endOffsets(shards: number): Promise<Map<number, Position>> {
    const bounds = await logBounds(this.#options.broker, this.#sources);
    const targets = new Map<number, Position>();
    for (let shard = 0; shard < shards; shard++) {
      targets.set(
        shard,
        Object.fromEntries(this.#sources.map((topic) => [topic, bounds.get(topic)?.get(shard)?.end ?? 0])),
      );
    }
    return targets;
  }

  /** Sets the targets while the member is running. */
  #finish(shards: number): void {
    this.#reassignment = this.#reassignment
      .then(async () => {
        this.#targets = await this.#endOffsets(shards);
        for (const [number, shard] of this.#shards) shard.aimAt(this.#targets.get(number) ?? {});
        this.#wake();
      })
      .catch((thrown) => this.#fail(thrown));
  }

  /** @returns the shards that it had at the end */
  run(): Promise<number[]> {
    return Promise.race([this.#loop(), this.#failed.promise]);
  }

  async #loop(): Promise<number[]> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#hasCaughtUp()) {
        await this.#backUp();
        break;
      }
      const owners = new Map<string, Shard>();
      const wants = [...this.#shards.values()].flatMap((shard) => {
        const own = shard.wants();
        for (const { topic, partition } of own) owners.set(`${topic}/${partition}`, shard);
        return own;
      });
      if (wants.length === 0) {
        await this.#pause(20);
        continue;
      }
      await this.#fetch(wants, owners);
    }
    if (this.#failure !== undefined) throw this.#failure;
    return [...this.#shards.keys()].sort((a, b) => a - b);
  }

  get counts(): Omit<ProcessorReport, 'shards'> {
    return this.#report;
  }

  async #fetch(wants: ReturnType<Shard['wants']>, owners: ReadonlyMap<string, Shard>): Promise<void> {
    // A process that was stopped for a while, or that had no room: a topic recreated meanwhile shows no error.
    if (Date.now() - this.#fetchedMs > distrustAfterMs) {
      this.#fetchedMs = Date.now();
      for (const shard of this.#shards.values()) shard.distrust();
      return;
    }
    try {
      const partitionBytesMax = Math.max(
        fetchBytes.least,
        Math.min(fetchBytes.most, Math.floor(fetchBytes.all / wants.length)),
      );
      // Each broker is asked at the same time: one that has nothing would keep those waiting that have.
      const isBehind = wants.some(({ topic, partition }) =>
        owners.get(`${topic}/${partition}`)?.isBehind(topic),
      );
      const waitMs = isBehind ? 0 : fetchWaitMs;
      const fetched = await this.#reader.fetch(wants, { waitMs, partitionBytesMax });
      this.#fetchedMs = Date.now();
      for (const part of fetched) {
        const shard = owners.get(`${part.topic}/${part.partition}`);
        if (shard !== undefined && this.#shards.get(part.partition) === shard) await shard.receive(part);
      }
    } catch (thrown) {
      if (thrown instanceof LogInterrupted) {
        // A broker went away or a leader moved. What comes back may be another log under the same name.
        this.#options.broker.logger.debug({ reason: messageOf(thrown) }, 'fetch interrupted');
        for (const shard of this.#shards.values()) shard.distrust();
        await this.#pause(250);
        return;
      }
      if (thrown instanceof OutsideLog) {
        throw new ReelflowError('sourceLost', 'A topic no longer holds the next offset', {
          detail: messageOf(thrown),
          hint: 'It was recreated, trimmed, or lost its tail. Replay the datasets, then `reelflow reset`.',
          cause: thrown,
        });
      }
      // SIGTERM while a chunk waited for the registry.
      if (isAbort(thrown) && this.#options.signal.aborted) return;
      throw thrown;
    }
  }

  /** Leaves the group after the shards are closed, so that the next owner finds their locks released. */
  async stop(): Promise<void> {
    this.#watchdog?.stop();
    clearTimeout(this.#backupTimer);
    this.#backupTimer = undefined;
    await this.#reassignment.catch(() => undefined);
    await Promise.all([...this.#shards.values()].map((shard) => shard.close(graceMs)));
    this.#shards.clear();
    await this.#mirrored;
    await this.#membership?.leave();
    await Promise.all([this.#reader.close(), this.#tails.close()]);
    for (const close of this.#close.reverse()) await close();
    this.#close = [];
  }

  #hasCaughtUp(): boolean {
    if (this.#targets === undefined || this.#assigned === undefined) return false;
    return this.#assigned.every((number) => {
      const shard = this.#shards.get(number);
      return shard?.hasPublished(this.#targets?.get(number) ?? {}) === true;
    });
  }

  #onAssigned(given: readonly number[]): void {
    this.#options.broker.logger.info({ shards: given }, 'shards assigned');
    this.#assigned = given;
    this.#options.metrics?.assigned(given.length);
    this.#reassignSoon();
  }

  /** One reassignment after the other; each looks at the newest assignment, so a stale one does nothing. */
  #reassignSoon(): void {
    this.#reassignment = this.#reassignment
      .then(() => this.#reassign())
      .catch((thrown) => this.#fail(thrown));
  }

  async #reassign(): Promise<void> {
    if (this.#options.signal.aborted) return;
    const wanted = new Set(this.#assigned);
    // A member that was away may keep its shards and not know what others have done with them.
    const superseded = new Set<Shard>();
    for (const shard of this.#shards.values()) {
      if (wanted.has(shard.number) && (await shard.isSuperseded())) superseded.add(shard);
    }
    const lost = [...this.#shards.values()].filter(
      (shard) => !wanted.has(shard.number) || superseded.has(shard),
    );
    for (const shard of lost) this.#shards.delete(shard.number);
    await Promise.all(lost.map((shard) => shard.close(graceMs)));
    const gained = [...wanted].filter((number) => !this.#shards.has(number));
    await Promise.all(
      gained.map(async (number) => {
        const shard = await this.#openShard(number);
        this.#shards.set(number, shard);
        await this.#mirror(shard);
      }),
    );
    this.#wake();
  }

  #onPublished(shard: Shard, report: MicroBatchReport): void {
    this.#options.metrics?.microBatch(report);
    this.#report.microBatches += 1;
    this.#report.applied += report.applied;
    this.#report.duplicate += report.duplicate;
    this.#report.rejected += report.rejected;
    crashPoint('after-mark-before-mirror');
    this.#mirrored = Promise.all([this.#mirrored, this.#mirror(shard)]).then(() => undefined);
    this.#wake();
  }

  /** For monitors only: nobody reads positions back from the group. */
  async #mirror(shard: Shard): Promise<void> {
    const position = shard.publishedPosition;
    const committedAt = Date.now();
    await this.#membership?.commit(
      // Also of topics that nothing is processed of: after a reset the group stands where it stood before.
      this.#sources.map((topic) => {
        const next = nextIn(position, topic);
        const recordTs = shard.recordTimesMs.get(topic);
        const recordsPerMessage = shard.recordsPerMessage(topic);
        const readNext = shard.readNext(topic);
        const metadata = JSON.stringify({ recordTs, committedAt, recordsPerMessage, readNext });
        return { topic, partition: shard.number, next, metadata };
      }),
    );
  }

  #onShardFailure(shard: Shard, reason: unknown): void {
    if (!isRefused(reason)) {
      this.#fail(reason);
      return;
    }
    this.#options.broker.logger.warn({ shard: shard.number, reason: reason.detail }, reason.message);
    this.#reassignment = this.#reassignment
      .then(async () => {
        if (this.#shards.get(shard.number) !== shard) return;
        this.#shards.delete(shard.number);
        await shard.close(graceMs);
        await this.#reassign();
      })
      .catch((thrown) => this.#fail(thrown));
  }

  #fail(reason: unknown): void {
    this.#failure ??= reason ?? new Error('the member failed');
    this.#failed.reject(this.#failure);
    this.#wake();
  }

  async #pause(ms: number): Promise<void> {
    await Promise.race([
      sleep(ms),
      new Promise<void>((resolve) => {
        this.#wake = resolve;
      }),
    ]);
  }
}
