/**
 * The producer id and epoch of a replay. The broker gives each run that asks under the same name the same id and a
 * higher epoch. From the first message of the new epoch in a partition on, it refuses messages of an older one: what a
 * killed run left in the network cannot arrive behind the messages of its successor. Sequence numbers let the broker drop
 * a batch that it already holds. No transaction is ever begun.
 */
import type { Broker } from 'kafkajs/src/cluster/index.js';

export interface ProducerStamp {
  readonly producerId: bigint;
  readonly epoch: number;
  /** Of the first record; the first batch of an epoch in a partition has 0. */
  readonly sequence: number;
}

/** A new epoch within this time of an unfinished transaction would wait for it. There are none. */
const transactionTimeout = 60_000;
/** Sequences are 32-bit and wrap at the largest one. */
const sequenceMax = 2 ** 31 - 1;

export class ProducerIdentity {
  readonly #producerId: bigint;
  readonly #epoch: number;
  /** Next sequence by topic and partition. */
  readonly #next = new Map<string, number>();

  private constructor(producerId: bigint, epoch: number) {
    this.#producerId = producerId;
    this.#epoch = epoch;
  }

  /**
   * Starts a new epoch.
   * @param name the transactional id, which needs the right WRITE on it where the cluster has ACLs
   * @throws kafkajs' error of the request
   */
  static async begin(coordinator: Broker, name: string): Promise<ProducerIdentity> {
    const { producerId, producerEpoch } = await coordinator.initProducerId({
      transactionalId: name,
      transactionTimeout,
    });
    return new ProducerIdentity(BigInt(producerId), producerEpoch);
  }

  /** The stamp of the next batch of a partition, which holds one record. */
  stamp(topic: string, partition: number): ProducerStamp {
    const key = `${topic}/${partition}`;
    const sequence = this.#next.get(key) ?? 0;
    this.#next.set(key, sequence === sequenceMax ? 0 : sequence + 1);
    return { producerId: this.#producerId, epoch: this.#epoch, sequence };
  }
}
