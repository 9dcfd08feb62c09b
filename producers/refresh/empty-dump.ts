/** A dataset that the dump lacks: every group that its topic holds is emptied. */
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import { noStrays } from '../../topics/dump-index.ts';
import type { Appender } from '../appender.ts';
import { Chunker } from '../chunker.ts';
import { headerLineOf, layoutOf } from '../file-layout.ts';
import { packRecord } from '../record-batch.ts';
import { Sender } from '../sender.ts';
import type { DumpFile } from './devices.ts';
import { GroupEntries } from './group-entries.ts';
import { OwnOffsets } from './own-offsets.ts';
import type { DumpFindings } from './plan.ts';

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
  readonly own: OwnOffsets;
  readonly #sender: Sender;
  readonly #chunker: Chunker;

  constructor(options: EmptyDumpOptions) {
    const { appender, topic, runId } = options;
    const dataset = datasets[options.dataset];
    this.own = new OwnOffsets(appender, topic, runId);
    this.#sender = new Sender({
      appender,
      topic,
      bytesOf: ({ value }) => value.length,
      onAcknowledged: (chunk, offset) => {
        this.own.add(chunk.partition, chunk.number, offset);
        this.#chunker.recycle(chunk);
      },
    });
    this.#chunker = new Chunker({
      ...options,
      dataset,
      layout: layoutOf(dataset, Buffer.from(headerLineOf(dataset)), dataset.name),
      onChunk: (chunk) => this.#sender.send(chunk, packRecord(chunk)),
      onRejected: () => undefined,
    });
  }

  async compare(): Promise<DumpFindings> {
    return {
      rows: 0,
      unchangedRows: 0,
      refused: 0,
      changed: new GroupEntries(),
      isUnchanged: () => false,
      lastId: -1,
      strays: noStrays,
    };
  }

  async send(emptied: readonly number[]): Promise<void> {
    for (const group of emptied) {
      this.#chunker.replaceGroup(group);
      await this.#sender.room();
    }
    this.#chunker.cut();
    await this.#sender.drained();
  }

  async sendAgain(groups: ReadonlySet<number>): Promise<void> {
    await this.send([...groups]);
  }

  /** An empty dump is no base: its topic holds nothing that a base could repeat. */
  async mark(): Promise<never> {
    throw new RangeError('an empty dump is sent as a base');
  }
}
