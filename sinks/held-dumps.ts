/**
 * Which dump of each dataset the input of a snapshot is. The dump index says for each dataset where its topic ended after its
 * last dump, in every partition, also in those without changes. Input that ends exactly there holds that dump and nothing else.
 */
import { availableLogBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { scanAlone } from '../kafka/scan.ts';
import { type DatasetName, datasetNames, type TopicNames } from '../topics/catalog.ts';
import { DamagedIndex, type Directory, decodeDirectory, NewerIndex } from '../topics/dump-index.ts';
import type { Manifest } from './gold/manifest.ts';

type Dumps = NonNullable<Manifest['dumps']>;

type Head = Omit<Directory, 'blocks'>;

/** Pure. Datasets that no cube reads, or that were never refreshed, have no entry. */
export function dumpsIn(
  input: Manifest['input'],
  directories: ReadonlyMap<DatasetName, Head>,
  names: TopicNames,
): Dumps {
  const dumps: Dumps = {};
  for (const [dataset, { asOfMs, runId, marks }] of directories) {
    const partitions = input[names.source(dataset)];
    if (partitions === undefined) continue;
    const complete = marks.every(({ offset }, partition) => (partitions[partition]?.[1] ?? 0) === offset);
    dumps[dataset] = { asOf: new Date(asOfMs).toISOString(), run: runId, complete };
  }
  return dumps;
}

/**
 * Whether input whose tables equal CURRENT's turned out to be a whole dump, of which CURRENT does not say so: a run writes its
 * index last.
 */
export function completes(dumps: Dumps, current: Pick<Manifest, 'dumps'>): boolean {
  return Object.entries(dumps).some(
    ([dataset, { complete }]) => complete && current.dumps?.[dataset]?.complete !== true,
  );
}

/** The directories of the dump index. Repeated calls of `read` read each message once. */
export class DumpDirectories {
  readonly #broker: Broker;
  readonly #topic: string;
  #next = 0;
  readonly #directories = new Map<DatasetName, Head>();

  constructor(broker: Broker, names: TopicNames) {
    this.#broker = broker;
    this.#topic = names.dumpIndex;
  }

  /** A missing topic has none. @throws what the broker gives */
  async read(): Promise<ReadonlyMap<DatasetName, Head>> {
    const { start, end } = (await availableLogBounds(this.#broker, [this.#topic]))
      .get(this.#topic)
      ?.get(0) ?? { start: 0, end: 0 };
    if (end < this.#next) {
      // The topic was recreated.
      this.#next = 0;
      this.#directories.clear();
    }
    const range = { partition: 0, start: Math.max(start, this.#next), end };
    for await (const { messages } of scanAlone(this.#broker, this.#topic, [range], { isCompacted: true })) {
      for (const { key, value } of messages) this.#take(String(key), value);
    }
    this.#next = end;
    return this.#directories;
  }

  #take(key: string, value: Buffer | null): void {
    const dataset = datasetNames.find((name) => name === key);
    if (dataset === undefined) return;
    this.#directories.delete(dataset);
    if (value === null) return;
    try {
      const { blocks: _, ...head } = decodeDirectory(value);
      this.#directories.set(dataset, head);
    } catch (thrown) {
      if (!(thrown instanceof DamagedIndex) && !(thrown instanceof NewerIndex)) throw thrown;
    }
  }
}
