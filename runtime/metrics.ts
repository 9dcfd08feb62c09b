/** Builds metrics of one registry. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** A subclass declares each metric as a field. */
export abstract class Metrics {
  readonly #registers: Registry[];

  constructor(registry: Registry) {
    this.#registers = [registry];
  }

  protected counter<L extends string>(name: string, help: string, ...labelNames: L[]): Counter<L> {
    return new Counter({ name, help, labelNames, registers: this.#registers });
  }

  /** Without labels it exports 0 until it is set. */
  protected gauge<L extends string>(name: string, help: string, ...labelNames: L[]): Gauge<L> {
    return new Gauge({ name, help, labelNames, registers: this.#registers });
  }

  /** @param collect sets the gauge before each scrape */
  protected collected<L extends string>(
    name: string,
    help: string,
    labelNames: L[],
    collect: (gauge: Gauge<L>) => void | Promise<void>,
  ): void {
    new Gauge<L>({
      name,
      help,
      labelNames,
      registers: this.#registers,
      collect() {
        return collect(this);
      },
    });
  }

  /** Durations in seconds: a micro-batch of a quiet topic takes milliseconds, a snapshot on a loaded machine a minute. */
  protected durations(name: string, help: string): Histogram {
    const buckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
    return new Histogram({ name, help, buckets, registers: this.#registers });
  }
}
