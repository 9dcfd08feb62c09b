/** A dataset that the dump lacks: every group that its topic holds is emptied. */

import type { DatasetName } from '../../topics/catalog.ts';
import { datasets } from '../../topics/catalog.ts';
import type { Directory } from '../../topics/dump-index.ts';
import type { Appender } from '../appender.ts';
import { Chunker } from '../chunker.ts';
import { layoutOf } from '../file-layout.ts';
import { packedRecordOf } from '../record-batch.ts';
import { BatchSender } from './batch-sender.ts';
import type { DumpFile, Written } from './devices.ts';
import { GroupEntries } from './group-entries.ts';
import type { DumpFindings } from './plan.ts';

interface EmptyDumpOptions {
  readonly dataset: DatasetName;
  readonly shards: number;
  readonly schemaId: number;
  readonly runId: string;
  readonly asOf: Date;
  readonly appender: Appender;
  readonly topic: string;
}

export class EmptyDump implements DumpFile {
  readonly #options: EmptyDumpOptions;
  readonly #sender: BatchSender;

  constructor(options: EmptyDumpOptions) {
    this.#options = options;
    this.#sender = new BatchSender(options.appender, options.topic);
  }

  async compare(): Promise<DumpFindings & { readonly strays: Directory['strays'] }> {
    return {
      rows: 0,
      unchangedRows: 0,
      refused: 0,
      changed: new GroupEntries(),
      isUnchanged: () => false,
      lastId: -1,
      strays: { rows: 0, low: 0, high: 0 },
    };
  }

  async send(emptied: readonly number[]): Promise<void> {
    const { dataset: name, shards, schemaId, runId, asOf } = this.#options;
    const dataset = datasets[name];
    const header = Buffer.from(dataset.columns.map((column) => column.name).join('\t'));
    const batches: { partition: number; batch: Buffer }[] = [];
    const chunker = new Chunker({
      dataset,
      layout: layoutOf(dataset, header, name),
      shards,
      schemaId,
      runId,
      asOf,
      onChunk: ({ partition, key, value, room, start }) => {
        batches.push({
          partition,
          batch: packedRecordOf(room, start, start + value.length, key),
        });
      },
      onRejected: () => undefined,
    });
    for (const group of emptied) chunker.replaceGroup(group);
    chunker.cut();
    for (const { partition, batch } of batches) await this.#sender.send(partition, batch);
    await this.#sender.drained();
  }

  async sendAgain(groups: ReadonlySet<number>): Promise<void> {
    await this.send([...groups]);
  }

  /** An empty dump is no base: its topic holds nothing that a base could repeat. */
  async mark(): Promise<never> {
    throw new RangeError('an empty dump is sent as a base');
  }

  isOwn({ partition, offset, runId }: Written): boolean {
    return runId === this.#options.runId && this.#sender.own.has(partition, offset);
  }

  acknowledged(partition: number): number {
    return this.#sender.own.acknowledged(partition);
  }

  vouched(partition: number): ReadonlySet<number> | undefined {
    return this.#sender.own.vouched(partition);
  }
}
