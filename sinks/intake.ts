/**
 * What the sink takes in: all deltas and all names, fetched from the log, proved to be of the topics that the state comes
 * from, and added to the store together with the positions they reach to.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Producer } from 'kafkajs';
import { type LogBounds, logBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { LogInterrupted } from '../kafka/failures.ts';
import { type Fetched, type LogMessage, LogReader, OutsideLog, type Want } from '../kafka/log.ts';
import type { Membership } from '../kafka/membership.ts';
import { partitionCounts } from '../kafka/topics.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { TopicNames } from '../topics/catalog.ts';
import { type ChunkDecoder, RejectedMessage } from '../topics/chunk.ts';
import { deadLetterMessage } from '../topics/dead-letter.ts';
import { DeltaChain } from '../topics/delta-chain.ts';
import {
  cubesOnTheWire,
  type DeltaPart,
  decodeDeltaHeader,
  decodeDeltaRows,
  emptyCubes,
} from '../topics/delta-wire.ts';
import { LogProof } from '../topics/log-proof.ts';
import { Ownership } from '../topics/ownership.ts';
import { positionText } from '../topics/position.ts';
import type { Columns } from '../topics/rows.ts';
import type { CubeStore, PeopleState, ShardState } from './cube-store.ts';
import { Follower, isLastDelta } from './follower.ts';
import { PersonIntake } from './person-intake.ts';
import type { SinkMetrics } from './sink-metrics.ts';

export interface IntakeOptions {
  readonly broker: Broker;
  readonly names: TopicNames;
  readonly store: CubeStore;
  /** Registry id of the delta schema. */
  readonly deltaSchemaId: number;
  /** For chunks of names. */
  readonly decoder: ChunkDecoder;
  readonly metrics?: SinkMetrics | undefined;
  readonly signal: AbortSignal;
  /** Called after each transaction with the positions it has reached, for monitors. */
  readonly onCommit: (positions: Parameters<Membership['commit']>[0]) => Promise<void>;
}

const fetchWaitMs = 100;
/** A transaction takes in at most so many bytes of messages. */
const batchBytesMax = 16 * 1024 * 1024;

/** The rows of a part of a delta, by cube. */
type Part = Readonly<Record<string, Columns>>;

export class Intake {
  /** Since the start. */
  deltas = 0;
  refused = 0;
  /** Topics that exist, with their partition counts. */
  partitions = new Map<string, number>();
  readonly #options: IntakeOptions;
  readonly #store: CubeStore;
  readonly #people: PersonIntake;
  readonly #reader: LogReader;
  readonly #namesTopic: string;
  #producer: Producer | undefined;
  readonly #followers = new Map<number, Follower<Part>>();
  /** Next offset to fetch, `topic/partition`. */
  readonly #fetched = new Map<string, number>();
  /** End offset of each partition when it was last fetched, `topic/partition`. */
  readonly #endsSeen = new Map<string, number>();
  /** By shard: the last delta that was applied. */
  readonly #deltaProof = new LogProof<number>();
  /**
   * Ends of the deltas at the start: no names are read before them, for a reset among them makes the places in the
   * names worthless.
   */
  #deltasFirst: ReadonlyMap<number, LogBounds> | undefined;
  /** Generation for which the names were begun anew. */
  #namesReset = 0;

  constructor(options: IntakeOptions) {
    const { broker, names, store, decoder, metrics } = options;
    this.#options = options;
    this.#store = store;
    this.#reader = new LogReader(broker);
    this.#namesTopic = names.source('name.basics');
    this.#people = new PersonIntake({ store, decoder, metrics, topic: this.#namesTopic });
  }

  /** Names taken in since the start. */
  get people(): number {
    return this.#people.count;
  }

  /** Goes on where the store stands. */
  async open(): Promise<void> {
    for (const state of this.#store.shards.values()) {
      this.#followers.set(state.shard, new Follower(state));
      this.#distrustDeltas(state);
    }
    await this.findTopics();
    if (this.#store.names.size > 0) {
      this.#deltasFirst = (await this.ends()).get(this.#options.names.deltas) ?? new Map();
    }
  }

  async close(): Promise<void> {
    await this.#producer?.disconnect();
    await this.#reader.close();
  }

  /** Looks which topics there are, and how many partitions they have. */
  async findTopics(): Promise<void> {
    const { broker, names } = this.#options;
    this.partitions = await partitionCounts(broker, [names.deltas, this.#namesTopic]);
    const people = this.partitions.get(this.#namesTopic);
    if (people !== undefined) this.#people.ownership = new Ownership('nm', people);
  }

  /** Messages that are not taken in, as far as fetches have told. */
  lags(): { topic: string; partition: number; messages: number }[] {
    return this.#wants().flatMap(({ topic, partition, next }) => {
      const end = this.#endsSeen.get(`${topic}/${partition}`);
      return end === undefined ? [] : [{ topic, partition, messages: Math.max(0, end - next) }];
    });
  }

  /** Takes in all that lies before `ends`, and proves the topics. Ends early on the signal. */
  async readTo(ends: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>): Promise<void> {
    const isThere = () =>
      this.#wants().every(
        ({ topic, partition, next }) => next >= (ends.get(topic)?.get(partition)?.end ?? 0),
      );
    // Also when there is nothing new the topics are proved: nothing new may be all that a recreated one has.
    const isProved = () => this.#deltasFirst === undefined && this.#deltaProof.isComplete;
    while (!(isProved() && isThere()) && !this.#options.signal.aborted) await this.step();
  }

  /** One fetch and one transaction. */
  async step(): Promise<void> {
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

  #nextOf(topic: string, partition: number): number {
    const known = this.#fetched.get(`${topic}/${partition}`);
    if (known !== undefined) return known;
    return topic === this.#namesTopic
      ? this.#people.nextOf(partition)
      : (this.#store.shards.get(partition)?.next ?? 0);
  }

  #wants(): Want[] {
    return [...this.partitions].flatMap(([topic, count]) =>
      Array.from({ length: count }, (_, partition) => ({
        topic,
        partition,
        next: this.#nextOf(topic, partition),
      })),
    );
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

  /** Start and end of all partitions of both topics. */
  async ends(): Promise<Map<string, Map<number, LogBounds>>> {
    return logBounds(this.#options.broker, [...this.partitions.keys()]);
  }

  /** The last message that was read of each partition of the names is read once more, to prove the topic. */
  async #distrustNames(): Promise<void> {
    const ends = (await this.ends()).get(this.#namesTopic);
    for (const partition of this.#people.distrust(ends))
      this.#fetched.delete(`${this.#namesTopic}/${partition}`);
  }

  /** The last delta that was applied is read once more, to prove the topic. */
  #distrustDeltas(state: ShardState): void {
    this.#deltaProof.require(state.shard, {
      offset: state.lastDelta,
      isSame: ({ value }) => {
        const header = this.#headerOf(value);
        return header !== undefined && isLastDelta(state, header);
      },
    });
  }

  /**
   * Reads the last delta of each unproven shard again.
   * @throws ReelflowError sourceLost, sourceReplaced; LogInterrupted, OutsideLog
   */
  async #proveDeltas(): Promise<void> {
    if (this.#deltaProof.isComplete) return;
    const topic = this.#options.names.deltas;
    const ends = (await this.ends()).get(topic);
    const wants: Want[] = [];
    for (const [partition, { offset }] of [...this.#deltaProof.pending]) {
      const { next = 0 } = this.#store.shards.get(partition) ?? {};
      const { start, end } = ends?.get(partition) ?? { start: 0, end: 0 };
      if (end < next) {
        await this.#beginAtMark(partition, `${topic}/${partition} ends at offset ${end}; ${next} is next.`);
      } else if (offset >= start) {
        wants.push({ topic, partition, next: offset });
      } else {
        // Trimmed: nothing is left that could prove the topic.
        this.#deltaProof.drop(partition);
      }
    }
    for (const { partition, next, messages } of await this.#reader.fetch(wants, { waitMs: fetchWaitMs })) {
      const [message] = messages;
      if (message === undefined || this.#deltaProof.accept(partition, message)) continue;
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
    this.#deltaProof.drop(partition);
    this.#fetched.set(`${this.#options.names.deltas}/${partition}`, mark);
  }

  async #findMark(partition: number): Promise<number | undefined> {
    const topic = this.#options.names.deltas;
    const { start, end } = (await this.ends()).get(topic)?.get(partition) ?? { start: 0, end: 0 };
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
      return decodeDeltaHeader(value, this.#options.deltaSchemaId).header;
    } catch (thrown) {
      if (thrown instanceof RejectedMessage) return undefined;
      throw thrown;
    }
  }

  /** What comes back may be another topic under the same name, or none. */
  async #afterInterruption(): Promise<void> {
    const before = [...this.partitions.keys()];
    try {
      await this.findTopics();
      const gone = before.find((topic) => !this.partitions.has(topic));
      if (gone !== undefined) {
        throw new ReelflowError('sourceLost', 'A topic that the sink reads is gone', {
          detail: gone,
          hint: 'Replay the datasets, start a processor, then `reelflow reset`.',
        });
      }
      for (const state of this.#store.shards.values()) this.#distrustDeltas(state);
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
    const dead: { message: LogMessage; from: Fetched; rejection: RejectedMessage }[] = [];
    // Deltas first: a reset among them makes what was fetched of the names worthless.
    const isName = ({ topic }: Fetched) => (topic === this.#namesTopic ? 1 : 0);
    const byTopic = [...fetched].sort((a, b) => isName(a) - isName(b));
    const resetBefore = this.#namesReset;
    const startedMs = Date.now();
    this.#people.begin();
    await this.#store.transaction(async () => {
      for (const part of byTopic) {
        const isNames = part.topic === this.#namesTopic;
        if (isNames && this.#namesReset !== resetBefore) break;
        for (const message of part.messages) {
          try {
            if (isNames) await this.#people.add(part.partition, message);
            else await this.#addDelta(part.partition, message, shards);
          } catch (thrown) {
            if (!(thrown instanceof RejectedMessage)) throw thrown;
            dead.push({ message, from: part, rejection: thrown });
            if (isNames) this.#people.reject(part.partition, message, thrown.records);
            else this.#pass(part.partition, message, shards);
          }
        }
        if (isNames) await this.#people.flush(part.partition);
      }
      for (const state of shards.values()) await this.#store.putShard(state);
      await this.#people.write();
      // Before the commit: a crash in between sends them again, the other way round it would lose them.
      await this.#sendDeadLetters(dead);
    });
    crashPoint('after-delta-commit');
    this.#options.metrics?.committed(Date.now() - startedMs);
    for (const state of shards.values()) this.#store.shards.set(state.shard, state);
    const names = this.#people.committed();
    for (const { topic, partition, messages } of byTopic) {
      if (topic === this.#namesTopic && this.#namesReset !== resetBefore) break;
      this.#fetched.set(`${topic}/${partition}`, (messages.at(-1)?.offset ?? -1) + 1);
    }
    await this.#mirror(shards, names, byTopic);
  }

  async #addDelta(shard: number, message: LogMessage, shards: Map<number, ShardState>): Promise<void> {
    if (message.isMarker) {
      this.#pass(shard, message, shards);
      return;
    }
    const { header, at } = decodeDeltaHeader(message.value, this.#options.deltaSchemaId);
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
      if (header.kind === 'reset') await this.#resetNames(header.generation);
      this.deltas += 1;
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
  async #resetNames(generation: number): Promise<void> {
    if ([...this.#store.shards.values()].some(({ chain }) => chain.generation >= generation)) return;
    if (this.#namesReset >= generation) return;
    this.#namesReset = generation;
    await this.#people.clear();
    for (const key of this.#fetched.keys())
      if (key.startsWith(`${this.#namesTopic}/`)) this.#fetched.delete(key);
  }

  #refuse(shard: number, message: LogMessage, header: DeltaPart): void {
    this.refused += 1;
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

  /** For monitors only. */
  async #mirror(
    shards: ReadonlyMap<number, ShardState>,
    names: readonly PeopleState[],
    fetched: readonly Fetched[],
  ): Promise<void> {
    const committedAt = Date.now();
    const commit = (topic: string, partition: number, next: number, recordsPerMessage?: number) => {
      const part = fetched.find((one) => one.topic === topic && one.partition === partition);
      const recordTs = part?.messages.findLast(({ offset }) => offset < next)?.timestampMs;
      const metadata = JSON.stringify({ recordTs, committedAt, recordsPerMessage });
      return { topic, partition, next, metadata };
    };
    await this.#options.onCommit([
      ...[...shards.values()].map(({ shard, next }) => commit(this.#options.names.deltas, shard, next)),
      ...names.map(({ partition, next, applied, duplicate, rejected }) =>
        commit(this.#namesTopic, partition, next, (applied + duplicate + rejected) / next),
      ),
    ]);
  }
}
