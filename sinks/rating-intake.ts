/**
 * Reads title.ratings for the history of ratings. It runs before a publication only, and reads each partition up to the offset
 * that the shard's cubes have reached: so the history of a snapshot is of exactly the offsets in its manifest. Processors
 * have accepted every message before that offset, or rejected it by the same rules.
 */
import { type LogBounds, logBounds, UnknownTopic } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { type LogMessage, LogReader, OutsideLog, type Want } from '../kafka/log.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { baseMarkOf } from '../topics/base.ts';
import { type ChunkDecoder, hashOf, RejectedMessage } from '../topics/chunk.ts';
import { expectedByHash, LogProof } from '../topics/log-proof.ts';
import { Ownership } from '../topics/ownership.ts';
import { type Gap, nextIn, withGap } from '../topics/position.ts';
import type { CubeStore } from './cube-store.ts';
import { afterMark, type RatingState } from './rating-history.ts';
import type { ShardState } from './shard-state.ts';
import { StagedRatings } from './staged-ratings.ts';

export interface RatingIntakeOptions {
  readonly broker: Broker;
  readonly store: CubeStore;
  readonly decoder: ChunkDecoder;
  /** title.ratings. */
  readonly topic: string;
  /** Length of the history, in days before the newest dump. */
  readonly historyDays: number;
  readonly signal: AbortSignal;
}

const fetchWaitMs = 100;
/** Maximum bytes of the messages of one transaction. */
const batchBytesMax = 16 * 1024 * 1024;

export class RatingIntake {
  readonly #options: RatingIntakeOptions;
  readonly #store: CubeStore;
  readonly #reader: LogReader;
  readonly #proof = new LogProof<number>();
  /** Partitions whose log was proved to be the one that the state was made from. */
  readonly #proved = new Set<number>();
  /** By partition count. */
  readonly #ownership = new Map<number, Ownership>();

  constructor(options: RatingIntakeOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#reader = new LogReader(options.broker, 'all');
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }

  /** Whether the history is level with the cubes. */
  get isLevel(): boolean {
    return this.#behind().length === 0 && this.#outdated().length === 0;
  }

  /**
   * Reads the history up to the position of every shard. Returns early on the signal.
   * @throws ReelflowError sourceLost, sourceReplaced; passing failures of the broker, after which it can be called again
   */
  async level(): Promise<void> {
    const { signal } = this.#options;
    const { ratings } = this.#store;
    await this.#restartOutdated();
    let behind = this.#behind();
    if (behind.length === 0) return;
    try {
      await this.#checkLog(behind);
      while (behind.length > 0 && !signal.aborted) {
        await this.#stepOrPass(behind);
        behind = this.#behind();
      }
      if (ratings.isPrunable) await this.#store.transaction(() => ratings.prune());
    } catch (thrown) {
      // After an interruption the topic may be another one under the same name.
      this.#proved.clear();
      this.#proof.clear();
      throw thrown;
    }
  }

  /** Shards whose cubes are past the history. */
  #behind(): ShardState[] {
    return [...this.#store.shards.values()].filter((shard) => this.#nextOf(shard) < this.#endOf(shard));
  }

  /** States that a reset or another `historyDays` has made useless. */
  #outdated(): RatingState[] {
    return [...this.#store.ratings.states.values()].filter(({ shard, generation, next, historyDays }) => {
      const of = this.#store.shards.get(shard);
      return (
        of === undefined ||
        of.chain.generation !== generation ||
        next > this.#endOf(of) ||
        historyDays !== this.#options.historyDays
      );
    });
  }

  async #restartOutdated(): Promise<void> {
    const outdated = this.#outdated();
    if (outdated.length === 0) return;
    const { ratings } = this.#store;
    const states = outdated.map(({ shard }) => this.#stateOf(shard, true));
    await this.#store.transaction(async () => {
      for (const state of states) {
        await ratings.clear(state.shard);
        await ratings.put(state);
      }
    });
    for (const state of states) {
      ratings.states.set(state.shard, state);
      this.#proved.delete(state.shard);
    }
    this.#options.broker.logger.info(
      { shards: states.map(({ shard }) => shard) },
      'reading title.ratings again',
    );
  }

  #ownershipOf({ shards }: ShardState): Ownership {
    const known = this.#ownership.get(shards) ?? new Ownership('tt', shards);
    this.#ownership.set(shards, known);
    return known;
  }

  #endOf({ chain }: ShardState): number {
    return nextIn(chain.position, this.#options.topic);
  }

  /** Next offset to read. Offsets that the log has lost are passed by `#checkLog`. */
  #nextOf({ shard }: ShardState): number {
    return this.#stateOf(shard).next;
  }

  #stateOf(shard: number, isNew = false): RatingState {
    const known = isNew ? undefined : this.#store.ratings.states.get(shard);
    const generation = this.#store.shards.get(shard)?.chain.generation ?? 0;
    const { historyDays } = this.#options;
    return known ?? { shard, generation, next: 0, lastHash: '', newestDay: -1, historyDays, gaps: [] };
  }

  /** Requires a proof of each partition that has none, and passes what the log has lost. */
  async #checkLog(behind: readonly ShardState[]): Promise<void> {
    const { topic, broker } = this.#options;
    const bounds = await this.#bounds();
    for (const shard of behind) {
      const state = this.#stateOf(shard.shard);
      const { start, end } = bounds.get(shard.shard) ?? { start: 0, end: 0 };
      const needed = this.#endOf(shard);
      if (end < needed) {
        throw this.#replaced(`${topic}/${shard.shard} ends at offset ${end}, expected offset ${needed}.`);
      }
      const next = this.#nextOf(shard);
      if (start > next) {
        const gap: Gap = [next, Math.min(start, needed)];
        broker.logger.warn({ topic, partition: shard.shard, gap }, 'the log lost a part of the history');
        const passed = { ...state, next: gap[1], lastHash: '', gaps: withGap(state.gaps, gap) };
        await this.#store.transaction(() => this.#store.ratings.put(passed));
        this.#store.ratings.states.set(shard.shard, passed);
      } else if (!this.#proved.has(shard.shard) && state.next > start) {
        this.#proof.require(shard.shard, expectedByHash(state.next, state.lastHash || undefined));
      }
      this.#proved.add(shard.shard);
    }
  }

  async #bounds(): Promise<ReadonlyMap<number, LogBounds>> {
    const { broker, topic } = this.#options;
    try {
      return (await logBounds(broker, [topic])).get(topic) ?? new Map();
    } catch (thrown) {
      if (!(thrown instanceof UnknownTopic)) throw thrown;
      throw new ReelflowError('sourceLost', 'The topic of ratings does not exist any more', {
        detail: `${topic}: the history of the next snapshot needs it.`,
        hint: 'Replay the datasets, start a processor, then run `reelflow reset`.',
        cause: thrown,
      });
    }
  }

  /** As `#step`. What the log loses meanwhile is passed, as at the start. */
  async #stepOrPass(behind: readonly ShardState[]): Promise<void> {
    try {
      await this.#step(behind);
    } catch (thrown) {
      if (!(thrown instanceof OutsideLog)) throw thrown;
      this.#proved.clear();
      this.#proof.clear();
      await this.#checkLog(behind);
    }
  }

  /** One fetch and one transaction. */
  async #step(behind: readonly ShardState[]): Promise<void> {
    const { topic, decoder, historyDays } = this.#options;
    const wants = behind.map(
      (shard): Want => ({
        topic,
        partition: shard.shard,
        next: this.#proof.readFrom(shard.shard, this.#nextOf(shard)),
      }),
    );
    const fetched = await this.#reader.fetch(wants, { waitMs: fetchWaitMs, bytesMax: batchBytesMax });
    const { ratings } = this.#store;
    const staged = new StagedRatings(await ratings.titles());
    const states = new Map<number, RatingState>();
    await this.#store.transaction(async () => {
      for (const { partition, messages } of fetched) {
        const shard = this.#store.shards.get(partition) as ShardState;
        const owner = { ownership: this.#ownershipOf(shard), partition };
        let state: RatingState | undefined;
        let last: LogMessage | undefined;
        for (const message of messages) {
          if (message.offset >= this.#endOf(shard)) break;
          if (this.#proof.isPending(partition)) {
            this.#prove(partition, message);
            continue;
          }
          state = await this.#add(state ?? this.#stateOf(partition), message, (value, newestDay) =>
            this.#stage(staged, value, decoder, owner, newestDay, historyDays),
          );
          last = message;
        }
        await ratings.write(partition, staged.take());
        if (state === undefined) continue;
        const put = { ...state, lastHash: hashOf(last?.value ?? null) };
        states.set(partition, put);
        await ratings.put(put);
      }
    });
    for (const state of states.values()) ratings.states.set(state.shard, state);
    if (states.size > 0) crashPoint('after-history-commit');
  }

  async #stage(
    staged: StagedRatings,
    value: Buffer,
    decoder: ChunkDecoder,
    owner: { ownership: Ownership; partition: number },
    newestDay: number,
    historyDays: number,
  ): Promise<number> {
    const own = decoder.isOwn(value) ? value : await decoder.resolve(value);
    return staged.add(own, decoder, owner, newestDay, historyDays);
  }

  /** The state after a message. One that processors reject, too, changes nothing. */
  async #add(
    state: RatingState,
    message: LogMessage,
    stage: (value: Buffer, newestDay: number) => Promise<number>,
  ): Promise<RatingState> {
    const { offset, value, isMarker, isUndecodable } = message;
    const after = { ...state, next: offset + 1 };
    if (isUndecodable) return { ...after, gaps: withGap(state.gaps, [offset, offset + 1]) };
    if (isMarker) return after;
    try {
      const staged = { ...after, newestDay: await stage(value as Buffer, state.newestDay) };
      const mark = baseMarkOf(value);
      return mark === undefined ? staged : afterMark(staged, mark, offset);
    } catch (thrown) {
      if (thrown instanceof RejectedMessage) return { ...after, openBase: undefined };
      throw thrown;
    }
  }

  #prove(partition: number, message: LogMessage): void {
    const expected = this.#proof.pending.get(partition)?.offset;
    if (this.#proof.accept(partition, message)) return;
    throw this.#replaced(
      `${this.#options.topic}/${partition}: the message at offset ${expected} is not the one that was read.`,
    );
  }

  #replaced(detail: string): ReelflowError {
    return new ReelflowError(
      'sourceReplaced',
      'The topic of ratings is not the one from which the history was made',
      {
        detail,
        hint: 'It was recreated, or has lost its tail. If that was intended, run `reelflow reset` and start again.',
      },
    );
  }
}
