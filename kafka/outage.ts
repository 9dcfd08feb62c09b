/**
 * Outages of the brokers or of another service: which activities of this process wait, since when and why. Logs one warning
 * when an outage starts and one when it ends, however many activities wait. The first seconds are silent, because a leader that
 * moves is not an outage.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { isPassing } from './failures.ts';

interface Outage {
  /** Since the first failed request. */
  readonly seconds: number;
  readonly reason: string;
}

/** The present outages as a sentence for health checks; empty without one. */
export function outageDetail(outages: {
  readonly broker?: Outage | undefined;
  readonly registry?: Outage | undefined;
}) {
  return Object.entries(outages)
    .flatMap(([service, outage]) =>
      outage === undefined ? [] : [`${service} outage for ${Math.round(outage.seconds)} s: ${outage.reason}`],
    )
    .join('; ');
}

/** An interruption shorter than this is not an outage. */
const silentMs = 3_000;
/** Maximum that the log names: each shard of a member may be an activity of its own. */
const activitiesMax = 3;

/** The outages of one service. */
export class OutageMonitor {
  readonly #logger: Logger;
  readonly #service: string;
  /** Activities that wait. */
  readonly #waiting = new Map<string, string>();
  #sinceMs: number | undefined;
  #isReported = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param service as the log names it, for example `Kafka broker` */
  constructor(logger: Logger, service: string) {
    this.#logger = logger;
    this.#service = service;
  }

  /** The present outage, once it is long enough to be one. */
  get current(): Outage | undefined {
    return this.#isReported ? { seconds: this.#seconds, reason: this.#reason } : undefined;
  }

  /** Length of the present outage in seconds; 0 without one. */
  get seconds(): number {
    return this.current?.seconds ?? 0;
  }

  /** Records that a request of an activity failed and will be repeated. */
  waits(activity: string, reason: string): void {
    this.#waiting.set(activity, reason);
    if (this.#sinceMs !== undefined) return;
    this.#sinceMs = performance.now();
    this.#timer = setTimeout(() => {
      this.#isReported = true;
      this.#logger.warn(
        { activities: this.#activities, reason: this.#reason },
        `${this.#service} outage: waiting until it ends`,
      );
    }, silentMs);
    this.#timer.unref();
  }

  /**
   * Records that an activity does not wait any more. The outage ends with the last one.
   * @param isServed false if the activity has given up: the outage may continue, unobserved
   */
  resumes(activity: string, isServed = true): void {
    if (!this.#waiting.delete(activity) || this.#waiting.size > 0) return;
    clearTimeout(this.#timer);
    if (this.#isReported && isServed) {
      this.#logger.warn({ seconds: Math.round(this.#seconds) }, `${this.#service} outage is over`);
    }
    this.#isReported = false;
    this.#sinceMs = undefined;
  }

  get #activities(): readonly string[] {
    const all = [...this.#waiting.keys()];
    return all.length > activitiesMax
      ? [...all.slice(0, activitiesMax), `and ${all.length - activitiesMax} more`]
      : all;
  }

  get #seconds(): number {
    return this.#sinceMs === undefined ? 0 : (performance.now() - this.#sinceMs) / 1000;
  }

  get #reason(): string {
    return [...this.#waiting.values()].at(-1) ?? '';
  }
}

const retryMs = { first: 100, most: 2_000 };

/**
 * Repeats `work` until the broker serves it. Throws everything but a passing failure of the broker.
 * @param activity names what waits; unique among those that wait at the same time
 * @param signal once it is aborted, the next failure is thrown
 */
export async function untilServed<T>(
  outages: Pick<OutageMonitor, 'waits' | 'resumes'>,
  activity: string,
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  let isServed = true;
  try {
    for (let waitMs = retryMs.first; ; waitMs = Math.min(waitMs * 2, retryMs.most)) {
      try {
        return await work();
      } catch (thrown) {
        if (!isPassing(thrown)) throw thrown;
        outages.waits(activity, messageOf(thrown));
        isServed = await slept(waitMs, signal);
        if (!isServed) throw thrown;
      }
    }
  } finally {
    outages.resumes(activity, isServed);
  }
}

/** @returns false if the signal has cut the sleep short */
const slept = (ms: number, signal?: AbortSignal): Promise<boolean> =>
  sleep(ms, true, signal === undefined ? {} : { signal }).catch(() => false);

/**
 * The result of `work`, unless `signal` is aborted during an outage. No answer comes then, but kafkajs repeats a request for ten
 * seconds before it fails. The work goes on unobserved.
 * @throws KafkaJSConnectionError when it is given up
 */
export async function unlessEnded<T>(
  outages: Pick<OutageMonitor, 'current'>,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const giveUp = () => {
    const { current } = outages;
    if (current !== undefined) reject(new kafkajs.KafkaJSConnectionError(current.reason));
  };
  signal.addEventListener('abort', giveUp);
  try {
    if (signal.aborted) giveUp();
    work().then(resolve, reject);
    return await promise;
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}
