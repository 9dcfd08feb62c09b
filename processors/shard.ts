/**
 * One shard of this member, from assignment to release. Messages go in through `receive` (`source-intake.ts`), the bounds of the
 * window close micro-batches, and at most one micro-batch is applied at a time while the next one fills. Under load the open one
 * grows until the store is free, so windows widen with lag by themselves.
 *
 * Each micro-batch is applied and committed, then published (`tenure.ts`), then its offsets are committed to the consumer
 * group. `planShard` repairs whatever a crash in between leaves unfinished.
 */

import type { Fetched, Want } from '../kafka/log.ts';
import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { cubeSetOf } from '../tables/cubes/cube-set.ts';
import { Ownership } from '../topics/ownership.ts';
import { nextIn, notAfter, type Position, startAfter } from '../topics/position.ts';
import { type AppliedBatch, applyMicroBatch } from './apply.ts';
import { BackupRun } from './backup-run.ts';
import { ChunkStager } from './chunk-stager.ts';
import { writeBase } from './cube-base.ts';
import { type ClosedBy, Filling } from './filling.ts';
import { type LastMessage, lastMessageOf, MicroBatch } from './micro-batch.ts';
import type { Plan } from './plan.ts';
import type { Publisher } from './publisher.ts';
import type { ShardContext } from './shard-context.ts';
import { openStore } from './shard-opening.ts';
import { ShardRequests } from './shard-requests.ts';
import type { ShardIdentity, ShardStore } from './shard-store.ts';
import { SourceIntake } from './source-intake.ts';
import { asWorkError } from './store-errors.ts';
import { createStore } from './store-folder.ts';
import { StoredLetters } from './stored-letters.ts';
import { Tenure } from './tenure.ts';

/** How long a closing shard waits for a request after its transaction is interrupted, in milliseconds. */
const hangMs = 2_000;
const interruptEveryMs = 100;

export class Shard {
  readonly identity: Omit<ShardIdentity, 'generation'>;
  readonly #context: ShardContext;
  readonly #log: Logger;
  readonly #requests: ShardRequests;
  readonly #stager: ChunkStager;
  readonly #ownership: Ownership;
  readonly #deadLetters: StoredLetters;
  readonly #backup: BackupRun | undefined;
  #tenure: Tenure<ShardStore, MicroBatch, AppliedBatch> | undefined;
  #publisher: Publisher | undefined;
  #onCommitted: () => void = () => undefined;
  #filling: Filling | undefined;
  #intake: SourceIntake | undefined;
  #applying: MicroBatch | undefined;
  /** Close the open micro-batch as soon as everything before this is staged. */
  #target: Position | undefined;
  #working: Promise<void> | undefined;
  #mode: 'opening' | 'running' | 'closed' = 'opening';

  constructor(identity: Omit<ShardIdentity, 'generation'>, context: ShardContext) {
    this.identity = identity;
    this.#context = context;
    this.#log = context.logger.child({ shard: identity.shard });
    this.#requests = new ShardRequests(identity.shard, context);
    this.#stager = new ChunkStager(identity.cubeSet, context);
    this.#ownership = new Ownership('tt', identity.shards);
    this.#deadLetters = new StoredLetters({
      producer: this.#requests,
      topic: context.names.deadLetter,
      shard: identity.shard,
      logger: this.#log,
      onLetter: (reason) => context.metrics?.deadLetter(reason),
    });
    this.#backup = context.backups && new BackupRun(context.backups, this.#log);
  }

  get number(): number {
    return this.identity.shard;
  }

  get topics(): string[] {
    return this.#stager.topics;
  }

  /** Next offsets that are applied and published. */
  get publishedPosition(): Position {
    return this.#publisher?.published.position ?? {};
  }

  get appliedPosition(): Position {
    return this.#mode === 'running' ? this.#store.position : {};
  }

  get deltasSeen(): number {
    return this.#publisher?.next ?? 0;
  }

  /** Whether it waits for the Schema Registry or repeats a request to the brokers. */
  get isWaiting(): boolean {
    return this.#stager.isWaiting || this.#requests.isWaiting;
  }

  get messagesSeen(): number {
    return this.#mode === 'running' ? this.#store.messagesSeen : 0;
  }

  /** Timestamp of the newest applied message, by topic; absent before the first one since opening. */
  readonly recordTimesMs = new Map<string, number>();

  /** Messages of each topic that are not applied, by the last fetch. */
  lags(): { topic: string; partition: number; messages: number }[] {
    if (this.#mode !== 'running') return [];
    return this.#reading.ends.map(([topic, end]) => {
      const messages = Math.max(0, end - nextIn(this.#store.position, topic));
      return { topic, partition: this.number, messages };
    });
  }

  /** First offset of a topic that is not read. */
  readNext(topic: string): number {
    return this.#reading.nextOf(topic);
  }

  /** Mean over all applied messages of a topic; undefined before the first one. */
  recordsPerMessage(topic: string): number | undefined {
    const source = this.#mode === 'running' ? this.#store.sources.get(topic) : undefined;
    if (source === undefined) return undefined;
    const messages = source.next - startAfter(source.gaps);
    if (messages === 0) return undefined;
    return (source.applied + source.duplicate + source.rejected) / messages;
  }

  /**
   * Opens the store and reconciles it with the published deltas. The first message of each topic then proves that the log
   * is the one from which the store was made.
   * @throws ReelflowError sourceLost, stateUnusable, foreignCluster, deltasTrimmed
   */
  async open(target: Position | undefined): Promise<void> {
    const { deltaSchemaId, folder, instance } = this.#context;
    const opened = await openStore(this.identity, this.topics, this.#context, this.#requests, (what) =>
      this.#log.warn(what),
    );
    const { identity, store, publisher, bounds, bases } = opened;
    this.#publisher = publisher;
    const cubes = { cubeSet: cubeSetOf(identity.cubeSet), topics: this.topics };
    this.#tenure = new Tenure(store, publisher, cubes, {
      apply: async (to, batch, how) => {
        const applied = await applyMicroBatch(to, batch, {
          deltaSchemaId,
          ...how,
          deadLetterOf: (rejected) => this.#deadLetters.letterOf(rejected),
        }).catch((thrown) => {
          throw asWorkError(thrown, to.path);
        });
        this.#onCommitted();
        return applied;
      },
      adapt: async (of) => {
        this.#log.info(await of.adapt(), 'the store is adapted to the cubes');
      },
      writeBase: (from, keeps) => writeBase(from, deltaSchemaId, keeps),
      rebuild: async (old) => {
        await this.#backup?.end();
        await old.remove();
        return createStore(instance, folder, identity);
      },
      sendDeadLetters: async (from, batch) => {
        if (batch === undefined || batch.rejected.length > 0) await this.#deadLetters.send(from);
      },
      reach: (from, published) => bases.reach(this.topics, from.position, published),
      report: (plan, of) => this.#report(plan, of),
    });
    await this.#tenure.reconcile();
    this.#filling = new Filling({
      window: this.#context.window,
      make: (spent) =>
        new MicroBatch(this.number, this.#store, this.#store.projection, this.#ownership, spent),
      onDue: () => this.#pump(),
    });
    this.#intake = new SourceIntake({
      shard: this.number,
      stager: this.#stager,
      requests: this.#requests,
      filling: this.#filling,
      lastOf: (topic) => this.#lastOf(topic),
      silentTo: () => this.#silentTo,
      isRunning: () => this.#mode === 'running',
      onStaged: () => this.#pump(),
    });
    await this.#intake.start(this.#store.position, bounds, bases, this.#context.acceptLoss, this.#log);
    this.#target = target;
    this.#mode = 'running';
    this.#pump();
    this.#log.info({ position: this.#store.position, store: this.#store.storeId }, 'shard opened');
  }

  /** Partitions to fetch and from where; none while the open micro-batch is full. */
  wants(): Want[] {
    return this.#mode === 'running' ? this.#reading.wants() : [];
  }

  /**
   * Whether a topic that no longer holds the next offset starts at a base now. Then the shard fetches nothing more, and has
   * to be opened again.
   */
  isBehindBase(topic: string): Promise<boolean> {
    return this.#reading.isBehindBase(topic);
  }

  /** Whether a topic has messages that are not read, by the last fetch. */
  isBehind(topic: string): boolean {
    return this.#reading.isBehind(topic);
  }

  /**
   * Stages fetched messages of this shard.
   * @throws ReelflowError sourceReplaced, sourceLost
   */
  receive(fetched: Fetched): Promise<void> {
    return this.#reading.receive(fetched);
  }

  /** Demands a new proof of every topic. Reading was interrupted, and the log may have been replaced since. */
  distrust(): void {
    this.#reading.distrust();
  }

  /** Closes the open micro-batch as soon as everything before `target` is staged. */
  aimAt(target: Position): void {
    this.#target = target;
    this.#pump();
  }

  /** Whether everything before `target` is applied and published, from logs that are proved to be the right ones. */
  hasPublished(target: Position): boolean {
    return (
      this.#mode === 'running' &&
      this.#silentTo === undefined &&
      this.#reading.isProved &&
      notAfter(target, this.#store.position) &&
      notAfter(target, this.publishedPosition)
    );
  }

  /** Whether another owner has published deltas of this shard since. Then the shard must be opened again. */
  async isSuperseded(): Promise<boolean> {
    while (this.#working !== undefined) await this.#working.catch(() => undefined);
    if (this.#mode !== 'running') return false;
    const { names } = this.#context;
    const look = async () => {
      const deltas = (await this.#requests.bounds([names.deltas])).get(names.deltas)?.get(this.number);
      return this.#opened.isSuperseded(deltas?.end ?? 0);
    };
    const looking = look();
    // Blocks publishing while the published deltas are folded.
    this.#working = looking
      .then(
        () => undefined,
        () => undefined,
      )
      .finally(() => {
        this.#working = undefined;
        this.#pump();
      });
    return looking;
  }

  /** Writes a backup of the store, while the shard continues to work. */
  async backUp(): Promise<void> {
    if (this.#mode === 'running') await this.#backup?.write(this.#store);
  }

  /** Whether `lose` was called. */
  get isLost(): boolean {
    return this.#requests.isLost;
  }

  /**
   * Another member owns the shard now, so nothing more is sent, also not while the shard is still being opened: on a slow
   * machine the new owner may have published before this one has finished, and its delta would be refused.
   */
  lose(): void {
    this.#requests.lose();
  }

  /**
   * Lets the micro-batch that is being applied finish, drops the open one and closes the store. A delta that cannot be
   * published now stays in the outbox.
   * @param graceMs after this time the transaction is interrupted and rolled back
   */
  async close(graceMs: number): Promise<void> {
    this.#mode = 'closed';
    this.#filling?.stop();
    this.#requests.end();
    const startedMs = performance.now();
    const timer = setInterval(() => {
      const passedMs = performance.now() - startedMs;
      // Repeatedly, because an interrupt ends only the statement that runs at that moment.
      if (passedMs >= graceMs) this.#tenure?.store.connection.interrupt();
      if (passedMs >= graceMs + hangMs) this.#requests.abandon();
    }, interruptEveryMs);
    // However long it takes: DuckDB crashes the process when a database is detached below a statement.
    await Promise.all([this.#backup?.end(), this.#working?.catch(() => undefined)]);
    clearInterval(timer);
    await this.#tenure?.store.close();
  }

  get #opened(): Tenure<ShardStore, MicroBatch, AppliedBatch> {
    if (this.#tenure === undefined) throw new RangeError('the shard is not open');
    return this.#tenure;
  }

  get #open(): Filling {
    if (this.#filling === undefined) throw new RangeError('the shard is not open');
    return this.#filling;
  }

  get #reading(): SourceIntake {
    if (this.#intake === undefined) throw new RangeError('the shard is not open');
    return this.#intake;
  }

  get #store(): ShardStore {
    return this.#opened.store;
  }

  get #silentTo(): Position | undefined {
    return this.#tenure?.silentTo;
  }

  #report(plan: Plan, store: ShardStore): void {
    switch (plan.kind) {
      case 'catch-up':
        this.#log.info(
          { from: store.position, to: plan.to },
          'catching up silently to the published position',
        );
        return;
      case 'rebuild':
        this.#log.warn({ why: plan.why }, 'the store is rebuilt from its topics');
        return;
      case 'base':
        this.#reportBase(plan);
    }
  }

  /** A base that keeps cubes backfills the others; a base of all cubes repairs the chain. */
  #reportBase({ keeps, why }: Plan & { kind: 'base' }): void {
    const cubes = this.identity.cubeSet.map(({ name }) => name).filter((name) => !keeps.includes(name));
    if (keeps.length === 0) this.#log.warn({ why }, 'publishing a base');
    else this.#log.info({ cubes, kept: keeps.length, why }, 'publishing a base of some cubes');
    this.#context.metrics?.published(cubes.length);
  }

  /** The last message of a topic that is staged or applied. */
  #lastOf(topic: string): LastMessage | undefined {
    const staged = this.#open.batch.sources.get(topic)?.last ?? this.#applying?.sources.get(topic)?.last;
    return staged === undefined ? this.#store.sources.get(topic)?.last : lastMessageOf(staged);
  }

  /** Starts to apply the open micro-batch when a bound has closed it and the store is free. */
  #pump(): void {
    if (this.#mode !== 'running') return;
    this.#open.startWindow();
    if (this.#working !== undefined) return;
    const closedBy = this.#open.closedBy({
      catchUp: this.#silentTo !== undefined && this.#reading.hasStaged(this.#silentTo),
      target: this.#target !== undefined && this.#reading.hasStaged(this.#target),
    });
    if (closedBy === undefined) return;
    // What comes after the target has the whole period of its window.
    if (closedBy === 'target') this.#target = undefined;
    const batch = this.#open.take();
    this.#reading.begin();
    this.#applying = batch;
    this.#working = this.#work(batch, closedBy)
      .catch((thrown) => this.#onFailure(thrown))
      .finally(() => {
        this.#working = undefined;
        this.#applying = undefined;
        this.#open.recycle(batch);
        this.#pump();
      });
  }

  /** A closed shard has no failures: it was interrupted, and its next owner continues from the store and the outbox. */
  #onFailure(thrown: unknown): void {
    if (this.#mode === 'running') this.#context.onFailure(this, thrown);
    else this.#log.debug({ reason: messageOf(thrown) }, 'a micro-batch was interrupted');
  }

  async #work(batch: MicroBatch, closedBy: ClosedBy): Promise<void> {
    const { onPublished } = this.#context;
    const startedMs = performance.now();
    const isSilent = this.#silentTo !== undefined;
    let committedMs = startedMs;
    this.#onCommitted = () => {
      committedMs = performance.now();
    };
    const { applied, duplicate, rejected, removed, deltaRows } = await this.#opened.apply(batch);
    const applyMs = Math.round(committedMs - startedMs);
    const publishMs = Math.round(performance.now() - committedMs);
    const counts = { applied, duplicate, rejected, removed };
    const { records, bytes } = batch;
    this.#log.debug(
      { closedBy, records, bytes, ...counts, deltaRows, applyMs, publishMs },
      isSilent ? 'micro-batch applied silently' : 'micro-batch',
    );
    const messages = [...batch.sources.values()].reduce((sum, source) => sum + source.messages, 0);
    for (const { topic, recordTimeMs } of batch.sources.values()) {
      this.recordTimesMs.set(topic, Math.max(recordTimeMs, this.recordTimesMs.get(topic) ?? 0));
    }
    onPublished(this, { closedBy, isSilent, messages, ...counts, applyMs, publishMs });
  }
}
