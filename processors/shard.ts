/**
 * One shard of this member, from assignment to release. Messages go in with `receive`, micro-batches close by the
 * window's bounds, and at most one is applied at a time while the next one fills: under load the open micro-batch
 * grows until the store is free, so windows widen with lag by themselves.
 *
 * Order of every micro-batch: apply and commit → publish (`tenure.ts`) → mirror. What happens in between is made up
 * for when the store is opened again (`planShard`).
 */
import type { DuckDBInstance } from '@duckdb/node-api';
import type { Producer } from 'kafkajs';
import type { Fetched, LogBounds, LogMessage, LogReader, Want } from '../kafka/log.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { fingerprintOf as cubeSetOf } from '../tables/cubes/cube.ts';
import { type DatasetName, datasetNames, type TopicNames } from '../topics/catalog.ts';
import { ChunkDecoder, hashOf, RejectedMessage } from '../topics/chunk.ts';
import { deadLetterMessage } from '../topics/dead-letter.ts';
import { Ownership } from '../topics/ownership.ts';
import { nextIn, notAfter, type Position } from '../topics/position.ts';
import type { Registry } from '../topics/registry.ts';
import { type AppliedBatch, applyMicroBatch, writeBase } from './apply.ts';
import { Backlog } from './backlog.ts';
import type { Backups } from './backup.ts';
import type { MicroBatchReport, ProcessorMetrics } from './metrics.ts';
import { MicroBatch, type RejectedSource, type SourceMessage } from './micro-batch.ts';
import type { Plan } from './plan.ts';
import { Publisher } from './publisher.ts';
import { asWorkError, openFurthest, type ShardIdentity, ShardStore } from './store.ts';
import { Tenure } from './tenure.ts';

export interface Window {
  /** Period of the tumbling processing-time window, in milliseconds. */
  readonly periodMs: number;
  readonly recordsMax: number;
  /** Bytes of messages before compression. */
  readonly bytesMax: number;
}

/** What closed a micro-batch. */
export type ClosedBy = 'window' | 'records' | 'bytes' | 'catch-up' | 'target';

export interface ShardContext {
  readonly instance: DuckDBInstance;
  readonly producer: Producer;
  readonly reader: LogReader;
  readonly registry: Registry;
  readonly names: TopicNames;
  readonly folder: string;
  readonly window: Window;
  readonly logger: Logger;
  /** Registry ids of our own schemas. */
  readonly schemaIds: ReadonlyMap<DatasetName, number>;
  readonly deltaSchemaId: number;
  /** How long a store that another owner holds is waited for, in milliseconds. */
  readonly lockPatienceMs: number;
  /** Start and end of every source partition and of the deltas, as they are now. */
  readonly bounds: (topics: readonly string[]) => Promise<Map<string, Map<number, LogBounds>>>;
  /** Goes on from a log that has lost messages that were never applied. */
  readonly acceptLoss: boolean;
  /** Where stores are backed up to and restored from. */
  readonly backups: Backups | undefined;
  /** Told after every micro-batch that is published. */
  readonly onPublished: (shard: Shard, report: MicroBatchReport) => void;
  readonly metrics?: ProcessorMetrics;
  readonly onFailure: (shard: Shard, reason: unknown) => void;
}

/** Fingerprint of a position behind no message: a marker, a batch that was skipped, a loss that was accepted. */
const hashOfNothing = hashOf(null);

/** How often the published deltas are read anew when they are trimmed meanwhile. */
const foldsMax = 5;

export class Shard {
  readonly identity: Omit<ShardIdentity, 'generation'>;
  readonly #context: ShardContext;
  readonly #log: Logger;
  readonly #decoders = new Map<string, { dataset: DatasetName; decoder: ChunkDecoder }>();
  readonly #ownership: Ownership;
  #tenure: Tenure<ShardStore, MicroBatch, AppliedBatch> | undefined;
  #onCommitted: () => void = () => undefined;
  #publisher!: Publisher;
  #open!: MicroBatch;
  #applying: MicroBatch | undefined;
  /** Applied; the next one to open takes over its memory. */
  #spent: MicroBatch | undefined;
  /** What is staged lies before its next offsets. */
  readonly #backlog = new Backlog();
  /** Topics whose first message must be the last one applied. */
  #unproven = new Set<string>();
  /** Close the open micro-batch as soon as all of this is staged. */
  #target: Position | undefined;
  #isDue = false;
  #windowTimer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;
  /** A backup that is being written. */
  #backup: { readonly end: AbortController; readonly done: Promise<void> } | undefined;
  #mode: 'opening' | 'running' | 'closed' = 'opening';

  constructor(identity: Omit<ShardIdentity, 'generation'>, context: ShardContext) {
    this.identity = identity;
    this.#context = context;
    this.#ownership = new Ownership('tt', identity.shards);
    this.#log = context.logger.child({ shard: identity.shard });
    const read = new Set(identity.cubeSet.flatMap((cube) => Object.keys(cube.reads)));
    for (const dataset of datasetNames) {
      if (!read.has(dataset)) continue;
      const decoder = new ChunkDecoder(dataset, context.schemaIds.get(dataset) ?? -1, context.registry);
      this.#decoders.set(context.names.source(dataset), { dataset, decoder });
    }
  }

  get number(): number {
    return this.identity.shard;
  }

  get topics(): string[] {
    return [...this.#decoders.keys()];
  }

  get #opened(): Tenure<ShardStore, MicroBatch, AppliedBatch> {
    if (this.#tenure === undefined) throw new RangeError('the shard is not open');
    return this.#tenure;
  }

  get #store(): ShardStore {
    return this.#opened.store;
  }

  get #silentTo(): Position | undefined {
    return this.#tenure?.silentTo;
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

  /** Whether it waits for the Schema Registry. */
  isWaiting = false;

  get recordsSeen(): number {
    return this.#mode === 'running' ? this.#store.recordsSeen : 0;
  }

  /** Timestamp of the newest message that is applied, by topic; none before the first since opening. */
  readonly recordTimesMs = new Map<string, number>();

  /** Messages of each topic that are not applied, as far as fetches have told. */
  lags(): { topic: string; partition: number; messages: number }[] {
    if (this.#mode !== 'running') return [];
    return this.#backlog.ends.map(([topic, end]) => {
      const messages = Math.max(0, end - nextIn(this.#store.position, topic));
      return { topic, partition: this.number, messages };
    });
  }

  /** What is read of a topic lies before it. */
  readNext(topic: string): number {
    return this.#backlog.nextOf(topic);
  }

  /** Mean of all that is applied of a topic; undefined before the first message. */
  recordsPerMessage(topic: string): number | undefined {
    const source = this.#mode === 'running' ? this.#store.sources.get(topic) : undefined;
    if (source === undefined || source.next === 0) return undefined;
    return (source.applied + source.duplicate + source.rejected) / source.next;
  }

  /**
   * Opens the store, brings it and the published deltas together, and proves that the logs are the ones it was made
   * from as soon as their first message comes.
   * @throws ReelflowError sourceLost, stateUnusable, foreignCluster, deltasTrimmed, topicMismatch
   */
  async open(target: Position | undefined): Promise<void> {
    const { backups, deltaSchemaId, folder, instance, lockPatienceMs } = this.#context;
    const tell = (what: string) => this.#log.warn(what);
    await this.#foldPublished();
    this.#requirePublished();
    const identity = { ...this.identity, generation: this.#publisher.published.generation };
    const { position } = this.#publisher.published;
    const store = await openFurthest(instance, folder, identity, lockPatienceMs, tell, async (seen) =>
      backups?.restore(identity, folder, position, seen, tell),
    );
    let bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>;
    try {
      // Once more, now that the store is ours: whoever held its lock has gone on while we waited. With the ends of before
      // its position would lie behind them, and look as if the topics had lost their tails.
      bounds = await this.#foldPublished();
    } catch (thrown) {
      await store.close();
      throw thrown;
    }
    const { generation } = this.#publisher.published;
    if (generation !== identity.generation) {
      await store.close();
      return this.open(target);
    }
    this.#tenure = new Tenure(store, this.#publisher, cubeSetOf(identity.cubeSet), {
      apply: async (to, batch, how) => {
        const applied = await applyMicroBatch(to, batch, {
          deltaSchemaId,
          ...how,
          deadLetterOf: (rejected) => this.#deadLetterOf(rejected),
        }).catch((thrown) => {
          throw asWorkError(thrown, to.path);
        });
        this.#onCommitted();
        return applied;
      },
      writeBase: (of) => writeBase(of, deltaSchemaId),
      rebuild: async (of) => {
        await this.#endBackup();
        await of.remove();
        return ShardStore.create(instance, folder, identity);
      },
      sendDeadLetters: async (of, batch) => {
        if (batch === undefined || batch.rejected.length > 0) await this.#sendDeadLetters(of);
      },
      tell: (plan, of) => this.#tell(plan, of),
    });
    await this.#tenure.reconcile();
    this.#begin();
    this.#checkBounds(bounds);
    this.#target = target;
    this.#mode = 'running';
    this.#pump();
    this.#log.info({ position: this.#store.position, store: this.#store.storeId }, 'shard opened');
  }

  /**
   * Reads what is published of this shard.
   * @returns where the logs began and ended before that
   */
  async #foldPublished(): Promise<ReadonlyMap<string, ReadonlyMap<number, LogBounds>>> {
    const { names, deltaSchemaId, producer, reader } = this.#context;
    for (let attempt = 1; ; attempt++) {
      const bounds = await this.#context.bounds([names.deltas, ...this.topics]);
      const { start, end } = bounds.get(names.deltas)?.get(this.number) ?? { start: 0, end: 0 };
      const options = { producer, reader, topic: names.deltas, shard: this.number, deltaSchemaId };
      this.#publisher = new Publisher(options, start);
      try {
        await this.#publisher.fold(end);
        return bounds;
      } catch (thrown) {
        // The sink trims what its snapshots hold, also while it is read; what is left then tells as much.
        const isTrimmed = thrown instanceof ReelflowError && thrown.kind === 'deltasTrimmed';
        if (!isTrimmed || attempt === foldsMax) throw thrown;
      }
    }
  }

  /** That what is published is known, and is of topics that this shard reads: before any store is touched. */
  #requirePublished(): void {
    const topic = `${this.#context.names.deltas}/${this.number}`;
    if (this.#publisher.isUnknown) {
      throw new ReelflowError('deltasTrimmed', `All published deltas of shard ${this.number} are gone`, {
        detail: `${topic} is empty before offset ${this.#publisher.next}: nobody can tell where the sink stands.`,
        hint: "End all members, then `reelflow reset` with the sink's --gold, and start again.",
      });
    }
    const unread = Object.keys(this.publishedPosition).filter(
      (source) => nextIn(this.publishedPosition, source) > 0 && !this.#decoders.has(source),
    );
    if (unread.length === 0) return;
    throw new ReelflowError(
      'topicMismatch',
      'What is published was made from a topic that no cube reads any more',
      {
        detail: `${topic}: ${unread.join(', ')}.`,
        hint: 'Use the version before; or `reelflow reset` with this one, then start again: all is processed anew.',
      },
    );
  }

  /** Partitions to fetch and from where; none while the open micro-batch is full. */
  wants(): Want[] {
    if (this.#mode !== 'running' || this.#isFull()) return [];
    return this.#backlog.due(this.#silentTo).flatMap((topic): Want[] => {
      const next = this.#backlog.nextOf(topic);
      // The last applied message is read once more to prove that this is still the log it came from.
      const from = this.#unproven.has(topic) ? next - 1 : next;
      if (this.#silentTo !== undefined && next >= nextIn(this.#silentTo, topic)) return [];
      return [{ topic, partition: this.number, next: from }];
    });
  }

  /** Whether messages of a topic are there that were not read, as far as fetches have told. */
  isBehind(topic: string): boolean {
    return this.#backlog.isBehind(topic);
  }

  /**
   * Stages what was fetched for this shard.
   * @throws ReelflowError sourceReplaced, sourceLost
   */
  async receive(fetched: Fetched): Promise<void> {
    const { topic } = fetched;
    this.#backlog.sees(topic, fetched);
    for (const message of fetched.messages) {
      if (this.#mode !== 'running') return;
      const next = this.#backlog.nextOf(topic);
      if (this.#unproven.has(topic)) {
        this.#prove(topic, message, next);
        continue;
      }
      if (message.offset < next) continue;
      if (message.offset > next) {
        throw new ReelflowError('sourceLost', 'A topic has a gap', {
          detail: `${topic}/${this.number}: offset ${next} was to come, ${message.offset} came.`,
          hint: 'The topic must keep every message: see to its cleanup.policy and retention.',
        });
      }
      if (this.#silentTo !== undefined && next >= nextIn(this.#silentTo, topic)) return;
      await this.#stage(topic, message);
      this.#backlog.moveTo(topic, message.offset + 1);
      this.#pump();
      // What comes on top of a full micro-batch is fetched again once there is room.
      if (this.#isFull()) return;
    }
  }

  /** The log was interrupted: it may come back as another one. */
  distrust(): void {
    for (const topic of this.#backlog.topics) {
      if (this.#isProvable(topic)) this.#unproven.add(topic);
    }
  }

  /** Closes the open micro-batch as soon as everything up to `target` is staged. */
  aimAt(target: Position): void {
    this.#target = target;
    this.#pump();
  }

  /** Whether everything up to `target` is applied and published, of logs that are proved to be those it came from. */
  hasPublished(target: Position): boolean {
    return (
      this.#mode === 'running' &&
      this.#silentTo === undefined &&
      this.#unproven.size === 0 &&
      notAfter(target, this.#store.position) &&
      notAfter(target, this.publishedPosition)
    );
  }

  /** Whether somebody else has published deltas of this shard since: then it has to be opened again. */
  async isSuperseded(): Promise<boolean> {
    while (this.#working !== undefined) await this.#working.catch(() => undefined);
    if (this.#mode !== 'running') return false;
    const { names, bounds } = this.#context;
    const look = async () => {
      const deltas = (await bounds([names.deltas])).get(names.deltas)?.get(this.number);
      return this.#opened.isSuperseded(deltas?.end ?? 0);
    };
    const looking = look();
    // No micro-batch is published meanwhile.
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

  /** Writes a backup of the store as it is, beside the work that goes on. A failure costs nothing but the backup. */
  async backUp(): Promise<void> {
    const { backups } = this.#context;
    if (backups === undefined || this.#backup !== undefined || this.#mode !== 'running') return;
    const end = new AbortController();
    const startedMs = Date.now();
    const done = backups
      .write(this.#store, end.signal)
      .then((records) => {
        if (records !== undefined) this.#log.info({ records, ms: Date.now() - startedMs }, 'backup written');
      })
      .catch((thrown) => {
        if (!end.signal.aborted) this.#log.warn({ reason: messageOf(thrown) }, 'the backup failed');
      })
      .finally(() => {
        this.#backup = undefined;
      });
    this.#backup = { end, done };
    await done;
  }

  async #endBackup(): Promise<void> {
    this.#backup?.end.abort();
    await this.#backup?.done;
  }

  /**
   * Lets a micro-batch that is being applied finish, drops the open one and closes the store.
   * @param graceMs after this the transaction is interrupted and rolled back
   */
  async close(graceMs: number): Promise<void> {
    this.#mode = 'closed';
    clearTimeout(this.#windowTimer);
    const interrupt = setTimeout(() => this.#tenure?.store.connection.interrupt(), graceMs);
    await Promise.all([this.#endBackup(), this.#working?.catch(() => undefined)]);
    clearTimeout(interrupt);
    await this.#tenure?.store.close();
  }

  #tell(plan: Plan, store: ShardStore): void {
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
        this.#log.warn({ why: plan.why }, 'publishing a base');
    }
  }

  /** Log start past the next offset, or end before it: what is missing cannot be made up for. */
  #checkBounds(bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>): void {
    for (const topic of this.topics) {
      const next = this.#store.sources.get(topic)?.next ?? 0;
      const { start, end } = bounds.get(topic)?.get(this.number) ?? { start: 0, end: 0 };
      if (start > next && !this.#context.acceptLoss) {
        throw new ReelflowError('sourceLost', 'A topic has lost messages that were never applied', {
          detail: `${topic}/${this.number} starts at offset ${start}; ${next} is next.`,
          hint: 'Replay the dataset, then `reelflow reset`; or accept the loss with --accept-loss.',
        });
      }
      if (end < next) {
        throw new ReelflowError('sourceReplaced', 'A topic is shorter than what was applied from it', {
          detail: `${topic}/${this.number} ends at offset ${end}; ${next} is next. It was recreated, or lost its tail.`,
          hint: 'If that was intended: `reelflow reset`, then start again.',
        });
      }
      this.#backlog.startAt(topic, Math.max(next, start));
      if (next > start && this.#isProvable(topic)) this.#unproven.add(topic);
      if (start > next) this.#passLoss(topic, next, start);
    }
  }

  /** Moves behind what is lost, at once: there may be no message any more that could. */
  #passLoss(topic: string, next: number, start: number): void {
    const dataset = this.#decoders.get(topic)?.dataset;
    if (dataset === undefined) return;
    this.#log.warn({ topic, next, start }, 'the loss of messages that were never applied is accepted');
    this.#open.lose(topic, dataset, [next, start]);
  }

  /** Whether the message before the next offset can tell this log from another one. */
  #isProvable(topic: string): boolean {
    const hash = this.#lastHash(topic);
    return hash !== undefined && hash !== hashOfNothing;
  }

  #prove(topic: string, message: LogMessage, next: number): void {
    const hash = hashOf(message.value);
    if (message.offset !== next - 1 || hash !== this.#lastHash(topic)) {
      const applied = this.#store.sources.get(topic)?.fingerprint;
      throw new ReelflowError('sourceReplaced', 'A topic is not the one that the state was made from', {
        detail: `${topic}/${this.number}: the message at offset ${next - 1} is not the one that was applied (last known is chunk ${applied?.chunk} of run ${applied?.runId}).`,
        hint: 'The topic was recreated, or lost its tail. If that was intended: `reelflow reset`, then start again.',
      });
    }
    this.#unproven.delete(topic);
  }

  /** Hash of the last message of a topic that is staged or applied. */
  #lastHash(topic: string): string | undefined {
    const last = this.#open.sources.get(topic)?.last ?? this.#applying?.sources.get(topic)?.last;
    return last === undefined ? this.#store.sources.get(topic)?.fingerprint.hash : hashOf(last.value);
  }

  async #stage(topic: string, message: LogMessage): Promise<void> {
    const source = this.#decoders.get(topic);
    if (source === undefined) throw new RangeError(`no decoder for ${topic}`);
    const { dataset, decoder } = source;
    const { offset, timestampMs, value } = message;
    const staged: SourceMessage = { topic, dataset, offset, timestampMs, value };
    if (message.isMarker) {
      this.#open.pass(staged);
      return;
    }
    if (message.isUndecodable) {
      this.#open.reject(staged, new RejectedMessage('undecodable_batch', 'skipped on demand'));
      return;
    }
    try {
      const own = decoder.isOwn(value) ? (value as Buffer) : await this.#resolve(decoder, value as Buffer);
      this.#open.add(staged, decoder, own);
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      this.#open.reject(staged, thrown);
    }
  }

  async #resolve(decoder: ChunkDecoder, value: Buffer): Promise<Buffer> {
    this.isWaiting = true;
    try {
      return await decoder.resolve(value);
    } finally {
      this.isWaiting = false;
    }
  }

  #begin(): void {
    const { projection } = this.#store;
    this.#open = new MicroBatch(this.number, this.#store, projection, this.#ownership, this.#spent);
    this.#spent = undefined;
    this.#backlog.begin();
    this.#isDue = false;
    clearTimeout(this.#windowTimer);
    this.#windowTimer = undefined;
  }

  #isFull(): boolean {
    const { recordsMax, bytesMax } = this.#context.window;
    return this.#open.records >= recordsMax || this.#open.bytes >= bytesMax;
  }

  #closedBy(): ClosedBy | undefined {
    const { recordsMax, bytesMax } = this.#context.window;
    if (this.#open.isEmpty) return undefined;
    if (this.#open.records >= recordsMax) return 'records';
    if (this.#open.bytes >= bytesMax) return 'bytes';
    if (this.#silentTo !== undefined && this.#hasStaged(this.#silentTo)) return 'catch-up';
    if (this.#target !== undefined && this.#hasStaged(this.#target)) return 'target';
    return this.#isDue ? 'window' : undefined;
  }

  #hasStaged(target: Position): boolean {
    return Object.keys(target).every((topic) => this.#backlog.nextOf(topic) >= nextIn(target, topic));
  }

  /** Starts to apply the open micro-batch when a bound has closed it and the store is free. */
  #pump(): void {
    if (this.#mode !== 'running') return;
    this.#setWindow();
    if (this.#working !== undefined) return;
    const closedBy = this.#closedBy();
    if (closedBy === undefined) return;
    const batch = this.#open;
    this.#begin();
    this.#applying = batch;
    this.#working = this.#work(batch, closedBy)
      .catch((thrown) => this.#context.onFailure(this, thrown))
      .finally(() => {
        this.#working = undefined;
        this.#applying = undefined;
        this.#spent = batch;
        this.#pump();
      });
  }

  /** Windows tumble: they end at multiples of the period, not at a time after the first record. */
  #setWindow(): void {
    if (this.#windowTimer !== undefined || this.#open.isEmpty) return;
    const { periodMs } = this.#context.window;
    this.#windowTimer = setTimeout(
      () => {
        this.#isDue = true;
        this.#pump();
      },
      periodMs - (Date.now() % periodMs),
    );
  }

  async #work(batch: MicroBatch, closedBy: ClosedBy): Promise<void> {
    const { onPublished } = this.#context;
    const startedMs = Date.now();
    const silently = this.#silentTo !== undefined;
    let committedMs = startedMs;
    this.#onCommitted = () => {
      committedMs = Date.now();
    };
    const { applied, duplicate, rejected, deltaRows } = await this.#opened.apply(batch);
    const [applyMs, publishMs] = [committedMs - startedMs, Date.now() - committedMs];
    const counts = { applied, duplicate, rejected };
    const { records, bytes } = batch;
    this.#log.debug(
      { closedBy, records, bytes, ...counts, deltaRows, applyMs, publishMs },
      silently ? 'micro-batch applied silently' : 'micro-batch',
    );
    const messages = [...batch.sources.values()].reduce((sum, source) => sum + source.messages, 0);
    for (const { topic, recordTimeMs } of batch.sources.values()) {
      this.recordTimesMs.set(topic, Math.max(recordTimeMs, this.recordTimesMs.get(topic) ?? 0));
    }
    onPublished(this, { closedBy, isSilent: silently, messages, ...counts, applyMs, publishMs });
  }

  #deadLetterOf({ message, rejection }: RejectedSource): { value: Buffer; about: string } {
    const letter = deadLetterMessage({
      stage: 'processor',
      reason: rejection.reason,
      detail: rejection.message,
      original: message.value ?? Buffer.alloc(0),
      source: { topic: message.topic, partition: this.number, offset: String(message.offset) },
      time: new Date(),
    });
    return { value: letter.value, about: JSON.stringify(letter.headers) };
  }

  /** At least once: a crash between sending and removing sends them again, with the same source position. */
  async #sendDeadLetters(store: ShardStore): Promise<void> {
    const { producer, names } = this.#context;
    const letters = await store.readDeadLetters();
    if (letters.length === 0) return;
    for (const { value, about } of letters) {
      const headers = JSON.parse(about) as Record<string, string>;
      this.#context.metrics?.deadLetter(String(headers.reason));
      this.#log.warn({ reason: headers.reason, topic: headers.topic, offset: headers.offset }, 'dead letter');
      await producer.send({ topic: names.deadLetter, acks: -1, messages: [{ value, headers, key: null }] });
    }
    await store.removeDeadLetters();
  }
}
