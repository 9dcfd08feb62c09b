/** A dataset that the dump lacks: every group that its topic holds is emptied. */
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import type { Directory } from '../../topics/dump-index.ts';
import type { Appender } from '../appender.ts';
import { Chunker } from '../chunker.ts';
import { headerLineOf, layoutOf } from '../file-layout.ts';
import { BatchSender } from './batch-sender.ts';
import type { DumpFile, OwnMessages } from './devices.ts';
import { GroupEntries } from './group-entries.ts';
import type { DumpFindings } from './plan.ts';
import { type PackedChunk, packedChunkOf } from './spool.ts';

interface EmptyDumpOptions {
  readonly dataset: DatasetName;
  readonly shards: number;
  readonly schemaId: number;
  readonly runId: string;
  readonly firstChunk: number;
  readonly asOf: Date;
  readonly appender: Appender;
  readonly topic: string;
}

export class EmptyDump implements DumpFile {
  readonly #sender: BatchSender;
  readonly #chunker: Chunker;
  #pending: PackedChunk[] = [];

  constructor(options: EmptyDumpOptions) {
    const { appender, topic, runId } = options;
    const dataset = datasets[options.dataset];
    this.#sender = new BatchSender(appender, topic, runId);
    this.#chunker = new Chunker({
      ...options,
      dataset,
      layout: layoutOf(dataset, Buffer.from(headerLineOf(dataset)), dataset.name),
      onChunk: (chunk) => this.#pending.push(packedChunkOf(chunk)),
      onRejected: () => undefined,
    });
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
    for (const group of emptied) this.#chunker.replaceGroup(group);
    this.#chunker.cut();
    const pending = this.#pending;
    this.#pending = [];
    for (const chunk of pending) await this.#sender.send(chunk);
    await this.#sender.drained();
  }

  async sendAgain(groups: ReadonlySet<number>): Promise<void> {
    await this.send([...groups]);
  }

  /** An empty dump is no base: its topic holds nothing that a base could repeat. */
  async mark(): Promise<never> {
    throw new RangeError('an empty dump is sent as a base');
  }

  get own(): OwnMessages {
    return this.#sender.own;
  }
}
