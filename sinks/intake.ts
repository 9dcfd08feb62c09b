/**
 * Reads the deltas and name.basics from the log and adds them to the store, each fetch in one transaction with the positions
 * that it reaches. `delta-intake.ts` and `person-intake.ts` know what a message means; this file knows which messages come
 * next, and waits out an outage of the brokers.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type BoundsByTopic, goneAfterMs, type LogBounds, logBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { isPassing } from '../kafka/failures.ts';
import { type Fetched, type LogMessage, LogReader, OutsideLog, type Want } from '../kafka/log.ts';
import type { Commit } from '../kafka/membership.ts';
import { partitionCounts } from '../kafka/topics.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import { findBase } from '../topics/base.ts';
import type { TopicNames } from '../topics/catalog.ts';
import { type ChunkDecoder, RejectedMessage } from '../topics/chunk.ts';
import { Ownership } from '../topics/ownership.ts';
import { recordsOf } from '../topics/record-counts.ts';
import type { CubeStore } from './cube-store.ts';
import { DeadLetterSender, type RejectedSource } from './dead-letter-sender.ts';
import { DeltaIntake } from './delta-intake.ts';
import { currentManifest } from './gold/manifest.ts';
import { PersonIntake } from './person-intake.ts';
import type { PeopleState, ShardState } from './shard-state.ts';
import type { SinkMetrics } from './sink-metrics.ts';

interface IntakeOptions {
  readonly broker: Broker;
  readonly names: TopicNames;
  readonly gold: string;
  readonly store: CubeStore;
  /** Registry id of the delta schema. */
  readonly deltaSchemaId: number;
  /** For chunks of name.basics. */
  readonly decoder: ChunkDecoder;
  readonly metrics?: SinkMetrics | undefined;
  readonly signal: AbortSignal;
  /** Receives the positions that a transaction has reached, for monitors. */
  readonly onCommit: (commits: readonly Commit[]) => void;
}

const fetchWaitMs = 100;
/** Pause before a failed fetch is repeated. */
const retryMs = 250;
/** Maximum bytes of the messages of one transaction. */
const batchBytesMax = 16 * 1024 * 1024;

export class Intake {
  /** Topics that exist, with their partition counts. */
  partitions = new Map<string, number>();
  readonly #options: IntakeOptions;
  readonly #store: CubeStore;
  readonly #deltas: DeltaIntake;
  readonly #people: PersonIntake;
  readonly #reader: LogReader;
  readonly #deadLetters: DeadLetterSender;
  readonly #peopleTopic: string;
  /** Next offset to fetch, by `topic/partition`, where it differs from the one of the store. */
  readonly #fetched = new Map<string, number>();
  /** End offset of each partition at its last fetch, by `topic/partition`. */
  readonly #endsSeen = new Map<string, number>();
  /**
   * Ends of the deltas at the start. No names are read before the deltas have reached them, because a reset among these deltas
   * invalidates the positions of the names.
   */
  #deltasFirst: ReadonlyMap<number, LogBounds> | undefined;
  /** Since when the brokers have not known a topic. One that has just started does not know all; until then nothing is read. */
  #missingSinceMs: number | undefined;
  /** Generation of the last reset that started the names again. */
  #peopleGeneration = 0;

  constructor(options: IntakeOptions) {
    const { broker, names, store, decoder, metrics, signal } = options;
    this.#options = options;
    this.#store = store;
    this.#reader = new LogReader(broker);
    this.#peopleTopic = names.source('name.basics');
    this.#people = new PersonIntake({ store, decoder, metrics, topic: this.#peopleTopic });
    this.#deadLetters = new DeadLetterSender({ broker, topic: names.deadLetter, metrics, signal });
    const topic = names.deltas;
    this.#deltas = new DeltaIntake({
      store,
      topic,
      schemaId: options.deltaSchemaId,
      logger: broker.logger,
      metrics,
      read: async (partition, next) => {
        const [fetched] = await this.#reader.fetch([{ topic, partition, next }], { waitMs: fetchWaitMs });
        return fetched?.messages ?? [];
      },
      bounds: async () => (await this.bounds()).get(topic) ?? new Map(),
    });
  }

  /** Deltas applied since the start. */
  get deltas(): number {
    return this.#deltas.applied;
  }

  /** Deltas refused since the start. */
  get refused(): number {
    return this.#deltas.refused;
  }

  /** Records of name.basics read since the start. */
  get people(): number {
    return this.#people.count;
  }

  async open(): Promise<void> {
    await this.findTopics();
    if (this.#store.peopleStates.size > 0) {
      this.#deltasFirst = (await this.bounds()).get(this.#options.names.deltas) ?? new Map();
    }
  }

  async close(): Promise<void> {
    await this.#deadLetters.close();
    await this.#reader.close();
  }

  /** Finds out which topics exist, and how many partitions they have. */
  async findTopics(): Promise<void> {
    const { broker, names } = this.#options;
    this.partitions = await partitionCounts(broker, [names.deltas, this.#peopleTopic]);
    const people = this.partitions.get(this.#peopleTopic);
    if (people !== undefined) this.#people.ownership = new Ownership('nm', people);
  }

  /** Start and end of all partitions of both topics. */
  async bounds(): Promise<BoundsByTopic> {
    return logBounds(this.#options.broker, [...this.partitions.keys()]);
  }

  /** Messages between the last observed end of each partition and its position. */
  lags(): { topic: string; partition: number; messages: number }[] {
    return this.#wants().flatMap(({ topic, partition, next }) => {
      const end = this.#endsSeen.get(`${topic}/${partition}`);
      return end === undefined ? [] : [{ topic, partition, messages: Math.max(0, end - next) }];
    });
  }

  /** Reads everything before the ends of `bounds`, and proves the topics. Returns early on the signal. */
  async readTo(bounds: BoundsByTopic): Promise<void> {
    const reachedEnds = () => this.#wants().every((want) => reachedEnd(want, bounds.get(want.topic)));
    // The topics are proved even if there is nothing new: a recreated topic may hold nothing else.
    const isProved = () => this.#deltasFirst === undefined && this.#deltas.isProved;
    while (!(isProved() && reachedEnds()) && !this.#options.signal.aborted) await this.step();
  }

  /** One fetch and one transaction. Waits out an outage: then nothing is read, and a later step tries again. */
  async step(): Promise<void> {
    const { outages } = this.#options.broker;
    if (this.#missingSinceMs !== undefined) {
      await sleep(retryMs);
      await this.#afterInterruption();
      return;
    }
    let fetched: Fetched[];
    try {
      fetched = await this.#fetch();
      outages.resumes('reading');
    } catch (thrown) {
      if (!isPassing(thrown)) throw thrown;
      outages.waits('reading', messageOf(thrown));
      await sleep(retryMs);
      await this.#afterInterruption();
      return;
    }
    for (const { topic, partition, highWatermark } of fetched)
      this.#endsSeen.set(`${topic}/${partition}`, highWatermark);
    const withMessages = fetched.filter(({ messages }) => messages.length > 0);
    if (withMessages.length > 0) await this.#apply(withMessages);
  }

  /** @throws ReelflowError sourceLost, sourceReplaced, deltasTrimmed; passing failures of the broker */
  async #fetch(): Promise<Fetched[]> {
    const { deltas } = this.#options.names;
    for (const [partition, next] of await this.#deltas.prove())
      this.#fetched.set(`${deltas}/${partition}`, next);
    const wants = await this.#wantsNow();
    if (wants.length === 0) {
      await sleep(fetchWaitMs);
      return [];
    }
    try {
      return await this.#reader.fetch(wants, { waitMs: fetchWaitMs, bytesMax: batchBytesMax });
    } catch (thrown) {
      if (!(thrown instanceof OutsideLog)) throw thrown;
      const { topic, partition } = thrown;
      const start =
        topic === this.#peopleTopic
          ? await this.#beginAtBase(partition)
          : await this.#deltas.findStart(partition);
      if (start === undefined) throw this.#outside(thrown);
      this.#fetched.set(`${topic}/${partition}`, start);
      return [];
    }
  }

  /**
   * If the names of a partition start at a base, forgets what was read before it. All partitions are read again, because the
   * names do not tell their partitions.
   * @returns where to read on; undefined if names are lost
   */
  async #beginAtBase(partition: number): Promise<number | undefined> {
    const topic = this.#peopleTopic;
    const bounds = (await this.bounds()).get(topic)?.get(partition);
    if (bounds === undefined || bounds.start <= this.#nextOf(topic, partition)) return undefined;
    const base = await findBase(this.#reader, { topic, partition }, bounds);
    if (base === undefined) return undefined;
    if (this.#store.peopleStates.has(partition)) await this.#store.transaction(() => this.#forgetPeople());
    this.#options.broker.logger.info({ topic, partition, ...base }, 'the names begin at a base');
    return base.begin;
  }

  async #forgetPeople(): Promise<void> {
    await this.#people.clear();
    for (const key of this.#fetched.keys()) {
      if (key.startsWith(`${this.#peopleTopic}/`)) this.#fetched.delete(key);
    }
  }

  #nextOf(topic: string, partition: number): number {
    const intake = topic === this.#peopleTopic ? this.#people : this.#deltas;
    return this.#fetched.get(`${topic}/${partition}`) ?? intake.nextOf(partition);
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
    const deltas = wants.filter(({ topic }) => topic !== this.#peopleTopic);
    if (!deltas.every((want) => reachedEnd(want, this.#deltasFirst))) return deltas;
    await this.#requirePeopleProof();
    this.#deltasFirst = undefined;
    return this.#wants();
  }

  async #requirePeopleProof(): Promise<void> {
    const bounds = (await this.bounds()).get(this.#peopleTopic);
    for (const partition of this.#people.requireProof(bounds)) {
      this.#fetched.delete(`${this.#peopleTopic}/${partition}`);
    }
  }

  /** After an interruption the topics may be others under the same names, or gone. */
  async #afterInterruption(): Promise<void> {
    const before = this.partitions;
    try {
      await this.findTopics();
      const missing = [...before.keys()].find((topic) => !this.partitions.has(topic));
      if (missing === undefined) this.#missingSinceMs = undefined;
      else {
        this.partitions = before;
        this.#missingSinceMs ??= performance.now();
        if (performance.now() - this.#missingSinceMs < goneAfterMs) return;
        throw new ReelflowError('sourceLost', 'A topic that the sink reads does not exist any more', {
          detail: missing,
          hint: 'Replay the datasets, start a processor, then run `reelflow reset`.',
        });
      }
      this.#deltas.requireProof();
      if (this.#deltasFirst === undefined) await this.#requirePeopleProof();
    } catch (thrown) {
      // Without an answer nothing is known; the next step waits for the broker as well.
      if (!isPassing(thrown)) throw thrown;
      if (this.#missingSinceMs !== undefined) this.#missingSinceMs = performance.now();
      this.#options.broker.logger.debug({ reason: messageOf(thrown) }, 'no answer about the topics');
    }
  }

  #outside({ topic, partition }: OutsideLog): ReelflowError {
    const isPeople = topic === this.#peopleTopic;
    const next = this.#nextOf(topic, partition);
    const published = isPeople ? 0 : (currentManifest(this.#options.gold)?.deltas[partition] ?? 0);
    return new ReelflowError(
      isPeople ? 'sourceLost' : 'deltasTrimmed',
      'The log does not hold the next offset of the sink any more',
      {
        detail: `${topic}/${partition}: offset ${next}.`,
        hint: isPeople
          ? 'The topic was recreated or trimmed: replay the names, then run `reelflow reset`.'
          : published > next
            ? 'Move the sink state away to restore from CURRENT, or run `reelflow reset`.'
            : 'Run `reelflow reset`, then start the processors and the sink again.',
      },
    );
  }

  /**
   * Adds what was fetched:
   *
   * 1. the deltas, then the names, because a reset among the deltas invalidates the fetched names;
   * 2. the states, then the dead letters: a crash before the commit repeats the letters, the other order would lose them;
   * 3. the commit, then the positions in memory and in the group.
   */
  async #apply(fetched: readonly Fetched[]): Promise<void> {
    const deltas = fetched.filter(({ topic }) => topic !== this.#peopleTopic);
    const people = fetched.filter(({ topic }) => topic === this.#peopleTopic);
    const rejected: RejectedSource[] = [];
    let isReset = false;
    const startedMs = performance.now();
    this.#deltas.begin();
    this.#people.begin();
    await this.#store.transaction(async () => {
      for (const part of deltas) {
        for (const message of part.messages)
          isReset = (await this.#addDelta(part, message, rejected)) || isReset;
      }
      for (const part of isReset ? [] : people) {
        for (const message of part.messages) await this.#addPeople(part, message, rejected);
        await this.#people.flush(part.partition);
      }
      await this.#deltas.write();
      await this.#people.write();
      await this.#deadLetters.send(rejected);
    });
    crashPoint('after-delta-commit');
    this.#options.metrics?.committed(performance.now() - startedMs);
    const shardStates = this.#deltas.committed();
    const peopleStates = this.#people.committed();
    for (const { topic, partition, messages } of isReset ? deltas : fetched) {
      this.#fetched.set(`${topic}/${partition}`, (messages.at(-1)?.offset ?? -1) + 1);
    }
    this.#commitOffsets(shardStates, peopleStates, fetched);
  }

  /** @returns whether the message is a reset that starts the names again */
  async #addDelta(from: Fetched, message: LogMessage, rejected: RejectedSource[]): Promise<boolean> {
    try {
      const generation = await this.#deltas.add(from.partition, message);
      return generation !== undefined && (await this.#resetPeople(generation));
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      rejected.push({ topic: from.topic, partition: from.partition, message, rejection: thrown });
      this.#deltas.pass(from.partition, message);
      return false;
    }
  }

  async #addPeople(from: Fetched, message: LogMessage, rejected: RejectedSource[]): Promise<void> {
    try {
      await this.#people.add(from.partition, message);
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      rejected.push({ topic: from.topic, partition: from.partition, message, rejection: thrown });
      this.#people.reject(from.partition, message, thrown.records);
    }
  }

  /** The first reset mark of a generation also starts the names again: their topic may have been recreated too. */
  async #resetPeople(generation: number): Promise<boolean> {
    const isKnown = [...this.#store.shards.values()].some(({ chain }) => chain.generation >= generation);
    if (isKnown || this.#peopleGeneration >= generation) return false;
    this.#peopleGeneration = generation;
    await this.#forgetPeople();
    return true;
  }

  /** Commits to the group, for monitors only: the sink takes its positions from its store. */
  #commitOffsets(
    shards: readonly ShardState[],
    people: readonly PeopleState[],
    fetched: readonly Fetched[],
  ): void {
    const committedAt = Date.now();
    const commit = (topic: string, partition: number, next: number, recordsPerMessage?: number) => {
      const part = fetched.find((one) => one.topic === topic && one.partition === partition);
      const recordTs = part?.messages.findLast(({ offset }) => offset < next)?.timestampMs;
      const metadata = JSON.stringify({ recordTs, committedAt, recordsPerMessage });
      return { topic, partition, next, metadata };
    };
    this.#options.onCommit([
      ...shards.map(({ shard, next }) => commit(this.#options.names.deltas, shard, next)),
      ...people.map(({ partition, start = 0, next, ...counts }) =>
        commit(this.#peopleTopic, partition, next, recordsOf(counts) / Math.max(1, next - start)),
      ),
    ]);
  }
}

const reachedEnd = ({ partition, next }: Want, bounds: ReadonlyMap<number, LogBounds> | undefined) =>
  next >= (bounds?.get(partition)?.end ?? 0);
