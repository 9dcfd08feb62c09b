/**
 * The sink: one active member that follows all deltas and names, and publishes a snapshot of them from time to time.
 * Every delta is judged by the chain of its shard, so a republished outbox, a zombie, two owners or an old copy of a
 * store do no harm: what does not go on where the shard stands is refused and counted.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Producer } from 'kafkajs';
import { isAbort, messageOf, ReelflowError } from '../errors.ts';
import { crashPoint } from '../faults.ts';
import { type Broker, clusterIdOf, withAdmin } from '../kafka/client.ts';
import {
  type Fetched,
  type LogBounds,
  LogInterrupted,
  type LogMessage,
  LogReader,
  logBounds,
  OutsideLog,
  type Want,
} from '../kafka/log.ts';
import { Membership } from '../kafka/membership.ts';
import { deleteBefore, partitionCounts } from '../kafka/topics.ts';
import { logEveryMinute } from '../logger.ts';
import type { Names } from '../topics/catalog.ts';
import { ChunkDecoder, hashOf, RejectedMessage } from '../topics/chunk.ts';
import { deadLetterMessage } from '../topics/dead-letter.ts';
import {
  cubesOnTheWire,
  DeltaChain,
  type DeltaPart,
  decodeDeltaHeader,
  decodeDeltaRows,
  emptyCubes,
} from '../topics/deltas.ts';
import { Ownership } from '../topics/ownership.ts';
import { type Gaps, type Position, positionText } from '../topics/position.ts';
import type { Registry } from '../topics/registry.ts';
import type { Columns } from '../topics/rows.ts';
import { Follower, isLastDelta } from './follower.ts';
import { currentSnapshot, type Manifest, readManifest, snapshotFolder } from './manifest.ts';
import type { SinkMetrics } from './metrics.ts';
import { StagedNames } from './names.ts';
import { hasReached, isAhead } from './progress.ts';
import { newestSnapshots, retain, withGoldLock } from './retention.ts';
import { asGoldError, publishSnapshot, requireCubes } from './snapshot.ts';
import { CubeStore, isInterrupt, type NameState, type ShardState } from './store.ts';

export interface SinkOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: Names;
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

const fetchWaitMs = 100;
/** While following, messages gather for so long: a transaction costs the same for one as for hundreds. */
const gatherMs = 200;
const hashOfNothing = hashOf(null);
/** How long a transaction or a publication may go on after SIGTERM, in milliseconds. */
const graceMs = 2_000;
/** A transaction takes in at most so many bytes of messages. */
const batchBytesMax = 16 * 1024 * 1024;

/**
 * Runs the sink until `signal`, or once.
 * @throws ReelflowError busy, when another sink holds the gold folder; foreignCluster; deltasTrimmed; diskFull; …
 */
export async function runSink(options: SinkOptions): Promise<SinkReport> {
  const { gold, finish, broker, signal } = options;
  try {
    mkdirSync(join(gold, 'snapshots'), { recursive: true });
  } catch (thrown) {
    throw asGoldError(thrown, gold);
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
        if (signal.aborted && (isAbort(thrown) || isInterrupt(thrown))) return sink.report;
        throw thrown;
      } finally {
        await sink.close();
      }
    },
  );
}

/** The rows of a part of a delta, by cube. */
type Part = Readonly<Record<string, Columns>>;

class Sink {
  readonly #options: SinkOptions;
  readonly #reader: LogReader;
  readonly #namesTopic: string;
  #store!: CubeStore;
  #producer: Producer | undefined;
  #membership: Membership | undefined;
  #clusterId = '';
  #schemas: Record<string, number> = {};
  #deltaSchemaId = -1;
  #decoder!: ChunkDecoder;
  /** Topics that exist, with their partition counts. */
  #partitions = new Map<string, number>();
  readonly #followers = new Map<number, Follower<Part>>();
  /** Next offset to fetch, `topic/partition`. */
  readonly #fetched = new Map<string, number>();
  /** End offset of each partition when it was last fetched, `topic/partition`. */
  readonly #endsSeen = new Map<string, number>();
  #names = 0;
  #endLog: () => void = () => undefined;
  #isActive = false;
  #failure: unknown;
  /** Last message of each partition of the names in this transaction: only its hash is kept. */
  readonly #lastValues = new Map<number, Buffer | null>();
  /** Partitions of the names whose first message must be the last one applied. */
  readonly #unproven = new Set<number>();
  /** Shards whose last delta is to be read again, to prove that the topic is still the same one. */
  readonly #unprovenDeltas = new Set<number>();
  /**
   * Ends of the deltas at the start: no names are read before them, for a reset among them makes the places in the
   * names worthless.
   */
  #deltasFirst: ReadonlyMap<number, LogBounds> | undefined;
  #nameOwnership = new Ownership('nm', 1);
  /** Generation for which the names were begun anew. */
  #namesReset = 0;
  /** What CURRENT in the bucket names. */
  #pushed: string | undefined;
  #report = { snapshot: null as string | null, snapshots: 0, deltas: 0, refused: 0 };

  get report(): SinkReport {
    return this.#report;
  }

  constructor(options: SinkOptions) {
    this.#options = options;
    this.#reader = new LogReader(options.broker);
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
    this.#deltaSchemaId = await registry.register(names.deltas, 'reelflow.deltas');
    const nameSchemaId = await registry.register(this.#namesTopic, 'imdb.name.basics');
    this.#schemas = {
      [`${names.deltas}-value`]: this.#deltaSchemaId,
      [`${this.#namesTopic}-value`]: nameSchemaId,
    };
    this.#decoder = new ChunkDecoder('name.basics', nameSchemaId, registry);
    const current = currentSnapshot(gold);
    if (this.#store.isEmpty && current !== undefined) await this.#restore(current);
    for (const state of this.#store.shards.values()) {
      this.#followers.set(state.shard, new Follower(state));
      this.#unprovenDeltas.add(state.shard);
    }
    await this.#findTopics();
    if (this.#store.names.size > 0) this.#deltasFirst = (await this.#ends()).get(names.deltas) ?? new Map();
    const { metrics, onOpen } = this.#options;
    metrics?.open({ lags: () => this.#lags(), memoryBytes: () => this.#store.memoryBytes() });
    if (current !== undefined) metrics?.current(readManifest(gold, current));
    this.#endLog = logEveryMinute(
      broker.logger,
      'taken in',
      () => {
        const { deltas, refused, snapshots } = this.#report;
        return { deltas, refused, names: this.#names, snapshots };
      },
      () => ({ lagMessages: this.#lags().reduce((sum, { messages }) => sum + messages, 0) }),
    );
    onOpen?.();
  }

  /** Messages that are not taken in, as far as fetches have told. */
  #lags(): { topic: string; partition: number; messages: number }[] {
    return this.#wants().flatMap(({ topic, partition, next }) => {
      const end = this.#endsSeen.get(`${topic}/${partition}`);
      return end === undefined ? [] : [{ topic, partition, messages: Math.max(0, end - next) }];
    });
  }

  async run(): Promise<SinkReport> {
    const { finish, intervalMs, signal } = this.#options;
    if (finish?.aborted !== true) await this.#join();
    let publishAtMs = Date.now() + intervalMs;
    while (!signal.aborted && finish?.aborted !== true) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#step();
      await sleep(gatherMs);
      if (Date.now() < publishAtMs) continue;
      if (this.#isActive && this.#isDue()) await this.#publish();
      if (this.#isActive) await this.#push('log');
      publishAtMs = Date.now() + intervalMs;
    }
    if (finish?.aborted === true) {
      await this.#findTopics();
      await this.#readTo(await this.#ends());
      await this.#tellGroup();
      if (!signal.aborted && this.#isDue()) await this.#publish();
      if (!signal.aborted) await this.#push('throw');
    }
    return this.#report;
  }

  async close(): Promise<void> {
    this.#endLog();
    this.#options.metrics?.close();
    await this.#membership?.leave();
    await this.#producer?.disconnect();
    await this.#reader.close();
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

  async #findTopics(): Promise<void> {
    const { broker, names } = this.#options;
    this.#partitions = await partitionCounts(broker, [names.deltas, this.#namesTopic]);
    const people = this.#partitions.get(this.#namesTopic);
    if (people !== undefined) this.#nameOwnership = new Ownership('nm', people);
  }

  async #join(): Promise<void> {
    const { broker, names, signal, finish } = this.#options;
    const isOver = () => signal.aborted || finish?.aborted === true;
    while (this.#partitions.size < 2 && !isOver()) {
      // Nothing is produced yet: there are no topics to subscribe to.
      await sleep(250);
      await this.#findTopics();
    }
    if (isOver()) return;
    this.#membership = await Membership.join({
      broker,
      groupId: names.sinkGroup,
      topics: [...this.#partitions.keys()],
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

  /**
   * Whether a message is the one before the next of its partition, read once more to prove that this is still the
   * topic that the names come from.
   * @throws ReelflowError sourceReplaced
   */
  #isProof(partition: number, { offset, value }: LogMessage): boolean {
    const state = this.#store.names.get(partition);
    if (state === undefined || !this.#unproven.has(partition)) return false;
    if (offset !== state.next - 1 || hashOf(value) !== state.lastHash) {
      throw new ReelflowError(
        'sourceReplaced',
        'The topic of names is not the one that the state was made from',
        {
          detail: `${this.#namesTopic}/${partition}: the message at offset ${state.next - 1} is another one.`,
          hint: 'It was recreated, or lost its tail. If that was intended: `reelflow reset`, then start again.',
        },
      );
    }
    this.#unproven.delete(partition);
    return true;
  }

  #nextOf(topic: string, partition: number): number {
    const key = `${topic}/${partition}`;
    const known = this.#fetched.get(key);
    if (known !== undefined) return known;
    const isUnproven = this.#unproven.has(partition) ? 1 : 0;
    return topic === this.#namesTopic
      ? (this.#store.names.get(partition)?.next ?? 0) - isUnproven
      : (this.#store.shards.get(partition)?.next ?? 0);
  }

  /** What to fetch now. @throws ReelflowError sourceLost, sourceReplaced */
  async #wantsNow(): Promise<Want[]> {
    const wants = this.#wants();
    if (this.#deltasFirst === undefined) return wants;
    const deltas = wants.filter(({ topic }) => topic !== this.#namesTopic);
    const isThere = ({ partition, next }: Want) => next >= (this.#deltasFirst?.get(partition)?.end ?? 0);
    if (!deltas.every(isThere)) return deltas;
    this.#deltasFirst = undefined;
    await this.#distrustNames();
    return this.#wants();
  }

  /** The last message that was read of each partition of the names is read once more, to prove the topic. */
  async #distrustNames(): Promise<void> {
    const ends = (await this.#ends()).get(this.#namesTopic);
    for (const { partition, next, lastHash } of this.#store.names.values()) {
      const { start, end } = ends?.get(partition) ?? { start: 0, end: 0 };
      if (end < next) {
        throw new ReelflowError(
          ends === undefined ? 'sourceLost' : 'sourceReplaced',
          ends === undefined
            ? 'The topic of names is gone'
            : 'The topic of names is shorter than what was read of it',
          {
            detail: `${this.#namesTopic}/${partition} ends at offset ${end}; ${next} is next.`,
            hint: 'Replay the names, then `reelflow reset`.',
          },
        );
      }
      if (next > start && lastHash !== hashOfNothing) {
        this.#unproven.add(partition);
        this.#fetched.delete(`${this.#namesTopic}/${partition}`);
      }
    }
  }

  /**
   * Reads the last delta of each unproven shard again.
   * @throws ReelflowError sourceLost, sourceReplaced; LogInterrupted, OutsideLog
   */
  async #proveDeltas(): Promise<void> {
    if (this.#unprovenDeltas.size === 0) return;
    const topic = this.#options.names.deltas;
    const ends = (await this.#ends()).get(topic);
    const wants: Want[] = [];
    for (const partition of this.#unprovenDeltas) {
      const { next = 0, lastDelta = -1 } = this.#store.shards.get(partition) ?? {};
      const { start, end } = ends?.get(partition) ?? { start: 0, end: 0 };
      if (end < next) {
        await this.#beginAtMark(partition, `${topic}/${partition} ends at offset ${end}; ${next} is next.`);
      } else if (lastDelta >= start) {
        wants.push({ topic, partition, next: lastDelta });
      } else {
        this.#unprovenDeltas.delete(partition);
      }
    }
    for (const { partition, next, messages } of await this.#reader.fetch(wants, { waitMs: fetchWaitMs })) {
      const [message] = messages;
      const state = this.#store.shards.get(partition);
      if (message === undefined || state === undefined) continue;
      if (this.#isLastDelta(state, message)) this.#unprovenDeltas.delete(partition);
      else
        await this.#beginAtMark(partition, `${topic}/${partition}, offset ${next}: another delta was there.`);
    }
  }

  /**
   * Goes on at the first whole of the shard that counts, which needs nothing before it: a reset's mark or a base.
   * @throws ReelflowError sourceReplaced, when there is none
   */
  async #beginAtMark(partition: number, detail: string): Promise<void> {
    const mark = await this.#findMark(partition);
    if (mark === undefined) {
      throw new ReelflowError(
        'sourceReplaced',
        'The topic of deltas is not the one that the state was made from',
        {
          detail: `${detail} It was recreated, or lost its tail.`,
          hint: "End all members, then `reelflow reset` with the sink's --gold.",
        },
      );
    }
    this.#unprovenDeltas.delete(partition);
    this.#fetched.set(`${this.#options.names.deltas}/${partition}`, mark);
  }

  async #findMark(partition: number): Promise<number | undefined> {
    const topic = this.#options.names.deltas;
    const { start, end } = (await this.#ends()).get(topic)?.get(partition) ?? { start: 0, end: 0 };
    const { chain } = this.#followerOf(partition);
    for (let next = start; next < end; ) {
      const [fetched] = await this.#reader.fetch([{ topic, partition, next }], { waitMs: fetchWaitMs });
      for (const { offset, value } of fetched?.messages ?? []) {
        next = offset + 1;
        const header = this.#headerOf(value);
        if (header === undefined || header.kind === 'delta' || header.part !== 1) continue;
        const verdict = new DeltaChain(chain).accept(header);
        if (verdict === 'apply' || verdict === 'collect') return offset;
      }
    }
    return undefined;
  }

  #headerOf(value: Buffer | null): DeltaPart | undefined {
    try {
      return decodeDeltaHeader(value, this.#deltaSchemaId).header;
    } catch (thrown) {
      if (thrown instanceof RejectedMessage) return undefined;
      throw thrown;
    }
  }

  #isLastDelta(state: ShardState, { offset, value }: LogMessage): boolean {
    const header = this.#headerOf(value);
    return offset === state.lastDelta && header !== undefined && isLastDelta(state, header);
  }

  #wants(): Want[] {
    return [...this.#partitions].flatMap(([topic, count]) =>
      Array.from({ length: count }, (_, partition) => ({
        topic,
        partition,
        next: this.#nextOf(topic, partition),
      })),
    );
  }

  async #ends(): Promise<Map<string, Map<number, LogBounds>>> {
    return logBounds(this.#options.broker, [...this.#partitions.keys()]);
  }

  async #readTo(ends: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>): Promise<void> {
    const isThere = () =>
      this.#wants().every(
        ({ topic, partition, next }) => next >= (ends.get(topic)?.get(partition)?.end ?? 0),
      );
    // Also when there is nothing new the topics are proved: nothing new may be all that a recreated one has.
    const isProved = () => this.#deltasFirst === undefined && this.#unprovenDeltas.size === 0;
    while (!(isProved() && isThere()) && !this.#options.signal.aborted) await this.#step();
  }

  /** One fetch and one transaction. */
  async #step(): Promise<void> {
    let fetched: Fetched[];
    try {
      await this.#proveDeltas();
      const wants = await this.#wantsNow();
      if (wants.length === 0) {
        await sleep(fetchWaitMs);
        return;
      }
      fetched = await this.#reader.fetch(wants, { waitMs: fetchWaitMs, bytesMax: batchBytesMax });
    } catch (thrown) {
      if (thrown instanceof LogInterrupted) {
        this.#options.broker.logger.debug({ reason: messageOf(thrown) }, 'fetch interrupted');
        await sleep(250);
        await this.#afterInterruption();
        return;
      }
      if (thrown instanceof OutsideLog) {
        const { topic, partition } = thrown;
        const mark = topic === this.#namesTopic ? undefined : await this.#findMark(partition);
        if (mark === undefined) throw this.#outside(thrown);
        this.#fetched.set(`${topic}/${partition}`, mark);
        return;
      }
      throw thrown;
    }
    for (const { topic, partition, end } of fetched) this.#endsSeen.set(`${topic}/${partition}`, end);
    const withMessages = fetched.filter(({ messages }) => messages.length > 0);
    if (withMessages.length > 0) await this.#apply(withMessages);
  }

  /** What comes back may be another topic under the same name, or none. */
  async #afterInterruption(): Promise<void> {
    const before = [...this.#partitions.keys()];
    try {
      await this.#findTopics();
      const gone = before.find((topic) => !this.#partitions.has(topic));
      if (gone !== undefined) {
        throw new ReelflowError('sourceLost', 'A topic that the sink reads is gone', {
          detail: gone,
          hint: 'Replay the datasets, start a processor, then `reelflow reset`.',
        });
      }
      for (const shard of this.#store.shards.keys()) this.#unprovenDeltas.add(shard);
      if (this.#deltasFirst === undefined) await this.#distrustNames();
    } catch (thrown) {
      // Without an answer nothing can be said; the next fetch waits for the broker as well.
      if (thrown instanceof ReelflowError && thrown.kind !== 'brokerUnreachable') throw thrown;
      this.#options.broker.logger.debug({ reason: messageOf(thrown) }, 'no answer about the topics');
    }
  }

  #outside({ topic, partition }: OutsideLog): ReelflowError {
    const isNames = topic === this.#namesTopic;
    return new ReelflowError(
      isNames ? 'sourceLost' : 'deltasTrimmed',
      'The log no longer holds what the sink reads next',
      {
        detail: `${topic}/${partition}: offset ${this.#nextOf(topic, partition)}.`,
        hint: isNames
          ? 'The topic was recreated or trimmed: replay the names, then `reelflow reset`.'
          : 'Move the sink state away to restore from CURRENT, or `reelflow reset`.',
      },
    );
  }

  /** Applies what was fetched, in one transaction with the positions. */
  async #apply(fetched: readonly Fetched[]): Promise<void> {
    const shards = new Map<number, ShardState>();
    const names = new Map<number, NameState>();
    const dead: { message: LogMessage; from: Fetched; rejection: RejectedMessage }[] = [];
    const staged = new StagedNames(this.#store.people);
    // Deltas first: a reset among them makes what was fetched of the names worthless.
    const isName = ({ topic }: Fetched) => (topic === this.#namesTopic ? 1 : 0);
    const byTopic = [...fetched].sort((a, b) => isName(a) - isName(b));
    const resetBefore = this.#namesReset;
    const startedMs = Date.now();
    await this.#store.transaction(async () => {
      for (const part of byTopic) {
        const isNames = part.topic === this.#namesTopic;
        if (isNames && this.#namesReset !== resetBefore) break;
        for (const message of part.messages) {
          if (isNames && this.#isProof(part.partition, message)) continue;
          try {
            if (isNames) await this.#addNames(part.partition, message, staged, names);
            else await this.#addDelta(part.partition, message, shards, names);
          } catch (thrown) {
            if (!(thrown instanceof RejectedMessage)) throw thrown;
            dead.push({ message, from: part, rejection: thrown });
            const { records } = thrown;
            if (isNames) this.#countNames(names, part.partition, message, records, records);
            else this.#pass(part.partition, message, shards);
          }
        }
        if (!staged.isEmpty) await this.#flushNames(staged, part.partition, names);
      }
      for (const state of shards.values()) await this.#store.putShard(state);
      for (const [partition, value] of this.#lastValues) {
        names.set(partition, { ...this.#namesOf(names, partition), lastHash: hashOf(value) });
      }
      for (const state of names.values()) await this.#store.putNames(state);
      // Before the commit: a crash in between sends them again, the other way round it would lose them.
      await this.#sendDeadLetters(dead);
    });
    this.#lastValues.clear();
    crashPoint('after-delta-commit');
    this.#options.metrics?.committed(Date.now() - startedMs);
    for (const state of shards.values()) this.#store.shards.set(state.shard, state);
    for (const state of names.values()) this.#store.names.set(state.partition, state);
    for (const { topic, partition, messages } of byTopic) {
      if (topic === this.#namesTopic && this.#namesReset !== resetBefore) break;
      this.#fetched.set(`${topic}/${partition}`, (messages.at(-1)?.offset ?? -1) + 1);
    }
    await this.#mirror(shards, names, byTopic);
  }

  async #addDelta(
    shard: number,
    message: LogMessage,
    shards: Map<number, ShardState>,
    names: Map<number, NameState>,
  ): Promise<void> {
    if (message.isMarker) {
      this.#pass(shard, message, shards);
      return;
    }
    const { header, at } = decodeDeltaHeader(message.value, this.#deltaSchemaId);
    if (header.shard !== shard) {
      throw new RejectedMessage('wrong_partition', `a delta of shard ${header.shard} in partition ${shard}`);
    }
    // To its last row before the chain hears of it: what cannot be added must not count.
    const rows = emptyCubes(this.#store.dictionary);
    decodeDeltaRows(message.value as Buffer, at, rows);
    const { verdict, parts } = this.#followerOf(shard).follow(header, message.offset, rows);
    this.#options.metrics?.delta(verdict);
    if (verdict === 'refuse') this.#refuse(shard, message, header);
    if (verdict === 'apply') {
      await this.#applyDelta(shard, header, parts);
      if (header.kind === 'reset') await this.#resetNames(header.generation, names);
      this.#report.deltas += 1;
    }
    this.#stage(shard, shards);
  }

  #stage(shard: number, shards: Map<number, ShardState>): void {
    const { state } = this.#followerOf(shard);
    if (state !== undefined && state !== this.#store.shards.get(shard)) shards.set(shard, state);
  }

  #followerOf(shard: number): Follower<Part> {
    const follower = this.#followers.get(shard) ?? new Follower<Part>();
    this.#followers.set(shard, follower);
    return follower;
  }

  /** Moves behind a message that is no delta. */
  #pass(shard: number, { offset }: LogMessage, shards: Map<number, ShardState>): void {
    this.#followerOf(shard).pass(offset);
    this.#stage(shard, shards);
  }

  async #applyDelta(shard: number, header: DeltaPart, parts: readonly Part[]): Promise<void> {
    const store = this.#store;
    if (header.kind !== 'delta') await store.clearShard(shard);
    if (header.kind === 'reset') return;
    for (const rows of parts) {
      for (const wire of cubesOnTheWire) await store.addCubeRows(shard, wire, rows[wire.name] as Columns);
    }
  }

  /** The first reset mark of a generation also begins the names anew: their topic may have been recreated too. */
  async #resetNames(generation: number, names: Map<number, NameState>): Promise<void> {
    if ([...this.#store.shards.values()].some(({ chain }) => chain.generation >= generation)) return;
    if (this.#namesReset >= generation) return;
    this.#namesReset = generation;
    await this.#store.clearNames();
    names.clear();
    this.#store.names.clear();
    this.#unproven.clear();
    for (const key of this.#fetched.keys())
      if (key.startsWith(`${this.#namesTopic}/`)) this.#fetched.delete(key);
  }

  #refuse(shard: number, message: LogMessage, header: DeltaPart): void {
    this.#report.refused += 1;
    const { position, generation } = this.#followerOf(shard).chain;
    this.#options.broker.logger.error(
      {
        shard,
        offset: message.offset,
        store: header.storeId,
        generation: [header.generation, generation],
        stands: positionText(position),
        range: header.range.map(({ topic, from, to }) => `${topic} [${from}, ${to})`),
      },
      'a delta is refused: it does not go on where the shard stands',
    );
  }

  async #addNames(
    partition: number,
    message: LogMessage,
    staged: StagedNames,
    names: Map<number, NameState>,
  ): Promise<void> {
    if (message.isMarker) {
      this.#countNames(names, partition, message, 0, 0);
      return;
    }
    const own = this.#decoder.isOwn(message.value)
      ? (message.value as Buffer)
      : await this.#decoder.resolve(message.value as Buffer);
    const ownership = this.#nameOwnership;
    const header = await staged.add(own, this.#decoder, { ownership, partition }, () =>
      this.#flushNames(staged, partition, names),
    );
    this.#countNames(names, partition, message, header.records + header.deletes, 0);
    this.#names += header.records + header.deletes;
    this.#options.metrics?.names(header.records + header.deletes);
  }

  #countNames(
    names: Map<number, NameState>,
    partition: number,
    { offset, value }: LogMessage,
    records: number,
    rejected: number,
  ): void {
    const before = this.#namesOf(names, partition);
    this.#lastValues.set(partition, value);
    // Every record counts as a duplicate until `#flushNames` knows how many rows have changed.
    names.set(partition, {
      partition,
      next: offset + 1,
      lastHash: before.lastHash,
      applied: before.applied,
      duplicate: before.duplicate + records - rejected,
      rejected: before.rejected + rejected,
    });
  }

  #namesOf(names: ReadonlyMap<number, NameState>, partition: number): NameState {
    const none = { partition, next: 0, lastHash: '', applied: 0, duplicate: 0, rejected: 0 };
    return names.get(partition) ?? this.#store.names.get(partition) ?? none;
  }

  /** Writes what is staged, which is all of one partition. */
  async #flushNames(staged: StagedNames, partition: number, names: Map<number, NameState>): Promise<void> {
    const changed = await this.#store.writeNames(staged.take());
    const state = this.#namesOf(names, partition);
    names.set(partition, {
      ...state,
      applied: state.applied + changed,
      duplicate: state.duplicate - changed,
    });
  }

  async #sendDeadLetters(
    dead: readonly { message: LogMessage; from: Fetched; rejection: RejectedMessage }[],
  ): Promise<void> {
    if (dead.length === 0) return;
    const { broker, names } = this.#options;
    if (this.#producer === undefined) {
      this.#producer = broker.kafka.producer({ allowAutoTopicCreation: false });
      await this.#producer.connect();
    }
    for (const { message, from, rejection } of dead) {
      this.#options.metrics?.deadLetter(rejection.reason);
      broker.logger.warn(
        { reason: rejection.reason, topic: from.topic, offset: message.offset },
        'dead letter',
      );
      const letter = deadLetterMessage({
        stage: 'sink',
        reason: rejection.reason,
        detail: rejection.message,
        original: message.value ?? Buffer.alloc(0),
        source: { topic: from.topic, partition: from.partition, offset: String(message.offset) },
        time: new Date(),
        key: message.key,
      });
      await this.#producer.send({ topic: names.deadLetter, acks: -1, messages: [letter] });
    }
  }

  /** A sink that runs once is no member, and yet monitors shall see where it has come to. */
  async #tellGroup(): Promise<void> {
    if (this.#membership !== undefined) return;
    const { broker, names } = this.#options;
    const groupId = names.sinkGroup;
    const nexts = (states: Iterable<{ partition: number; next: number }>) =>
      [...states].map(({ partition, next }) => ({ partition, offset: String(next) }));
    const deltas = nexts(
      [...this.#store.shards.values()].map(({ shard, next }) => ({ partition: shard, next })),
    );
    const people = nexts(this.#store.names.values());
    try {
      await withAdmin(broker, async (admin) => {
        if (deltas.length > 0) await admin.setOffsets({ groupId, topic: names.deltas, partitions: deltas });
        if (people.length > 0)
          await admin.setOffsets({ groupId, topic: this.#namesTopic, partitions: people });
      });
    } catch (thrown) {
      // A sink that is a member tells by itself.
      broker.logger.debug({ reason: messageOf(thrown) }, 'positions not mirrored');
    }
  }

  /** For monitors only. */
  async #mirror(
    shards: ReadonlyMap<number, ShardState>,
    names: ReadonlyMap<number, NameState>,
    fetched: readonly Fetched[],
  ): Promise<void> {
    const committedAt = Date.now();
    const commit = (topic: string, partition: number, next: number, recordsPerMessage?: number) => {
      const part = fetched.find((one) => one.topic === topic && one.partition === partition);
      const recordTs = part?.messages.findLast(({ offset }) => offset < next)?.timestampMs;
      const metadata = JSON.stringify({ recordTs, committedAt, recordsPerMessage });
      return { topic, partition, next, metadata };
    };
    await this.#membership?.commit([
      ...[...shards.values()].map(({ shard, next }) => commit(this.#options.names.deltas, shard, next)),
      ...[...names.values()].map(({ partition, next, applied, duplicate, rejected }) =>
        commit(this.#namesTopic, partition, next, (applied + duplicate + rejected) / next),
      ),
    ]);
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
    this.#report = { ...this.#report, snapshot: manifest.id, snapshots: this.#report.snapshots + 1 };
    onSnapshot?.(manifest);
  }

  /** Lets the bucket follow. One that cannot be reached is tried again at the next interval. */
  async #push(onFailure: 'log' | 'throw'): Promise<void> {
    const { gold, keep, pushTo, broker } = this.#options;
    const current = currentSnapshot(gold);
    if (pushTo === undefined || current === undefined || current === this.#pushed) return;
    const { pushGold } = await import('./bucket.ts');
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
