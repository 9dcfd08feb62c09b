/**
 * Takes in deltas: the chain of each shard judges them, and their rows go into the store in the transaction that commits the
 * shard's state. A delta that does not continue its chain is refused and counted.
 */

import type { LogBounds } from '../kafka/bounds.ts';
import type { LogMessage } from '../kafka/log.ts';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { RejectedMessage } from '../topics/chunk.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import { DeltaChain } from '../topics/delta-chain.ts';
import { type DeltaPart, decodeDeltaHeader, decodeDeltaRows } from '../topics/delta-wire.ts';
import { LogProof } from '../topics/log-proof.ts';
import { positionText } from '../topics/position.ts';
import type { CubeStore } from './cube-store.ts';
import { Follower, isLastDelta } from './follower.ts';
import type { ShardState } from './shard-state.ts';
import type { SinkMetrics } from './sink-metrics.ts';

interface DeltaIntakeOptions {
  readonly store: CubeStore;
  readonly topic: string;
  /** Registry id of the delta schema. */
  readonly schemaId: number;
  readonly logger: Logger;
  readonly metrics?: SinkMetrics | undefined;
  /** Reads messages of one partition of the topic, from an offset on; none while there are none. */
  readonly read: (partition: number, next: number) => Promise<readonly LogMessage[]>;
  /** Start and end of all partitions of the topic. */
  readonly bounds: () => Promise<ReadonlyMap<number, LogBounds>>;
}

/** The rows of a part of a delta. */
type PartRows = readonly CubeRows[];

export class DeltaIntake {
  /** Since the start. */
  applied = 0;
  refused = 0;
  readonly #options: DeltaIntakeOptions;
  readonly #store: CubeStore;
  readonly #followers = new Map<number, Follower<PartRows>>();
  /** By shard: the last applied delta. */
  readonly #proof = new LogProof<number>();
  /** States that the open transaction has changed. */
  #states = new Map<number, ShardState>();

  /** Continues from the state of the store, after the topic has been proved. */
  constructor(options: DeltaIntakeOptions) {
    this.#options = options;
    this.#store = options.store;
    for (const state of this.#store.shards.values()) this.#followers.set(state.shard, new Follower(state));
    this.requireProof();
  }

  nextOf(partition: number): number {
    return this.#store.shards.get(partition)?.next ?? 0;
  }

  get isProved(): boolean {
    return this.#proof.isComplete;
  }

  /** Requires a proof that the topic is the one from which the state was made: each shard's last applied delta. */
  requireProof(): void {
    for (const state of this.#store.shards.values()) {
      this.#proof.require(state.shard, {
        offset: state.lastDelta,
        isSame: ({ value }) => {
          const header = this.#headerOf(value);
          return header !== undefined && isLastDelta(state, header);
        },
      });
    }
  }

  /**
   * Reads the last delta of each unproven shard again.
   * @returns new next offsets, of shards whose topic is another one that has a base or a reset mark
   * @throws ReelflowError sourceReplaced, topicMismatch; LogInterrupted, OutsideLog
   */
  async prove(): Promise<Map<number, number>> {
    const moved = new Map<number, number>();
    if (this.#proof.isComplete) return moved;
    const { topic, read, bounds } = this.#options;
    const all = await bounds();
    for (const [partition, { offset }] of [...this.#proof.pending]) {
      const next = this.nextOf(partition);
      const { start, end } = all.get(partition) ?? { start: 0, end: 0 };
      let otherwise: string | undefined;
      if (all.size > 0 && !all.has(partition)) throw this.#withoutPartition(partition, all.size);
      if (end < next) {
        otherwise = `${topic}/${partition} ends at offset ${end}, expected offset ${next}.`;
      } else if (offset < start) {
        // Trimmed: no message is left that could prove the topic.
        this.#proof.drop(partition);
      } else {
        const [message] = await read(partition, offset);
        if (message !== undefined && !this.#proof.accept(partition, message)) {
          otherwise = `${topic}/${partition} has another delta at offset ${offset} than the one that was applied.`;
        }
      }
      if (otherwise !== undefined) moved.set(partition, await this.#newStart(partition, otherwise));
    }
    return moved;
  }

  #withoutPartition(partition: number, partitions: number): ReelflowError {
    return new ReelflowError(
      'topicMismatch',
      'The topic of deltas has fewer partitions than the state of the sink',
      {
        detail: `${this.#options.topic} has ${counted(partitions, 'partition')}, and the state holds shard ${partition}.`,
        hint: 'If the topics were recreated: move the folders of --gold and --state away, and start the sink again. It builds both from the topics; a reset changes only shards that exist.',
      },
    );
  }

  /** The offset of a message that needs nothing before it. @throws ReelflowError sourceReplaced, if there is none */
  async #newStart(partition: number, detail: string): Promise<number> {
    const start = await this.findStart(partition);
    if (start === undefined) {
      throw new ReelflowError(
        'sourceReplaced',
        'The topic of deltas was replaced after the state was built from it',
        {
          detail: `${detail} It was recreated, or has lost its tail.`,
          hint: "End all members, then run `reelflow reset` with the sink's --gold.",
        },
      );
    }
    this.#proof.drop(partition);
    return start;
  }

  /** The offset of the first base or reset mark that the chain of a shard would accept. */
  async findStart(partition: number): Promise<number | undefined> {
    const { start, end } = (await this.#options.bounds()).get(partition) ?? { start: 0, end: 0 };
    const { chain } = this.#followerOf(partition);
    for (let next = start; next < end; ) {
      for (const { offset, value } of await this.#options.read(partition, next)) {
        next = offset + 1;
        const header = this.#headerOf(value);
        if (header === undefined || header.kind === 'delta' || header.part !== 1) continue;
        const verdict = new DeltaChain(chain).accept(header);
        if (verdict === 'apply' || verdict === 'collect') return offset;
      }
    }
    return undefined;
  }

  /** Begins a transaction. */
  begin(): void {
    this.#states = new Map();
  }

  /**
   * Adds a message to the open transaction.
   * @returns the generation of a reset mark that was applied
   * @throws RejectedMessage, with nothing of it added
   */
  async add(shard: number, message: LogMessage): Promise<number | undefined> {
    if (message.isMarker) {
      this.pass(shard, message);
      return undefined;
    }
    const { header, at } = decodeDeltaHeader(message.value, this.#options.schemaId);
    if (header.shard !== shard) {
      throw new RejectedMessage('wrong_partition', `a delta of shard ${header.shard} in partition ${shard}`);
    }
    // All rows are decoded before the chain sees the header: a delta that cannot be added must not count.
    const rows = decodeDeltaRows(message.value as Buffer, at, this.#store.dictionary);
    const { verdict, parts } = this.#followerOf(shard).follow(header, message.offset, rows);
    this.#options.metrics?.delta(verdict);
    if (verdict === 'refuse') this.#refuse(shard, message, header);
    if (verdict === 'apply') {
      await this.#apply(shard, header, parts);
      this.applied += 1;
    }
    this.#stage(shard);
    return verdict === 'apply' && header.kind === 'reset' ? header.generation : undefined;
  }

  /** Moves past a message that is not a delta. */
  pass(shard: number, { offset }: LogMessage): void {
    this.#followerOf(shard).pass(offset);
    this.#stage(shard);
  }

  /** Writes the states that have changed. */
  async write(): Promise<void> {
    for (const state of this.#states.values()) await this.#store.putShard(state);
  }

  /** Call it after the commit. @returns the states that have changed */
  committed(): ShardState[] {
    for (const state of this.#states.values()) this.#store.shards.set(state.shard, state);
    return [...this.#states.values()];
  }

  #stage(shard: number): void {
    const { state } = this.#followerOf(shard);
    if (state !== undefined && state !== this.#store.shards.get(shard)) this.#states.set(shard, state);
  }

  #followerOf(shard: number): Follower<PartRows> {
    const follower = this.#followers.get(shard) ?? new Follower<PartRows>();
    this.#followers.set(shard, follower);
    return follower;
  }

  #headerOf(value: Buffer | null): DeltaPart | undefined {
    try {
      return decodeDeltaHeader(value, this.#options.schemaId).header;
    } catch (thrown) {
      if (thrown instanceof RejectedMessage) return undefined;
      throw thrown;
    }
  }

  /** A base replaces all cubes of its shard but those that it keeps. A cube that it neither brings nor keeps is removed. */
  async #apply(shard: number, { kind, keeps }: DeltaPart, parts: readonly PartRows[]): Promise<void> {
    const store = this.#store;
    if (kind !== 'delta') await store.clearShard(shard, keeps);
    if (kind === 'reset') return;
    for (const rows of parts.flat()) await store.addCubeRows(shard, rows);
  }

  #refuse(shard: number, message: LogMessage, header: DeltaPart): void {
    this.refused += 1;
    const { position, generation } = this.#followerOf(shard).chain;
    this.#options.logger.error(
      {
        shard,
        offset: message.offset,
        store: header.storeId,
        generation: [header.generation, generation],
        position: positionText(position),
        range: header.range.map(({ topic, from, to }) => `${topic} [${from}, ${to})`),
      },
      'delta refused: it does not continue the chain of its shard',
    );
  }
}
