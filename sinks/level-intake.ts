/**
 * Reads a source topic beside the cubes, each partition up to the offset that the shard's cubes have reached and never further:
 * what a snapshot takes from it is of exactly the offsets in the manifest. Processors have accepted every message before
 * that offset, or rejected it by the same rules. It reads title.ratings for the history, before a publication only, and
 * title.basics for the names of titles, all the time.
 */
import { goneAfterMs, type LogBounds, logBounds, UnknownTopic } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { type LogMessage, LogReader, OutsideLog, type Want } from '../kafka/log.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type Owner, RejectedMessage } from '../topics/chunk.ts';
import { expectedByHash, LogProof, proofHashOf } from '../topics/log-proof.ts';
import { Ownership } from '../topics/ownership.ts';
import { type Gap, gapsBeyond, nextIn, withGap } from '../topics/position.ts';
import type { CubeStore } from './cube-store.ts';
import type { ShardState } from './shard-state.ts';

/** Position in one partition. */
export interface LevelState {
  readonly shard: number;
  /** Of the shard: the rows of an older generation are read again. */
  readonly generation: number;
  readonly next: number;
  /** SHA-256 of the message before `next`: reading it again proves that the topic is the same one. */
  readonly lastHash: string;
  /** Offsets that the log had lost before they were read, or whose batch cannot be decoded. */
  readonly gaps: readonly Gap[];
  /** A base that has begun. A refused message of a base leaves what it should have replaced, so it ends the base. */
  readonly openBase?: unknown;
}

/** What the messages of a topic become in the store. */
export interface LevelDataset<State extends LevelState> {
  /** For messages: `ratings`, `titles`. */
  readonly what: string;
  /** By partition. Changed only after a commit. */
  readonly states: Map<number, State>;
  newState(shard: ShardState): State;
  /** Whether something else than its generation makes a state useless. */
  isOutdated(state: State, shard: ShardState): boolean;
  /** Deletes the rows of a partition. */
  clear(shard: ShardState): Promise<void>;
  /** Commits the state with the rows that led to it. */
  put(state: State): Promise<void>;
  /** Whether `prune` may delete something. It deletes rows that can never matter again, once all is level. */
  readonly isPrunable?: boolean;
  prune?(): Promise<void>;
  /** Begins the rows of one transaction. */
  stage(): Promise<LevelStage<State>>;
}

export interface LevelStage<State> {
  /** Stages a message. @returns the state after it @throws RejectedMessage, with nothing of it staged */
  add(value: Buffer, owner: Owner, state: State, offset: number): Promise<State>;
  /** Writes what is staged, which is all of one partition. */
  write(partition: number): Promise<void>;
  /** Writes the rest, of all partitions. */
  end(): Promise<void>;
}

interface LevelIntakeOptions<State extends LevelState> {
  readonly broker: Broker;
  readonly store: CubeStore;
  readonly topic: string;
  readonly dataset: LevelDataset<State>;
  /** Passed after each commit. */
  readonly crashPoint: string;
  readonly signal: AbortSignal;
}

const fetchWaitMs = 100;
/** Maximum bytes of the messages of one transaction. */
const batchBytesMax = 16 * 1024 * 1024;

export class LevelIntake<State extends LevelState> {
  readonly #options: LevelIntakeOptions<State>;
  readonly #store: CubeStore;
  readonly #reader: LogReader;
  readonly #proof = new LogProof<number>();
  /** Partitions whose log was proved to be the one that the state was made from. */
  readonly #proved = new Set<number>();
  /** Partitions that have passed offsets which their log no longer holds. */
  readonly #passed = new Set<number>();
  /** Since when the brokers have not known the topic. */
  #missingSinceMs: number | undefined;
  /** By partition count. */
  readonly #ownership = new Map<number, Ownership>();

  constructor(options: LevelIntakeOptions<State>) {
    this.#options = options;
    this.#store = options.store;
    this.#reader = new LogReader(options.broker, 'all');
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }

  /** Whether it is level with the cubes. */
  get isLevel(): boolean {
    return this.#behind().length === 0 && this.#outdated().length === 0;
  }

  /**
   * Reads up to the position of every shard. Returns early on the signal.
   * @throws ReelflowError sourceLost, sourceReplaced; passing failures of the broker, after which it can be called again
   */
  async level(): Promise<void> {
    const { signal, dataset } = this.#options;
    await this.#restartOutdated();
    await this.#orForgetProofs(() => this.#checkLog(this.#behind()));
    while (!signal.aborted && (await this.advance()));
    if (!signal.aborted) this.#warnOfLosses();
    if (dataset.isPrunable === true) await this.#store.transaction(async () => dataset.prune?.());
  }

  /**
   * Reads once, if it is behind. @returns whether it may still be behind
   * @throws as `level`
   */
  async advance(): Promise<boolean> {
    await this.#restartOutdated();
    const behind = this.#behind();
    if (behind.length === 0) return false;
    await this.#orForgetProofs(async () => {
      await this.#checkLog(behind.filter(({ shard }) => !this.#proved.has(shard)));
      await this.#stepOrPass(behind);
    });
    return true;
  }

  /** The cubes begin at a base, too: the messages before it are no loss. */
  #warnOfLosses(): void {
    const { broker, topic, dataset } = this.#options;
    for (const partition of this.#passed) {
      const ofCubes = this.#store.shards.get(partition)?.chain.gaps[topic];
      const gaps = gapsBeyond(dataset.states.get(partition)?.gaps ?? [], ofCubes);
      if (gaps.length > 0) {
        broker.logger.warn({ topic, partition, gaps }, 'the log lost messages that gold needs');
      }
    }
    this.#passed.clear();
  }

  /** After an interruption the topic may be another one under the same name. */
  async #orForgetProofs(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      this.#proved.clear();
      this.#proof.clear();
      throw thrown;
    }
  }

  /** Shards whose cubes are past what was read. */
  #behind(): ShardState[] {
    return [...this.#store.shards.values()].filter((shard) => this.#nextOf(shard) < this.#endOf(shard));
  }

  /**
   * Shards whose rows are read again: after a reset, and when the dataset says so. One that is read for the first time begins
   * without the rows that another partition count may have left.
   */
  #outdated(): ShardState[] {
    const { dataset } = this.#options;
    return [...this.#store.shards.values()].filter((shard) => {
      const state = dataset.states.get(shard.shard);
      if (state === undefined) return true;
      const isLater = shard.chain.generation !== state.generation || state.next > this.#endOf(shard);
      return isLater || dataset.isOutdated(state, shard);
    });
  }

  async #restartOutdated(): Promise<void> {
    const outdated = this.#outdated();
    if (outdated.length === 0) return;
    const { dataset, topic, broker } = this.#options;
    const again = outdated.map(({ shard }) => shard).filter((shard) => dataset.states.has(shard));
    const states = outdated.map((shard) => dataset.newState(shard));
    await this.#store.transaction(async () => {
      for (const shard of outdated) await dataset.clear(shard);
      for (const state of states) await dataset.put(state);
    });
    for (const state of states) {
      dataset.states.set(state.shard, state);
      this.#proved.delete(state.shard);
    }
    if (again.length > 0) broker.logger.info({ topic, shards: again }, 'reading the topic again');
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
  #nextOf(shard: ShardState): number {
    return this.#stateOf(shard).next;
  }

  #stateOf(shard: ShardState): State {
    const { dataset } = this.#options;
    return dataset.states.get(shard.shard) ?? dataset.newState(shard);
  }

  /** Requires a proof of each partition that has none, and passes what the log has lost. */
  async #checkLog(behind: readonly ShardState[]): Promise<void> {
    if (behind.length === 0) return;
    const { topic, dataset } = this.#options;
    const bounds = await this.#bounds();
    for (const shard of behind) {
      const state = this.#stateOf(shard);
      const { start, end } = bounds.get(shard.shard) ?? { start: 0, end: 0 };
      const needed = this.#endOf(shard);
      if (end < needed) {
        throw this.#replaced(`${topic}/${shard.shard} ends at offset ${end}, expected offset ${needed}.`);
      }
      const next = this.#nextOf(shard);
      if (start > next) {
        const gap: Gap = [next, Math.min(start, needed)];
        this.#passed.add(shard.shard);
        const passed = { ...state, next: gap[1], lastHash: '', gaps: withGap(state.gaps, gap) };
        await this.#store.transaction(() => dataset.put(passed));
        dataset.states.set(shard.shard, passed);
      } else if (!this.#proved.has(shard.shard) && state.next > start) {
        this.#proof.require(shard.shard, expectedByHash(state.next, state.lastHash || undefined));
      }
      this.#proved.add(shard.shard);
    }
  }

  /** @throws ReelflowError sourceLost, which is not waited out; passing failures of the broker */
  async #bounds(): Promise<ReadonlyMap<number, LogBounds>> {
    const { broker, topic, dataset } = this.#options;
    try {
      const bounds = (await logBounds(broker, [topic])).get(topic) ?? new Map();
      this.#missingSinceMs = undefined;
      return bounds;
    } catch (thrown) {
      const isMissing = thrown instanceof UnknownTopic;
      this.#missingSinceMs = isMissing ? (this.#missingSinceMs ?? performance.now()) : undefined;
      if (!isMissing || performance.now() - (this.#missingSinceMs ?? 0) < goneAfterMs) throw thrown;
      // Without its cause, which passes where a broker has just started.
      throw new ReelflowError('sourceLost', `The topic of ${dataset.what} does not exist any more`, {
        detail: `${topic}: the next snapshot needs it.`,
        hint: 'Replay the datasets, start a processor, then run `reelflow reset`.',
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
    const { topic, dataset, crashPoint: point } = this.#options;
    const wants = behind.map(
      (shard): Want => ({
        topic,
        partition: shard.shard,
        next: this.#proof.readFrom(shard.shard, this.#nextOf(shard)),
      }),
    );
    const fetched = await this.#reader.fetch(wants, { waitMs: fetchWaitMs, bytesMax: batchBytesMax });
    const staged = await dataset.stage();
    const states = new Map<number, State>();
    await this.#store.transaction(async () => {
      for (const { partition, messages } of fetched) {
        const shard = this.#store.shards.get(partition) as ShardState;
        const owner = { ownership: this.#ownershipOf(shard), partition };
        let state: State | undefined;
        let last: LogMessage | undefined;
        for (const message of messages) {
          if (message.offset >= this.#endOf(shard)) break;
          if (this.#proof.isPending(partition)) {
            this.#prove(partition, message);
            continue;
          }
          state = await this.#add(staged, owner, state ?? this.#stateOf(shard), message);
          last = message;
        }
        await staged.write(partition);
        if (state === undefined) continue;
        const put = { ...state, lastHash: last === undefined ? '' : proofHashOf(last) };
        states.set(partition, put);
        await dataset.put(put);
      }
      await staged.end();
    });
    for (const state of states.values()) dataset.states.set(state.shard, state);
    if (states.size > 0) crashPoint(point);
  }

  /** The state after a message. One that processors reject, too, changes nothing. */
  async #add(staged: LevelStage<State>, owner: Owner, state: State, message: LogMessage): Promise<State> {
    const { offset, value, isMarker, isUndecodable } = message;
    const after = { ...state, next: offset + 1 };
    if (isUndecodable)
      return { ...after, gaps: withGap(state.gaps, [offset, offset + 1]), openBase: undefined };
    if (isMarker) return after;
    try {
      return await staged.add(value as Buffer, owner, after, offset);
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
      `The topic of ${this.#options.dataset.what} was replaced after the state was built from it`,
      {
        detail,
        hint: 'It was recreated, or has lost its tail. If that was intended, run `reelflow reset` and start again.',
      },
    );
  }
}
