/**
 * One processor member: it joins the consumer group, owns the shards that the group assigns, and feeds them from one fetch
 * loop. A failure that retrying cannot fix ends the member, so it never stays alive without working.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { memoryBytesOf } from '../database/duckdb.ts';
import { logBounds } from '../kafka/bounds.ts';
import { LogInterrupted } from '../kafka/failures.ts';
import { LogReader, OutsideLog } from '../kafka/log.ts';
import { Membership } from '../kafka/membership.ts';
import { outageDetail, untilServed } from '../kafka/outage.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import { logEveryMinute } from '../runtime/logger.ts';
import type { Cube } from '../tables/cubes/cube.ts';
import { cubes as allCubes, cubeSetOf, datasetsIn } from '../tables/cubes/cube-set.ts';
import type { Position } from '../topics/position.ts';
import { Assignment, isRefused } from './assignment.ts';
import { MemberMode } from './member-mode.ts';
import { commitsOf } from './offset-commits.ts';
import type { MicroBatchReport } from './processor-metrics.ts';
import type { Health, ProcessorOptions, ProcessorReport } from './processor-options.ts';
import { type Setup, setUp } from './setup.ts';
import { Shard } from './shard.ts';
import { Watchdog } from './watchdog.ts';

/** How long to wait for a store that another member holds: the session timeout of the group. */
const lockPatienceMs = 6_000;
/** How long a micro-batch may take to finish after SIGTERM before it is rolled back. */
const graceMs = 7_000;
/** How long a failed member may take to stop in order. A promise that hangs must not keep it alive. */
export const endWithinMs = graceMs + 3_000;
const fetchWaitMs = 100;
const mebibyte = 1024 * 1024;
/** The fewer partitions a fetch asks for, the more it takes of each. */
const fetchBytes = { all: 16 * mebibyte, least: mebibyte, most: 4 * mebibyte };
/** After this time without a fetch, other logs may have taken the names of the topics. */
const distrustAfterMs = 3_000;
/** The activity of the fetch loop, for the outage monitor. */
const reading = 'reading';

export class Member {
  readonly #options: ProcessorOptions;
  readonly #cubeSet: readonly Cube[];
  readonly #sources: string[];
  readonly #reader: LogReader;
  /** Reads the published deltas. Apart from `reader`, whose fetches may wait for new messages. */
  readonly #deltaReader: LogReader;
  readonly #mode = new MemberMode();
  readonly #assignment: Assignment;
  #setup!: Setup;
  #membership: Membership | undefined;
  #watchdog: Watchdog | undefined;
  #backupTimer: NodeJS.Timeout | undefined;
  /** What to close at the end, in the order of opening. */
  #closers: (() => Promise<void>)[] = [];
  #failure: unknown;
  /** Aborts when the member stops: then nothing waits for a broker any more. */
  readonly #ending = new AbortController();
  /** Rejects with the failure, and resolves with the signal, whatever the member waits for at that moment. */
  readonly #ended = Promise.withResolvers<void>();
  #fetchedMs = performance.now();
  #wake: () => void = () => undefined;
  /** Whether it gets no shards because members that declare other cubes hold them. */
  #waits = false;
  /** The position that each shard must publish before a finishing member may end. */
  #targets: Map<number, Position> | undefined;
  #counts = { microBatches: 0, applied: 0, duplicate: 0, rejected: 0, removed: 0 };

  private constructor(options: ProcessorOptions) {
    this.#options = options;
    this.#cubeSet = options.cubeSet ?? allCubes;
    this.#sources = datasetsIn(this.#cubeSet).map((name) => options.names.source(name));
    this.#reader = new LogReader(options.broker, options.skipBatches);
    this.#deltaReader = new LogReader(options.broker);
    this.#assignment = new Assignment({
      create: (number) => this.#createShard(number),
      open: (shard) => this.#openShard(shard),
      onOpened: (shard) => this.#commit(shard),
      onChanged: () => this.#wake(),
      onFailure: (reason) => this.#fail(reason),
      isActive: () => this.#mode.isActive,
      graceMs,
    });
    this.#ended.promise.catch(() => undefined);
  }

  /** Prepares a member and joins the group. @throws ReelflowError or the reason of the signal, with everything closed again */
  static async start(options: ProcessorOptions): Promise<Member> {
    const member = new Member(options);
    try {
      await member.#start();
      return member;
    } catch (thrown) {
      await member.stop();
      throw thrown;
    }
  }

  async #start(): Promise<void> {
    const { broker, names, signal, finish, metrics, backups } = this.#options;
    this.#setup = await setUp(this.#options, this.#sources, (close) => this.#closers.push(close));
    const { shards, survey } = this.#setup;
    this.#observe();

    if (finish?.aborted === true) this.#targets = await this.#endOffsets();
    else finish?.addEventListener('abort', () => this.#finish(), { once: true });

    signal.throwIfAborted();
    this.#membership = await Membership.join({
      broker,
      groupId: names.processorGroup,
      topics: this.#sources,
      assignment: 'shards',
      freshness: () =>
        new Map([
          ...survey,
          ...[...this.#shards].map(([number, shard]) => [number, shard.messagesSeen] as const),
        ]),
      declared: () => ({
        text: cubeSetOf(this.#cubeSet),
        sinceMs: performance.timeOrigin,
        holds: (this.#assignment.assigned ?? []).length > 0,
      }),
      onAssigned: (given, waits) => {
        broker.logger.info({ shards: given }, 'shards assigned');
        this.#waits = waits;
        if (waits) this.#waitForOthers();
        metrics?.assigned(given.length);
        this.#assignment.assign(given);
      },
      onCrash: (reason) => this.#fail(reason),
    });
    // A listener that is added after the abort is never called.
    signal.throwIfAborted();
    signal.addEventListener('abort', () => this.#onSignal(), { once: true });
    this.#watchdog = new Watchdog({
      bounds: () => logBounds(broker, [...this.#sources, names.deltas]),
      deltas: names.deltas,
      shards: () => [...this.#shards.values()],
      expectedPartitions: shards,
      stuckAfterMs: this.#options.stuckAfterMs,
      logger: broker.logger,
      onFailure: (reason) => this.#fail(reason),
      onForeignDeltas: () => this.#assignment.reassignSoon(),
    });
    if (backups !== undefined) this.#scheduleBackups(backups.everyMs);
    this.#options.onHealth?.(() => this.#health());
    this.#options.onStarted?.(() =>
      this.#assignment.inTurn(async () => this.#aimAt(await this.#endOffsets())),
    );
  }

  get #shards(): ReadonlyMap<number, Shard> {
    return this.#assignment.shards;
  }

  get counts(): Omit<ProcessorReport, 'shards'> {
    return this.#counts;
  }

  /** Works until the signal, or until it has caught up. @returns the shards that it had at the end */
  async run(): Promise<number[]> {
    await Promise.race([this.#loop(), this.#ended.promise]);
    return [...this.#shards.keys()].sort((a, b) => a - b);
  }

  async #loop(): Promise<void> {
    this.#mode.to('running');
    if (this.#targets !== undefined) this.#mode.to('finishing');
    while (this.#mode.isActive) {
      if (this.#hasCaughtUp()) {
        this.#options.onCaughtUp?.();
        await this.#backUp();
        break;
      }
      const owners = new Map<string, Shard>();
      const wants = [...this.#shards.values()].flatMap((shard) => {
        const own = shard.wants();
        for (const { topic, partition } of own) owners.set(`${topic}/${partition}`, shard);
        return own;
      });
      if (wants.length === 0) await this.#pause(20);
      else await this.#fetch(wants, owners);
    }
    if (this.#mode.current === 'failed') throw this.#failure;
  }

  async #fetch(wants: ReturnType<Shard['wants']>, owners: ReadonlyMap<string, Shard>): Promise<void> {
    const { broker } = this.#options;
    // The process was stopped for a while, or had no room: a topic recreated meanwhile gives no error.
    if (performance.now() - this.#fetchedMs > distrustAfterMs) {
      this.#fetchedMs = performance.now();
      for (const shard of this.#shards.values()) shard.distrust();
      return;
    }
    try {
      const partitionBytesMax = Math.max(
        fetchBytes.least,
        Math.min(fetchBytes.most, Math.floor(fetchBytes.all / wants.length)),
      );
      // One request goes to each broker, and the slowest answer counts: a broker without messages must not delay others.
      const isBehind = wants.some(({ topic, partition }) =>
        owners.get(`${topic}/${partition}`)?.isBehind(topic),
      );
      // A member that ends has nothing to wait for but the shards that are being opened.
      const isEnding = this.#mode.current === 'finishing';
      const waitMs = isBehind || isEnding ? 0 : fetchWaitMs;
      const fetched = await this.#reader.fetch(wants, { waitMs, partitionBytesMax });
      this.#fetchedMs = performance.now();
      broker.outages.resumes(reading);
      // The signal does not wait for a fetch: in an outage kafkajs repeats it for ten seconds.
      if (!this.#mode.isActive) return;
      for (const part of fetched) {
        const shard = owners.get(`${part.topic}/${part.partition}`);
        if (shard !== undefined && this.#shards.get(part.partition) === shard) await shard.receive(part);
      }
      if (isEnding && !isBehind) await this.#pause(20);
    } catch (thrown) {
      // SIGTERM while this waited for a broker, or a chunk for the registry.
      if (!this.#mode.isActive) return;
      if (thrown instanceof LogInterrupted) {
        // A broker stopped or a leader moved. The topic may come back as another log.
        broker.logger.debug({ reason: messageOf(thrown) }, 'fetch interrupted');
        broker.outages.waits(reading, messageOf(thrown));
        for (const shard of this.#shards.values()) shard.distrust();
        await this.#pause(250);
        return;
      }
      if (thrown instanceof OutsideLog) {
        const shard = owners.get(`${thrown.topic}/${thrown.partition}`);
        if (shard !== undefined && (await shard.isBehindBase(thrown.topic))) {
          // The sink deleted the messages before a base while the store was catching up.
          this.#assignment.reopenSoon(shard);
          return;
        }
        throw new ReelflowError('sourceLost', 'A topic no longer holds the next offset', {
          detail: messageOf(thrown),
          hint: 'It was trimmed or recreated, or has lost its tail. Start the processor again: it says which, and what to do.',
          cause: thrown,
        });
      }
      throw thrown;
    }
  }

  /** Leaves the group after the shards are closed, so that the next owners find their stores unlocked. */
  async stop(): Promise<void> {
    this.#mode.to('stopping');
    this.#ending.abort();
    this.#watchdog?.stop();
    clearTimeout(this.#backupTimer);
    await this.#assignment.close();
    await this.#membership?.leave();
    await Promise.all([this.#reader.close(), this.#deltaReader.close()]);
    for (const close of this.#closers.reverse()) await close();
    this.#closers = [];
    this.#mode.to('stopped');
  }

  #createShard(number: number): Shard {
    const { broker, names, registry, window, acceptLoss, metrics } = this.#options;
    const { clusterId, shards, survey: _, ...shared } = this.#setup;
    const identity = { clusterId, namespace: names.namespace, shard: number, shards, cubeSet: this.#cubeSet };
    return new Shard(identity, {
      ...shared,
      registry,
      names,
      window,
      acceptLoss,
      reader: this.#deltaReader,
      logger: broker.logger,
      lockPatienceMs,
      endpoints: broker.endpoints,
      outages: broker.outages,
      signal: this.#ending.signal,
      bounds: (topics) => logBounds(broker, topics),
      ...(metrics !== undefined && { metrics }),
      onPublished: (from, report) => this.#onPublished(from, report),
      onFailure: (from, reason) => this.#onShardFailure(from, reason),
    });
  }

  async #openShard(shard: Shard): Promise<void> {
    try {
      await shard.open(this.#targets?.get(shard.number));
    } catch (thrown) {
      await shard.close(0);
      throw thrown;
    }
  }

  /** Logs progress every minute, and answers Prometheus. */
  #observe(): void {
    const { broker, metrics } = this.#options;
    const endLog = logEveryMinute(
      broker.logger,
      'processed',
      () => this.#counts,
      () => ({
        shards: this.#shards.size,
        lagMessages: this.#lags().reduce((sum, { messages }) => sum + messages, 0),
      }),
    );
    metrics?.open({
      lags: () => this.#lags(),
      memoryBytes: () => memoryBytesOf(this.#setup.instance),
      outageSeconds: () => ({
        broker: broker.outages.seconds,
        registry: this.#options.registry.outage?.seconds ?? 0,
      }),
    });
    this.#closers.push(async () => {
      endLog();
      metrics?.close();
    });
  }

  #lags(): ReturnType<Shard['lags']> {
    return [...this.#shards.values()].flatMap((shard) => shard.lags());
  }

  #health(): Health {
    const isHealthy = this.#failure === undefined;
    const { broker, registry } = this.#options;
    const detail = isHealthy
      ? outageDetail({ broker: broker.outages.current, registry: registry.outage })
      : messageOf(this.#failure);
    return {
      isHealthy,
      isReady: detail === '' && this.#assignment.isComplete,
      shards: [...this.#shards.keys()],
      detail,
    };
  }

  #scheduleBackups(everyMs: number): void {
    this.#backupTimer = setTimeout(async () => {
      await this.#backUp();
      if (this.#mode.isActive) this.#scheduleBackups(everyMs);
    }, everyMs);
    this.#backupTimer.unref();
  }

  /** One shard after the other: backups must leave memory and disk to the work. */
  async #backUp(): Promise<void> {
    for (const shard of [...this.#shards.values()]) await shard.backUp();
  }

  async #endOffsets(): Promise<Map<number, Position>> {
    const { broker, signal } = this.#options;
    const bounds = await untilServed(
      broker.outages,
      'reading end offsets',
      () => logBounds(broker, this.#sources),
      signal,
    );
    const targets = new Map<number, Position>();
    for (let shard = 0; shard < this.#setup.shards; shard++) {
      targets.set(
        shard,
        Object.fromEntries(this.#sources.map((topic) => [topic, bounds.get(topic)?.get(shard)?.end ?? 0])),
      );
    }
    return targets;
  }

  /** Members of two cube sets never take turns: this one gets shards when the last one of the other set has left. */
  #waitForOthers(): void {
    const what = 'Members with other cubes hold the shards';
    const hint = 'End them, or start this one with the same version, --tables and --only.';
    if (this.#targets !== undefined) this.#fail(new ReelflowError('busy', what, { hint }));
    else this.#options.broker.logger.warn({ hint }, `waiting: ${what.toLowerCase()}`);
  }

  #finish(): void {
    this.#assignment.inTurn(async () => {
      const targets = await this.#endOffsets();
      this.#targets = targets;
      this.#mode.to('finishing');
      if (this.#waits) this.#waitForOthers();
      this.#aimAt(targets);
      this.#wake();
    });
  }

  #aimAt(targets: ReadonlyMap<number, Position>): void {
    for (const [number, shard] of this.#shards) shard.aimAt(targets.get(number) ?? {});
  }

  #hasCaughtUp(): boolean {
    if (this.#mode.current !== 'finishing' || this.#membership?.isCommitted !== true) return false;
    const { assigned } = this.#assignment;
    return (
      assigned?.every((number) => {
        const shard = this.#shards.get(number);
        return shard?.hasPublished(this.#targets?.get(number) ?? {}) === true;
      }) === true
    );
  }

  #onPublished(shard: Shard, report: MicroBatchReport): void {
    this.#options.metrics?.microBatch(report);
    this.#counts.microBatches += 1;
    this.#counts.applied += report.applied;
    this.#counts.duplicate += report.duplicate;
    this.#counts.rejected += report.rejected;
    this.#counts.removed += report.removed;
    crashPoint('after-mark-before-offset-commit');
    this.#commit(shard);
    this.#wake();
  }

  #commit(shard: Shard): void {
    this.#membership?.commit(commitsOf(shard, this.#sources));
  }

  #onShardFailure(shard: Shard, reason: unknown): void {
    if (!isRefused(reason)) {
      this.#fail(reason);
      return;
    }
    this.#options.broker.logger.warn({ shard: shard.number, reason: reason.detail }, reason.message);
    this.#assignment.reopenSoon(shard);
  }

  /** Ends the loop. From now on a failure has no effect: the member stops anyway. */
  #onSignal(): void {
    this.#mode.to('stopping');
    this.#ended.resolve();
  }

  /** Ends the member with its first failure. A failure while it stops has no effect: the store is consistent anyway. */
  #fail(reason: unknown): void {
    if (!this.#mode.to('failed')) return;
    this.#failure = reason ?? new Error('the member failed');
    this.#ended.reject(this.#failure);
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
