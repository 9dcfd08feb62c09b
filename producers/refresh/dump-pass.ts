/**
 * Sends what differs between one file of a dump and the index. `compare` reads the file to its end, hashes its groups, and
 * spools the chunks of those that differ. `send` sends the spool. If the spool grows too large, `send` reads the file again
 * instead, and no row of another file is ever sent for one that was compared.
 */
import { crashPoint } from '../../runtime/crash-points.ts';
import type { BaseMark } from '../../topics/base.ts';
import { datasets } from '../../topics/catalog.ts';
import { noStrays, type Strays } from '../../topics/dump-index.ts';
import { blockOfGroup, groupsOfBlock } from '../../topics/id-groups.ts';
import type { Appender } from '../appender.ts';
import { Chunker, type ChunkerOptions, type RejectedRow } from '../chunker.ts';
import type { InputFile } from '../input-files.ts';
import type { Rejections } from '../journal.ts';
import type { RateLimit } from '../rate-limit.ts';
import type { RejectedRows } from '../rejected-rows.ts';
import { countRejection } from '../rejection-limit.ts';
import { Sender } from '../sender.ts';
import type { DumpFile } from './devices.ts';
import { changedMeanwhile, checkUnchanged, piecesOf, withoutNewline } from './dump-reading.ts';
import { entryOfRows, entryState, GroupEntries, type GroupEntry } from './group-entries.ts';
import { type ClosedGroup, GroupReader } from './group-reader.ts';
import { OwnOffsets } from './own-offsets.ts';
import type { DumpFindings } from './plan.ts';
import type { SortedCopy } from './sorted-copy.ts';
import { type PackedChunk, packedChunkOf, Spool } from './spool.ts';

interface DumpPassOptions {
  readonly file: InputFile;
  /** Present if `file` is a sorted copy of the file that the user named. */
  readonly sorted?: SortedCopy | undefined;
  readonly shards: number;
  readonly schemaId: number;
  readonly runId: string;
  readonly firstChunk: number;
  readonly topic: string;
  readonly appender: Appender;
  readonly rejectedRows: RejectedRows;
  /** Rows without an id in the dump before: if they are the same, they get no new dead letters. */
  readonly straysBefore?: Strays | undefined;
  /** Path of the spool. */
  readonly spoolPath: string;
  readonly spoolBytesMax: number;
  readonly rateLimit?: RateLimit | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress: (pass: 'compare' | 'send', bytesRead: number) => void;
  readonly onRejected: (reason: string) => void;
}

/** A set of groups as bits, by blocks. */
class GroupSet {
  readonly #blocks = new Map<number, Uint8Array>();

  add(group: number): void {
    const number = blockOfGroup(group);
    let block = this.#blocks.get(number);
    if (block === undefined) {
      block = new Uint8Array(groupsOfBlock);
      this.#blocks.set(number, block);
    }
    block[group % groupsOfBlock] = 1;
  }

  has(group: number): boolean {
    return this.#blocks.get(blockOfGroup(group))?.[group % groupsOfBlock] === 1;
  }
}

const rejectedBytesMax = 64_000_000;

export class DumpPass implements DumpFile {
  readonly #options: DumpPassOptions;
  readonly own: OwnOffsets;
  readonly #sender: Sender<PackedChunk>;
  readonly #spool: Spool;
  readonly #chunker: Chunker;
  /** The reader of the current pass over the file. */
  #reader: GroupReader | undefined;
  /** Counts the refused rows of unchanged groups, which have dead letters already. Its chunks are dropped. */
  #counter: Chunker | undefined;
  /** Chunks that were cut and are not spooled or sent yet. */
  #pending: PackedChunk[] = [];
  #pendingRejected: { readonly row: RejectedRow; readonly isStray: boolean }[] = [];
  /** Whether the chunker is reading a row that belongs to no group. */
  #isStray = false;
  #rejectedBytes = 0;
  #isSpooled = true;
  /** Rejections are counted while comparing; rows that are read again were counted before. */
  #isComparing = true;
  /** Rows that are sent again have dead letters, where they need one. */
  #isSendingAgain = false;
  /** The entries that the dump is compared with. */
  #index = new GroupEntries();
  #changed = new GroupEntries();
  #strays = noStrays;
  /** Rows read, and their outcome. */
  rows = 0;
  unchanged = 0;
  rejected = 0;
  readonly rejections: Rejections = {};
  /** Acknowledged chunks, and their bytes before compression. */
  chunks = 0;
  bytes = 0;
  /** Of the last acknowledged chunk, by partition; undefined where it is not known, or the chunk was refused. */
  readonly #lastOffsets: (number | undefined)[] = [];

  constructor(options: DumpPassOptions) {
    const { topic, runId, appender } = options;
    this.#options = options;
    this.own = new OwnOffsets(appender, topic, runId);
    this.#sender = new Sender({
      appender,
      topic,
      bytesOf: ({ packed }) => packed.length,
      onAcknowledged: ({ partition, number, bytes }, offset) => {
        this.own.add(partition, number, offset);
        this.#lastOffsets[partition] = offset;
        this.chunks++;
        this.bytes += bytes;
      },
    });
    this.#spool = new Spool(options.spoolPath);
    this.#chunker = this.#newChunker({
      onChunk: (chunk) => {
        this.#pending.push(packedChunkOf(chunk));
        this.#chunker.recycle(chunk);
      },
      onRejected: (found) => {
        if (this.#isSendingAgain) return;
        const row = this.#asInOriginal(found);
        if (this.#isComparing) countRejection(this.rejections, row);
        this.#pendingRejected.push({ row, isStray: this.#isStray });
        this.#rejectedBytes += row.original.length + 500;
      },
    });
  }

  #newChunker(events: Pick<ChunkerOptions, 'onChunk' | 'onRejected'>): Chunker {
    const { file, shards, schemaId, runId, firstChunk } = this.#options;
    const { layout, modified: asOf } = file;
    return new Chunker({
      ...{ dataset: datasets[file.dataset], layout, shards, schemaId, runId, firstChunk, asOf },
      lostBytesOf: (row) => this.#reader?.lostBytesOf(row) ?? 0,
      ...events,
    });
  }

  #refusedRowsOf(closed: ClosedGroup): number {
    this.#counter ??= this.#newChunker({
      onChunk: (chunk) => this.#counter?.recycle(chunk),
      onRejected: (found) => countRejection(this.rejections, this.#asInOriginal(found)),
    });
    return this.#counter.replaceGroup(closed.group, closed).rejected;
  }

  /** @throws UnsortedRows, ReelflowError cutFile, input, inputChanged */
  async compare(index: GroupEntries): Promise<DumpFindings> {
    this.#index = index;
    const unchanged = new GroupSet();
    const changed = this.#changed;
    const reader = await this.#read('compare', (closed) => {
      const { group, low, high, rows } = closed;
      const hasRefused = index.holdsRefused(group, low, high);
      if (hasRefused || index.holds(group, low, high)) {
        unchanged.add(group);
        const refused = hasRefused ? this.#refusedRowsOf(closed) : 0;
        this.rejected += refused;
        this.unchanged += rows - refused;
        return;
      }
      const outcome = this.#chunker.replaceGroup(group, closed);
      this.rejected += outcome.rejected;
      changed.put(group, entryOfRows(closed, outcome, outcome.rejected > 0));
    });
    this.#isComparing = false;
    this.#strays = reader.strays;
    this.rejected += reader.strays.rows;
    this.rows = reader.rows;
    return {
      rows: reader.rows,
      unchangedRows: this.unchanged,
      refused: this.rejected,
      changed,
      isUnchanged: (group) => unchanged.has(group),
      lastId: reader.lastId,
      strays: reader.strays,
    };
  }

  async send(emptied: readonly number[], whole: boolean): Promise<void> {
    crashPoint('after-plan-before-send');
    if (whole && this.unchanged > 0) await this.#sendWhole();
    else if (this.#isSpooled) {
      await this.#sendPending();
      for await (const chunk of this.#spool.read()) {
        await this.#sendChunk(chunk);
        crashPoint('mid-refresh');
      }
    } else {
      await this.#sendChanged();
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
    this.#isSendingAgain = true;
    const left = new Set(groups);
    const sent: [number, GroupEntry][] = [];
    await this.#read('send', (closed) => {
      if (!left.delete(closed.group)) return;
      const outcome = this.#chunker.replaceGroup(closed.group, closed);
      sent.push([closed.group, entryOfRows(closed, outcome, outcome.rejected > 0)]);
    });
    for (const group of left) this.#chunker.replaceGroup(group);
    await this.#finishSending();
    for (const [group, entry] of sent) onSent(group, entry);
  }

  async mark(mark: BaseMark['mark']): Promise<(number | undefined)[]> {
    const { runId: id, shards } = this.#options;
    this.#chunker.mark({ id, mark });
    await this.#sendPending(mark === 'end');
    await this.#sender.drained();
    return Array.from({ length: shards }, (_, partition) => this.#lastOffsets[partition]);
  }

  /** Removes the spool. */
  async close(): Promise<void> {
    await this.#spool.close();
  }

  #asInOriginal(rejected: RejectedRow): RejectedRow {
    const row = this.#options.sorted?.originalRow(rejected.row) ?? rejected.row;
    return { ...rejected, row, line: row + 2 };
  }

  /** Whether the rows without an id are others than those of the dump before. */
  get hasNewStrays(): boolean {
    const { rows, low, high } = this.#options.straysBefore ?? noStrays;
    return this.#strays.rows !== rows || this.#strays.low !== low || this.#strays.high !== high;
  }

  /** Reads the file a second time, because the spool became too large. */
  async #sendChanged(): Promise<void> {
    await this.#read('send', (closed) => {
      if (this.#changed.stateOf(closed.group) === entryState.absent) return;
      this.#sendClosed(closed);
    });
  }

  /** Reads the file a second time, for a base. Refused rows of unchanged groups have dead letters already. */
  async #sendWhole(): Promise<void> {
    // With a spool, the rejected rows of the first reading are still to be sent.
    const isKept = this.#isSpooled;
    this.#isSendingAgain = isKept;
    await this.#read('send', (closed) => {
      const { group, rows } = closed;
      if (!isHeld(this.#index, closed)) return this.#sendClosed(closed);
      this.#isSendingAgain = true;
      this.unchanged -= rows - this.#chunker.replaceGroup(group, closed).rejected;
      this.#isSendingAgain = isKept;
    });
    this.#isSendingAgain = false;
  }

  #sendClosed(closed: ClosedGroup): void {
    if (!isHeld(this.#changed, closed)) throw changedMeanwhile(this.#options.file);
    this.#chunker.replaceGroup(closed.group, closed);
  }

  /** Reads the file to its end, group by group; spools or sends what the chunker cuts. */
  async #read(pass: 'compare' | 'send', onGroup: (closed: ClosedGroup) => void): Promise<GroupReader> {
    const { file, onProgress, signal } = this.#options;
    const { layout, dataset } = file;
    await checkUnchanged(file);
    const reader = new GroupReader({
      prefix: datasets[dataset].idPrefix,
      idColumn: layout.order[0] as number,
      keepRows: true,
      onGroup,
      onStray: (bytes, start, row) => {
        if (this.#rejectedBytes >= rejectedBytesMax && pass === 'compare') return;
        this.#isStray = true;
        this.#chunker.rejectStray(bytes, start, row);
        this.#isStray = false;
      },
    });
    this.#reader = reader;
    let bytesRead = 0;
    const pieces = piecesOf(
      file,
      () => reader.rows,
      (bytes) => {
        bytesRead = bytes;
      },
    );
    for await (const piece of pieces) {
      signal?.throwIfAborted();
      reader.push(piece);
      await this.#flush(pass);
      onProgress(pass, bytesRead);
    }
    reader.end();
    if (!reader.endsWithNewline) throw withoutNewline(file, reader.rows);
    if (pass === 'compare') {
      this.#chunker.cut();
      await this.#flush(pass);
    }
    await checkUnchanged(file);
    return reader;
  }

  async #flush(pass: 'compare' | 'send'): Promise<void> {
    if (pass === 'send') return this.#sendPending();
    if (!this.#isSpooled) {
      this.#pending = [];
      this.#pendingRejected = [];
      return;
    }
    for (const chunk of this.#pending) await this.#spool.write(chunk);
    this.#pending = [];
    if (this.#spool.bytes <= this.#options.spoolBytesMax && this.#rejectedBytes <= rejectedBytesMax) return;
    this.#isSpooled = false;
    this.#pendingRejected = [];
    await this.#spool.close();
  }

  async #sendPending(onlyBehind = false): Promise<void> {
    const rejected = this.#pendingRejected;
    this.#pendingRejected = [];
    for (const each of rejected) await this.#reject(each);
    const pending = this.#pending;
    this.#pending = [];
    for (const chunk of pending) {
      await this.#sendChunk(chunk, onlyBehind);
      crashPoint('mid-refresh');
    }
  }

  async #sendChunk(chunk: PackedChunk, onlyBehind = false): Promise<void> {
    const { rateLimit, signal } = this.#options;
    for (let rows = await rateLimit?.rows(); rows !== undefined && rows < 1; rows = await rateLimit?.rows()) {
      signal?.throwIfAborted();
    }
    signal?.throwIfAborted();
    this.#sender.send(chunk, Promise.resolve(chunk.packed), onlyBehind);
    rateLimit?.took(chunk.records);
    await this.#sender.room();
  }

  async #finishSending(): Promise<void> {
    this.#chunker.cut();
    await this.#sendPending();
    await this.#sender.drained();
    await this.#options.rejectedRows.drained();
  }

  async #reject({ row, isStray }: { row: RejectedRow; isStray: boolean }): Promise<void> {
    // They have dead letters since the dump before.
    if (isStray && !this.hasNewStrays) return;
    this.#options.rejectedRows.add(row);
    this.#options.onRejected(row.reason);
    await this.#options.rejectedRows.room();
  }
}

/** Whether these entries hold exactly the rows of the group in the file, refused ones included. */
const isHeld = (entries: GroupEntries, { group, low, high }: ClosedGroup) =>
  entries.holds(group, low, high) || entries.holdsRefused(group, low, high);
