/**
 * The requests of one shard to the brokers. Each is repeated until a broker serves it or the shard closes, so an outage
 * delays a micro-batch and loses nothing. A request that is repeated may be stored twice; the chain of deltas skips the
 * second copy, and dead letters carry their source position.
 */
import type { Producer, ProducerRecord, RecordMetadata } from 'kafkajs';
import type { BoundsByTopic } from '../kafka/bounds.ts';
import { asBrokerError } from '../kafka/failures.ts';
import type { Fetched, FetchLimits, LogReader, Want } from '../kafka/log.ts';
import { type OutageMonitor, unlessEnded, untilServed } from '../kafka/outage.ts';
import type { Endpoints } from '../runtime/config.ts';

export interface RequestContext {
  readonly producer: Pick<Producer, 'send'>;
  readonly reader: Pick<LogReader, 'fetch'>;
  /** Current start and end of every partition of these topics. */
  readonly bounds: (topics: readonly string[]) => Promise<BoundsByTopic>;
  readonly endpoints: Pick<Endpoints, 'brokers' | 'security'>;
  readonly outages: Pick<OutageMonitor, 'waits' | 'resumes' | 'current'>;
  /** When it aborts, failed requests are not repeated any more. */
  readonly signal: AbortSignal;
}

/** The group has given the shard to another member, or the shard has closed before an answer came. */
class ShardLost extends Error {}

export class ShardRequests {
  readonly #context: RequestContext;
  readonly #shard: number;
  readonly #ending = new AbortController();
  readonly #waiting = new Set<string>();
  /** Rejects the requests that have no answer yet. */
  readonly #pending = new Set<(reason: Error) => void>();
  #isLost = false;

  constructor(shard: number, context: RequestContext) {
    this.#shard = shard;
    this.#context = context;
  }

  /** Whether a failed request is being repeated. */
  get isWaiting(): boolean {
    return this.#waiting.size > 0;
  }

  /** Whether another member owns the shard. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** From now on nothing is sent, and a failed request is not repeated. */
  lose(): void {
    this.#isLost = true;
    this.#ending.abort();
  }

  /** From now on a failed request is not repeated. */
  end(): void {
    this.#ending.abort();
  }

  /** Gives up the requests that have no answer yet: kafkajs waits half a minute for one. */
  abandon(): void {
    for (const reject of this.#pending) reject(new ShardLost(`shard ${this.#shard} has closed`));
  }

  /** @throws ShardLost; ReelflowError of the broker */
  async send(record: ProducerRecord): Promise<RecordMetadata[]> {
    if (this.#isLost) throw new ShardLost(`shard ${this.#shard} has another owner`);
    return this.#served('publishing', record.topic, () => this.#context.producer.send(record));
  }

  fetch(wants: readonly Want[], limits: FetchLimits): Promise<Fetched[]> {
    return this.#served('reading deltas', wants[0]?.topic, () => this.#context.reader.fetch(wants, limits));
  }

  bounds(topics: readonly string[]): Promise<BoundsByTopic> {
    return this.#served('reading offsets', undefined, () => this.#context.bounds(topics));
  }

  async #served<T>(what: string, topic: string | undefined, work: () => Promise<T>): Promise<T> {
    const { outages, endpoints, signal } = this.#context;
    const monitor = {
      waits: (activity: string, reason: string) => {
        this.#waiting.add(activity);
        outages.waits(activity, reason);
      },
      resumes: (activity: string, isServed: boolean) => {
        this.#waiting.delete(activity);
        outages.resumes(activity, isServed);
      },
    };
    const either = AbortSignal.any([this.#ending.signal, signal]);
    try {
      return await untilServed(
        monitor,
        `shard ${this.#shard}: ${what}`,
        () => unlessEnded(outages, either, () => this.#answered(work)),
        either,
      );
    } catch (thrown) {
      throw asBrokerError(thrown, endpoints, topic);
    }
  }

  #answered<T>(work: () => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#pending.add(reject);
    work()
      .then(resolve, reject)
      .finally(() => this.#pending.delete(reject));
    return promise;
  }
}
