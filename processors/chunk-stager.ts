/** Decodes the messages of a shard's source topics into its open micro-batch, or rejects them. */
import type { LogMessage } from '../kafka/log.ts';
import type { Cube } from '../tables/cubes/cube.ts';
import { datasetsIn } from '../tables/cubes/cube-set.ts';
import type { DatasetName, TopicNames } from '../topics/catalog.ts';
import { ChunkDecoder, RejectedMessage } from '../topics/chunk.ts';
import type { Registry } from '../topics/registry.ts';
import type { MicroBatch, SourceMessage } from './micro-batch.ts';

export interface StagerOptions {
  readonly registry: Registry;
  readonly names: TopicNames;
  /** Registry ids of our own schemas. */
  readonly schemaIds: ReadonlyMap<DatasetName, number>;
}

export class ChunkStager {
  readonly #sources = new Map<string, { dataset: DatasetName; decoder: ChunkDecoder }>();
  #isWaiting = false;

  constructor(cubeSet: readonly Cube[], { registry, names, schemaIds }: StagerOptions) {
    for (const dataset of datasetsIn(cubeSet)) {
      const decoder = new ChunkDecoder(dataset, schemaIds.get(dataset) ?? -1, registry);
      this.#sources.set(names.source(dataset), { dataset, decoder });
    }
  }

  /** The topics of all datasets that some cube reads. */
  get topics(): string[] {
    return [...this.#sources.keys()];
  }

  /** Whether it waits for the Schema Registry. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  datasetOf(topic: string): DatasetName {
    return this.#source(topic).dataset;
  }

  async stage(batch: MicroBatch, topic: string, message: LogMessage): Promise<void> {
    const { dataset, decoder } = this.#source(topic);
    const { offset, timestampMs, value } = message;
    const staged: SourceMessage = { topic, dataset, offset, timestampMs, value };
    if (message.isMarker) {
      batch.pass(staged);
      return;
    }
    if (message.isUndecodable) {
      batch.reject(staged, new RejectedMessage('undecodable_batch', 'skipped by --skip-batch'));
      return;
    }
    try {
      const own = decoder.isOwn(value) ? (value as Buffer) : await this.#resolve(decoder, value as Buffer);
      batch.add(staged, decoder, own);
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      batch.reject(staged, thrown);
    }
  }

  async #resolve(decoder: ChunkDecoder, value: Buffer): Promise<Buffer> {
    this.#isWaiting = true;
    try {
      return await decoder.resolve(value);
    } finally {
      this.#isWaiting = false;
    }
  }

  #source(topic: string): { dataset: DatasetName; decoder: ChunkDecoder } {
    const source = this.#sources.get(topic);
    if (source === undefined) throw new RangeError(`no decoder for ${topic}`);
    return source;
  }
}
