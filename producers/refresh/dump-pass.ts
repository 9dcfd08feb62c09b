/**
 * One file of a dump on its way to a topic that holds another one. `compare` reads it to its end, hashes its groups, and
 * spools the messages of those that are not as the index has them; `send` sends the spool. A spool that grows too large is
 * given up, and `send` reads the file again.
 */
import { stat } from 'node:fs/promises';
import { crashPoint } from '../../runtime/crash-points.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { bytesOf } from '../../runtime/file-bytes.ts';
import { datasets } from '../../topics/catalog.ts';
import type { Directory } from '../../topics/dump-index.ts';
import { groupsOfBlock } from '../../topics/id-groups.ts';
import type { Appender } from '../appender.ts';
import { Chunker, type RejectedRow } from '../chunker.ts';
import { damaged, type InputFile } from '../input-files.ts';
import type { Rejections } from '../journal.ts';
import type { Pace } from '../pace.ts';
import { packedRecordOf } from '../record-batch.ts';
import type { RejectedRows } from '../rejected-rows.ts';
import { countRejection } from '../rejection-limit.ts';
import { BatchSender } from './batch-sender.ts';
import type { DumpFile, Touched } from './dataset-refresh.ts';
import { GroupEntries, type GroupEntry } from './group-entries.ts';
import { type ClosedGroup, GroupReader, UnsortedRows } from './group-reader.ts';
import type { DumpFindings } from './plan.ts';
import { Spool } from './spool.ts';

export interface DumpPassOptions {
  readonly file: InputFile;
  readonly shards: number;
  readonly schemaId: number;
  readonly runId: string;
  readonly topic: string;
  readonly appender: Appender;
  readonly rejectedRows: RejectedRows;
  /** Rows without an id in the dump before: the same ones are no dead letters again. */
  readonly straysBefore: Directory['strays'] | undefined;
  /** Path of the spool. */
  readonly spoolPath: string;
  readonly spoolBytesMax: number;
  readonly pace?: Pace | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress: (pass: 'compare' | 'send', bytesRead: number) => void;
  readonly onRejected: (reason: string) => void;
}

/** A set of groups as bits, by blocks. */
class GroupSet {
  readonly #blocks = new Map<number, Uint8Array>();

  add(group: number): void {
    const number = (group / groupsOfBlock) | 0;
    let block = this.#blocks.get(number);
    if (block === undefined) {
      block = new Uint8Array(groupsOfBlock);
      this.#blocks.set(number, block);
    }
    block[group % groupsOfBlock] = 1;
  }

  has(group: number): boolean {
    return this.#blocks.get((group / groupsOfBlock) | 0)?.[group % groupsOfBlock] === 1;
  }
}

const rejectedBytesMax = 64_000_000;

interface PendingBatch {
  readonly partition: number;
  readonly batch: Buffer;
  readonly records: number;
}

export class DumpPass implements DumpFile {
  readonly #options: DumpPassOptions;
  readonly #sender: BatchSender;
  readonly #spool: Spool;
  readonly #chunker: Chunker;
  /** Batches that were cut and are not spooled or sent yet. */
  #pending: PendingBatch[] = [];
  #rejected: RejectedRow[] = [];
  #rejectedBytes = 0;
  #isSpooled = true;
  #changed = new GroupEntries();
  #strays: Directory['strays'] = { rows: 0, low: 0, high: 0 };
  #bytesRead = 0;
  /** Rows read, and their outcome. */
  rows = 0;
  unchanged = 0;
  rejected = 0;
  readonly rejections: Rejections = {};
  /** Bytes of the acknowledged chunks before compression. */
  bytes = 0;

  constructor(options: DumpPassOptions) {
    const { file, shards, schemaId, runId, topic, appender } = options;
    this.#options = options;
    this.#sender = new BatchSender(appender, topic);
    this.#spool = new Spool(options.spoolPath);
    this.#chunker = new Chunker({
      dataset: datasets[file.dataset],
      layout: file.layout,
      shards,
      schemaId,
      runId,
      asOf: file.modified,
      onChunk: (chunk) => {
        const { room, start, value, key, partition, records } = chunk;
        this.bytes += value.length;
        const batch = packedRecordOf(room.bytes, start, start + value.length, key);
        this.#pending.push({ partition, batch, records });
        this.#chunker.recycle(chunk);
      },
      onRejected: (row) => {
        countRejection(this.rejections, row);
        this.#rejected.push(row);
        this.#rejectedBytes += row.original.length + 500;
      },
    });
  }

  get chunks(): number {
    return this.#sender.chunks;
  }

  async compare(index: GroupEntries): Promise<DumpFindings & { readonly strays: Directory['strays'] }> {
    const unchanged = new GroupSet();
    const changed = this.#changed;
    let unchangedRows = 0;
    const reader = await this.#read('compare', (closed) => {
      if (index.holds(closed.group, closed.low, closed.high)) {
        unchanged.add(closed.group);
        unchangedRows += closed.rows;
        return;
      }
      const { maskLow, maskHigh, rejected } = this.#chunker.replaceGroup(closed.group, closed);
      this.rejected += rejected;
      changed.put(closed.group, { low: closed.low, high: closed.high, maskLow, maskHigh, rows: closed.rows });
    });
    this.#strays = reader.strays;
    if (this.#areStraysKnown) unchangedRows += reader.strays.rows;
    else this.rejected += reader.strays.rows;
    this.rows = reader.rows;
    this.unchanged = unchangedRows;
    return {
      rows: reader.rows,
      unchangedRows,
      refused: this.rejected,
      changed,
      isUnchanged: (group) => unchanged.has(group),
      lastId: reader.lastId,
      strays: reader.strays,
    };
  }

  async send(emptied: readonly number[]): Promise<void> {
    crashPoint('after-plan-before-send');
    if (this.#isSpooled) {
      for (const row of this.#rejected) await this.#reject(row);
      for await (const { partition, batch } of this.#spool.read()) {
        await this.#sender.send(partition, batch);
        crashPoint('mid-refresh');
      }
    } else {
      await this.#sendAnew();
    }
    for (const group of emptied) {
      this.#chunker.replaceGroup(group);
      await this.#sendPending();
    }
    await this.#finishSending();
    await this.#spool.close();
    crashPoint('after-refresh-before-index');
  }

  async sendAgain(
    groups: ReadonlySet<number>,
    onSent: (group: number, entry: GroupEntry) => void,
  ): Promise<void> {
    const left = new Set(groups);
    const sent: [number, GroupEntry][] = [];
    await this.#read('send', (closed) => {
      if (!left.delete(closed.group)) return;
      const { maskLow, maskHigh } = this.#chunker.replaceGroup(closed.group, closed);
      const { low, high, rows } = closed;
      sent.push([closed.group, { low, high, maskLow, maskHigh, rows }]);
    });
    // Their rows were counted and rejected before.
    this.#rejected = [];
    for (const group of left) this.#chunker.replaceGroup(group);
    await this.#finishSending();
    for (const [group, entry] of sent) onSent(group, entry);
  }

  isOwn({ partition, offset, runId }: Touched): boolean {
    return runId === this.#options.runId && this.#sender.isOwn(partition, offset);
  }

  acknowledged(partition: number): number {
    return this.#sender.acknowledged(partition);
  }

  /** Removes the spool. */
  async close(): Promise<void> {
    await this.#spool.close();
  }

  get #areStraysKnown(): boolean {
    const { straysBefore: before } = this.#options;
    const { rows, low, high } = this.#strays;
    return before !== undefined && before.rows === rows && before.low === low && before.high === high;
  }

  /** The second reading, for a dump whose spool became too large. */
  async #sendAnew(): Promise<void> {
    const { file } = this.#options;
    await this.#read('send', (closed) => {
      if (this.#changed.stateOf(closed.group) === 0) return;
      if (!this.#changed.holds(closed.group, closed.low, closed.high)) throw changedMeanwhile(file);
      this.#chunker.replaceGroup(closed.group, closed);
    });
  }

  /** Reads the file to its end, group by group; spools or sends what the chunker cuts. */
  async #read(pass: 'compare' | 'send', onGroup: (closed: ClosedGroup) => void): Promise<GroupReader> {
    const { file, onProgress, signal } = this.#options;
    const { layout, dataset } = file;
    const reader = new GroupReader({
      prefix: datasets[dataset].idPrefix,
      idColumn: layout.order[0] as number,
      keepRows: true,
      onGroup,
      onStray: (bytes, start, row) => {
        if (this.#rejectedBytes < rejectedBytesMax || pass === 'send')
          this.#chunker.rejectStray(bytes, start, row);
      },
    });
    const pieces = bytesOf(file, {
      read: (bytes) => {
        this.#bytesRead = bytes;
      },
    });
    const next = async () => {
      try {
        return await pieces.next();
      } catch (thrown) {
        throw damaged(file, `line ${reader.rows + 1}; nothing of it was sent`, thrown);
      }
    };
    try {
      for (let piece = await next(); piece.done !== true; piece = await next()) {
        signal?.throwIfAborted();
        reader.push(piece.value);
        await this.#flush(pass);
        onProgress(pass, this.#bytesRead);
      }
      reader.end();
      if (!reader.endsWithNewline) throw withoutNewline(file, reader.rows);
      if (pass === 'compare') {
        this.#chunker.cut();
        await this.#flush(pass);
      }
      await checkUnchanged(file);
    } catch (thrown) {
      if (!(thrown instanceof UnsortedRows)) throw thrown;
      throw unsorted(file, thrown);
    } finally {
      await pieces.return(undefined);
    }
    return reader;
  }

  async #flush(pass: 'compare' | 'send'): Promise<void> {
    if (pass === 'send') return this.#sendPending();
    if (!this.#isSpooled) {
      this.#pending = [];
      this.#rejected = [];
      return;
    }
    for (const { partition, batch } of this.#pending) await this.#spool.write(partition, batch);
    this.#pending = [];
    if (this.#spool.bytes <= this.#options.spoolBytesMax && this.#rejectedBytes <= rejectedBytesMax) return;
    this.#isSpooled = false;
    this.#rejected = [];
    await this.#spool.close();
  }

  async #sendPending(): Promise<void> {
    const rejected = this.#rejected;
    this.#rejected = [];
    for (const row of rejected) await this.#reject(row);
    const pending = this.#pending;
    this.#pending = [];
    for (const { partition, batch, records } of pending) {
      await this.#options.pace?.rows();
      await this.#sender.send(partition, batch);
      this.#options.pace?.took(records);
    }
  }

  async #finishSending(): Promise<void> {
    this.#chunker.cut();
    await this.#sendPending();
    await this.#sender.drained();
    await this.#options.rejectedRows.drained();
  }

  async #reject(row: RejectedRow): Promise<void> {
    if (row.key === null && this.#areStraysKnown) return;
    this.#options.rejectedRows.add(row);
    this.#options.onRejected(row.reason);
    await this.#options.rejectedRows.room();
  }
}

async function checkUnchanged(file: InputFile): Promise<void> {
  const { size, mtime } = await stat(file.path);
  if (size !== file.size || mtime.getTime() !== file.modified.getTime()) throw changedMeanwhile(file);
}

function changedMeanwhile({ name }: InputFile): ReelflowError {
  return new ReelflowError('inputChanged', `${name} changed while it was read`, {
    detail: 'Its size, its date or its rows are not those of the first pass.',
    hint: 'Replace files by renaming finished ones. Run the same command again.',
  });
}

function withoutNewline({ name }: InputFile, rows: number): ReelflowError {
  return new ReelflowError('cutFile', `${name} does not end with a newline`, {
    detail: `It breaks off in line ${rows + 1}. Nothing of it was sent.`,
    hint: 'Fetch the file again. To send its rows without removing any, use --upsert.',
  });
}

function unsorted({ name }: InputFile, { row }: UnsortedRows): ReelflowError {
  return new ReelflowError('input', `${name} is not sorted by id`, {
    detail: `Line ${row + 2} has a lower id than a line before it. Nothing of it was sent.`,
    hint: 'Sort the lines behind the header by their first column, or send the rows with --upsert.',
  });
}
