/**
 * Makes the topic of one dataset hold exactly a dump. It reaches topic, index and file through devices, so that the
 * simulator can kill it between any two steps and let others write between them.
 *
 * 1. `open`: reads the index, which is true of the log up to its marks. Messages behind a mark make their groups unknown,
 *    never absent. So does a message that a consumer has refused since. If the log contradicts a mark, all groups of the
 *    partition are unknown.
 * 2. `plan`: reads the dump once and sends nothing.
 * 3. `send`: sends changed, new and unknown groups whole, and empties groups that the dump lacks.
 * 4. `settle`: reads the log from where `open` ended. Groups that others wrote to are unknown and sent again.
 * 5. `close`: writes the entries, then the directory with the new marks.
 *
 * When the topic holds many times the records of its dump and the dump has changes, step 3 sends the whole dump as a base,
 * between two marks. The first mark comes before everything that step 3 sends. The second comes after step 4, which has sent
 * again what others wrote before the first. The broker appends the second mark only behind all messages that this run has
 * sent to the partition since the first.
 *
 * If a run is killed anywhere, the next one finds its messages behind the marks and sends their groups again.
 */
import type { Range } from '../../kafka/scan.ts';
import { crashPoint } from '../../runtime/crash-points.ts';
import { blockKey, type DatasetName, datasets, partitionOf } from '../../topics/catalog.ts';
import {
  blockHash,
  blockMessageKey,
  DamagedIndex,
  type Directory,
  decodeBlock,
  decodeDirectory,
  directoryKey,
  encodeBlock,
  encodeDirectory,
  type IndexMark,
  noStrays,
  type Strays,
} from '../../topics/dump-index.ts';
import { groupOf } from '../../topics/id-groups.ts';
import type {
  DumpFile,
  IndexLog,
  IndexMessage,
  OwnMessages,
  SourceLog,
  Touched,
  Written,
} from './devices.ts';
import { EntryBlock, entryAt, entryState, GroupEntries } from './group-entries.ts';
import { heldMarks, marksAtEnd } from './log-marks.ts';
import { endOfGapless } from './own-offsets.ts';
import { type DatasetPlan, type DumpFindings, planOf } from './plan.ts';

interface DatasetRefreshOptions {
  readonly dataset: DatasetName;
  readonly runId: string;
  readonly asOfMs: number;
  readonly fingerprint: string;
  readonly log: SourceLog;
  readonly index: IndexLog;
  /** Send all groups, also those that the index knows. Default false. */
  readonly full?: boolean;
  /**
   * Send a dump with changes as a base when the topic holds more than this many times the records of the dump before.
   * Default: never.
   */
  readonly baseAbove?: number | undefined;
  /** How often groups that others wrote to during the run are sent again; then they stay unknown. Default 3. */
  readonly settlementsMax?: number;
}

const messagesBytesMax = 900_000;

export class DatasetRefresh {
  readonly #options: DatasetRefreshOptions;
  #directory: Directory | undefined;
  #entries = new GroupEntries();
  /** Of the messages of blocks that match the directory. */
  readonly #messageHashes = new Map<number, string>();
  /** The ends of the log when it was last read, by partition. */
  #marks: IndexMark[] = [];
  /** Partitions whose log became another one during this run. */
  readonly #replaced = new Set<number>();
  /** Own messages that were found on the topic, by partition. */
  readonly #ownSeen: number[] = [];
  #letters: readonly number[] = [];
  /** Records on the topic, as far as they are counted, since its last whole base. */
  #records = 0;
  /** Begins of the last whole base, by partition. */
  #bases: (number | undefined)[] = [];
  /** Whether the topic holds so much that the next change is sent as a base. */
  #isBaseDue = false;
  #isBase = false;
  /** Records and begins as they were before this run's base. */
  #before: { readonly bases: (number | undefined)[]; readonly records: number } = { bases: [], records: 0 };
  /** Whether others had written nothing since, when the log was last read. */
  #isSettled = false;
  #strays = noStrays;
  #findings: DumpFindings | undefined;
  /** Groups that were sent again because others wrote to them. */
  readonly #sentAgain = new Set<number>();
  #emptied: ReadonlySet<number> = new Set();
  #plan: DatasetPlan | undefined;

  constructor(options: DatasetRefreshOptions) {
    this.#options = options;
  }

  get entries(): GroupEntries {
    return this.#entries;
  }

  /** The index before this run; undefined when there was no usable directory. */
  get directory(): Directory | undefined {
    return this.#directory;
  }

  /** Whether the topic held nothing when it was opened. */
  get isEmptyTopic(): boolean {
    return this.#marks.every(({ offset }) => offset === 0);
  }

  /** Whether this run has sent the group because it was changed, new or unknown; a base only repeats the others. */
  hasReplaced(group: number): boolean {
    const isChanged = this.#findings?.changed.stateOf(group) === entryState.known;
    return isChanged || this.#emptied.has(group) || this.#sentAgain.has(group);
  }

  /** Whether this run has sent anything. */
  get hasSent(): boolean {
    const changed = this.#findings?.changed.blocks.length ?? 0;
    return changed + this.#emptied.size + this.#sentAgain.size > 0;
  }

  /** Step 1. @throws NewerIndex, and what the devices throw */
  async open(): Promise<void> {
    const { log, fingerprint, full } = this.#options;
    const bounds = await log.bounds();
    this.#directory = this.#readDirectory();
    const marks = this.#directory?.marks ?? [];
    if (this.#directory !== undefined) this.#loadBlocks(this.#directory);
    this.#bases = marks.map(({ base }) => base);
    this.#records = this.#directory?.records ?? 0;
    const recordsOfDump = this.#recordsOfEntries();
    const isSamePartitioning = marks.length === bounds.length;
    const ranges: Range[] = [];
    const refusals = await log.refusals(this.#directory?.letters ?? []);
    this.#letters = refusals.end;
    const held = await heldMarks(log, isSamePartitioning ? marks : [], bounds);
    for (const [partition, { start, end }] of bounds.entries()) {
      const mark = held[partition];
      if (mark !== undefined) {
        const offsets = refusals.places.filter((place) => place.partition === partition);
        // The scan below reads the messages behind the mark.
        await this.#distrustRefused(offsets.filter(({ offset }) => offset >= start && offset < mark.offset));
      } else {
        this.#bases[partition] = undefined;
        this.#entries.makeAllUnknown(
          (block) => !isSamePartitioning || this.#partitionOf(block, bounds.length) === partition,
        );
      }
      ranges.push({ partition, start: mark?.offset ?? start, end });
    }
    this.#marks = await marksAtEnd(log, bounds, held);
    await log.scan(ranges, (touched) => this.#touch(touched));
    const { baseAbove = Number.POSITIVE_INFINITY } = this.#options;
    this.#isBaseDue = recordsOfDump > 0 && this.#records > baseAbove * recordsOfDump;
    if (full === true || this.#directory?.fingerprint !== fingerprint) this.#entries.makeAllUnknown();
  }

  /** Step 2. */
  async plan(dump: Pick<DumpFile, 'compare'>): Promise<DatasetPlan> {
    const findings = await dump.compare(this.#entries);
    this.#findings = findings;
    this.#strays = findings.strays;
    const plan = planOf(this.#options.dataset, this.#entries, findings);
    // An unchanged dump sends nothing, however much the topic holds.
    this.#isBase = this.#isBaseDue && (findings.changed.blocks.length > 0 || plan.emptied.length > 0);
    this.#plan = { ...plan, isBase: this.#isBase };
    return this.#plan;
  }

  /** Step 3, for a dump that was planned. */
  async send(dump: DumpFile): Promise<void> {
    const { emptied } = this.#plan as DatasetPlan;
    const { changed, rows, unchangedRows, refused } = this.#findings as DumpFindings;
    if (this.#isBase) {
      this.#before = { bases: this.#bases, records: this.#records };
      this.#bases = [...(await dump.mark('begin'))];
      this.#records = 0;
    }
    await dump.send(emptied, this.#isBase);
    this.#records += rows - unchangedRows - refused;
    for (const { group, block, at } of changed) this.#entries.put(group, entryAt(block, at));
    for (const group of emptied) this.#entries.remove(group);
    this.#emptied = new Set(emptied);
    if (this.#isBase) this.#records = this.#recordsOfEntries();
  }

  /**
   * Replaces `plan` where the topic was empty when this run began: its messages are of this run or of others. A dry run
   * plans afterwards, and all rows are new.
   */
  async beginLoad(): Promise<void> {
    const bounds = await this.#options.log.bounds();
    this.#entries = new GroupEntries();
    this.#isBaseDue = false;
    this.#marks = bounds.map(({ start }) => ({ start, offset: start, hash: '' }));
  }

  /** Replaces `send`: the whole dump was sent as plain upserts. */
  loaded(entries: GroupEntries, strays: Strays): void {
    this.#entries = entries;
    this.#strays = strays;
    this.#records = this.#recordsOfEntries();
    this.#bases = [];
  }

  /** Step 4. */
  async settle(dump: Pick<DumpFile, 'own' | 'sendAgain'>): Promise<void> {
    const { settlementsMax = 3 } = this.#options;
    for (let attempt = 1; ; attempt++) {
      const foreign = await this.#readOwnRange(dump.own);
      this.#isSettled = foreign.size === 0;
      if (this.#isSettled || attempt > settlementsMax) return;
      for (const group of foreign) this.#sentAgain.add(group);
      await dump.sendAgain(foreign, (group, entry) => {
        this.#entries.put(group, entry);
        foreign.delete(group);
      });
      for (const group of foreign) this.#entries.remove(group);
    }
  }

  /**
   * Ends a base, if this run sends one. The base gets no end if others may have written before its begin and their groups were
   * not sent again, or if the topic became another one during the run. A broker may also lose the tail of a partition after
   * `settle` has read it: it then refuses the end, and the marks do not hold.
   */
  async endBase(dump: Pick<DumpFile, 'own' | 'sendAgain' | 'mark'>): Promise<void> {
    if (!this.#isBase) return;
    if (this.#replaced.size > 0 || !this.#isSettled) {
      this.#bases = this.#before.bases;
      this.#records += this.#before.records;
      return;
    }
    crashPoint('before-base-end');
    await dump.mark('end');
    await this.settle(dump);
  }

  /** Step 5. */
  async close(): Promise<void> {
    const { dataset, index, runId, asOfMs, fingerprint } = this.#options;
    const blocks = new Map<number, string>();
    let messages: IndexMessage[] = [];
    let bytes = 0;
    const add = async (key: string, value: Buffer | null) => {
      messages.push({ key, value });
      bytes += (value?.length ?? 0) + 100;
      if (bytes < messagesBytesMax) return;
      await index.append(messages);
      messages = [];
      bytes = 0;
    };
    for (const number of this.#entries.blocks) {
      const block = this.#entries.block(number) as EntryBlock;
      if (block.state.every((state) => state === entryState.absent)) continue;
      const value = encodeBlock(block);
      const hash = blockHash(value);
      blocks.set(number, hash);
      if (this.#messageHashes.get(number) !== hash) await add(blockMessageKey(dataset, number), value);
    }
    for (const number of this.#messageHashes.keys()) {
      if (!blocks.has(number)) await add(blockMessageKey(dataset, number), null);
    }
    const marks = this.#marks.map((mark, partition): IndexMark => {
      if (this.#replaced.has(partition)) return { ...mark, hash: 'replaced' };
      const base = this.#bases[partition];
      return base === undefined ? mark : { ...mark, base };
    });
    const directory: Directory = {
      runId,
      asOfMs,
      fingerprint,
      strays: this.#strays,
      records: this.#records,
      marks,
      letters: this.#letters,
      blocks,
    };
    if (messages.length === 0 && isSame(this.#directory, directory)) return;
    if (messages.length > 0) await index.append(messages);
    await index.append([{ key: directoryKey(dataset), value: encodeDirectory(directory) }]);
  }

  /** Consumers did not apply these messages. A message that cannot be decoded may be about any group of its partition. */
  async #distrustRefused(
    places: readonly { readonly partition: number; readonly offset: number }[],
  ): Promise<void> {
    const { log } = this.#options;
    for (const { partition, offset } of places) {
      let isDecodable = false;
      await log.scan([{ partition, start: offset, end: offset + 1 }], (touched) => {
        isDecodable = true;
        this.#entries.touch(touched);
      });
      if (isDecodable) continue;
      const { length } = this.#directory?.marks ?? [];
      this.#entries.makeAllUnknown((block) => this.#partitionOf(block, length) === partition);
    }
  }

  #readDirectory(): Directory | undefined {
    const value = this.#options.index.messages.get(directoryKey(this.#options.dataset));
    if (value === undefined) return undefined;
    try {
      return decodeDirectory(value);
    } catch (thrown) {
      if (thrown instanceof DamagedIndex) return undefined;
      throw thrown;
    }
  }

  #loadBlocks({ blocks }: Directory): void {
    const { dataset, index } = this.#options;
    for (const [number, hash] of blocks) {
      const value = index.messages.get(blockMessageKey(dataset, number));
      const block = new EntryBlock();
      if (value !== undefined && blockHash(value) === hash) {
        decodeBlock(value, block);
        this.#messageHashes.set(number, hash);
      } else {
        block.state.fill(entryState.unknown);
      }
      this.#entries.setBlock(number, block);
    }
  }

  #touch(touched: Touched): void {
    this.#records += touched.records;
    this.#entries.touch(touched);
  }

  #recordsOfEntries(): number {
    let records = 0;
    for (const { block, at } of this.#entries) records += block.rows[at] as number;
    return records;
  }

  /**
   * Reads the messages since the log was last read. If the log contradicts its mark or lacks own messages, it was replaced:
   * its new mark must not hold.
   * @returns the groups that others wrote to, which are unknown now
   */
  async #readOwnRange(own: OwnMessages): Promise<Set<number>> {
    const { log } = this.#options;
    const bounds = await log.bounds();
    const ranges: Range[] = [];
    const held = await heldMarks(log, this.#marks, bounds);
    for (const [partition, { end }] of bounds.entries()) {
      const mark = held[partition];
      if (mark !== undefined) {
        const read = await endOfGapless(log, own, { partition, start: mark.offset, end });
        this.#ownSeen[partition] = (this.#ownSeen[partition] ?? 0) + read - mark.offset;
        ranges.push({ partition, start: read, end });
      } else {
        this.#replaced.add(partition);
      }
    }
    const foreign = new Set<number>();
    const isOwn = (written: Written) => {
      if (!own.has(written)) return false;
      this.#ownSeen[written.partition] = (this.#ownSeen[written.partition] ?? 0) + 1;
      return true;
    };
    await log.scan(
      ranges,
      (touched) => {
        // Ids can be read only once.
        const ids = [...touched.ids];
        this.#touch({ ...touched, ids });
        for (const group of touched.replaces) foreign.add(group);
        for (const id of ids) foreign.add(groupOf(id));
      },
      isOwn,
    );
    for (const partition of bounds.keys()) {
      if (own.acknowledged(partition) > (this.#ownSeen[partition] ?? 0)) this.#replaced.add(partition);
    }
    this.#marks = await marksAtEnd(log, bounds, held);
    return foreign;
  }

  #partitionOf(block: number, partitions: number): number {
    return partitionOf(blockKey(datasets[this.#options.dataset].idPrefix, block), partitions);
  }
}

function isSame(before: Directory | undefined, now: Directory): boolean {
  return (
    before !== undefined && encodeDirectory({ ...before, runId: now.runId }).equals(encodeDirectory(now))
  );
}
