/**
 * Reads the source topics of one shard into its open micro-batch: what to fetch, which message has to prove its log, and where a
 * base begins.
 */
import type { BoundsByTopic } from '../kafka/bounds.ts';
import type { Fetched, Want } from '../kafka/log.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { baseMarkOf } from '../topics/base.ts';
import { nextIn, type Position } from '../topics/position.ts';
import { Backlog } from './backlog.ts';
import type { ChunkStager } from './chunk-stager.ts';
import type { Filling } from './filling.ts';
import type { LastMessage } from './micro-batch.ts';
import type { ShardRequests } from './shard-requests.ts';
import { SourceBases } from './source-bases.ts';
import { requireInLog, SourceProof } from './source-proof.ts';

interface SourceIntakeOptions {
  readonly shard: number;
  readonly stager: ChunkStager;
  readonly requests: ShardRequests;
  readonly filling: Filling;
  /** The last message of a topic that is staged or applied. */
  readonly lastOf: (topic: string) => LastMessage | undefined;
  /** Up to where a silent catch-up reads; undefined without one. */
  readonly silentTo: () => Position | undefined;
  readonly isRunning: () => boolean;
  /** Called after each staged message. */
  readonly onStaged: () => void;
}

export class SourceIntake {
  readonly #options: SourceIntakeOptions;
  readonly #proof: SourceProof;
  /** Everything staged lies before its next offsets. */
  readonly #backlog = new Backlog();
  #isBehindBase = false;

  constructor(options: SourceIntakeOptions) {
    this.#options = options;
    this.#proof = new SourceProof(options.shard, options.lastOf);
  }

  /**
   * Starts each topic at the store's next offset, or at the start of a log that has lost this offset.
   * @throws ReelflowError sourceLost, unless `acceptLoss` or a base replaces what is lost; sourceReplaced
   */
  async start(
    position: Position,
    bounds: BoundsByTopic,
    bases: SourceBases,
    acceptLoss: boolean,
    log: Logger,
  ): Promise<void> {
    const { shard, stager, filling } = this.#options;
    for (const topic of stager.topics) {
      const next = nextIn(position, topic);
      const inLog = bounds.get(topic)?.get(shard) ?? { start: 0, end: 0 };
      const base = await bases.before(topic, next);
      requireInLog(topic, shard, next, inLog, acceptLoss || base !== undefined);
      const { start } = inLog;
      this.#backlog.startAt(topic, Math.max(next, start));
      if (next > start) this.#proof.demand(topic, next);
      if (start > next) {
        if (base !== undefined) log.info({ topic, ...base }, 'the topic begins at a base');
        else log.warn({ topic, next, start }, 'accepting the loss of messages that were never applied');
        // At once: no message may ever arrive to carry the position past the gap.
        filling.batch.lose(topic, stager.datasetOf(topic), [next, start]);
      }
    }
  }

  /** Partitions to fetch and from where; none while the open micro-batch is full. */
  wants(): Want[] {
    const { shard, filling, silentTo } = this.#options;
    if (filling.isFull || this.#isBehindBase) return [];
    const end = silentTo();
    return this.#backlog.due(end).flatMap((topic): Want[] => {
      const next = this.#backlog.nextOf(topic);
      if (end !== undefined && next >= nextIn(end, topic)) return [];
      // Reads the last applied message again as a proof.
      return [{ topic, partition: shard, next: this.#proof.readFrom(topic, next) }];
    });
  }

  /**
   * Stages fetched messages of this shard.
   * @throws ReelflowError sourceReplaced, sourceLost
   */
  async receive(fetched: Fetched): Promise<void> {
    const { shard, stager, filling, silentTo, isRunning, onStaged } = this.#options;
    const { topic } = fetched;
    this.#backlog.sees(topic, fetched);
    for (const message of fetched.messages) {
      if (!isRunning()) return;
      const next = this.#backlog.nextOf(topic);
      if (this.#proof.needs(topic)) {
        this.#proof.check(topic, message);
        continue;
      }
      if (message.offset < next) continue;
      if (message.offset > next) {
        throw new ReelflowError('sourceLost', 'A topic has a gap', {
          detail: `${topic}/${shard}: expected offset ${next}, got ${message.offset}.`,
          hint: 'The topic must keep every message: check its cleanup.policy and retention.',
        });
      }
      const end = silentTo();
      if (end !== undefined && next >= nextIn(end, topic)) return;
      if (filling.batch.sources.has(topic) && baseMarkOf(message.value)?.mark === 'begin') {
        // The counts since the begin are those since a commit.
        filling.stopBeforeBase();
        onStaged();
        if (filling.isBeforeBase) return;
      }
      await stager.stage(filling.batch, topic, message);
      this.#backlog.moveTo(topic, message.offset + 1);
      onStaged();
      // The rest is fetched again once the next micro-batch has room.
      if (filling.isFull) return;
    }
  }

  /** Records that the next micro-batch begins. */
  begin(): void {
    this.#backlog.begin();
  }

  /** First offset of a topic that is not read. */
  nextOf(topic: string): number {
    return this.#backlog.nextOf(topic);
  }

  /** Topics that were fetched, with their end offsets. */
  get ends(): [topic: string, end: number][] {
    return this.#backlog.ends;
  }

  hasStaged(target: Position): boolean {
    return Object.keys(target).every((topic) => this.#backlog.nextOf(topic) >= nextIn(target, topic));
  }

  /** Whether a topic has messages that are not read, by the last fetch. */
  isBehind(topic: string): boolean {
    return this.#backlog.isBehind(topic);
  }

  /** Whether a topic that no longer holds the next offset starts at a base now. Then nothing more is fetched. */
  async isBehindBase(topic: string): Promise<boolean> {
    const { shard, requests } = this.#options;
    const bases = new SourceBases(shard, await requests.bounds([topic]), requests);
    this.#isBehindBase = (await bases.before(topic, this.#backlog.nextOf(topic))) !== undefined;
    return this.#isBehindBase;
  }

  /** Whether every log is proved to be the right one. */
  get isProved(): boolean {
    return this.#proof.isComplete;
  }

  /** Demands a new proof of every topic. */
  distrust(): void {
    for (const topic of this.#backlog.topics) this.#proof.demand(topic, this.#backlog.nextOf(topic));
  }
}
