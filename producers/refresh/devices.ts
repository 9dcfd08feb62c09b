/**
 * The devices of `DatasetRefresh`: the dataset's topic, the topic of the index, and a file of the dump. Kafka and files
 * implement them, and so does the simulator.
 */
import type { LogBounds } from '../../kafka/bounds.ts';
import type { Range } from '../../kafka/scan.ts';
import type { BaseMark } from '../../topics/base.ts';
import type { GroupEntries, GroupEntry } from './group-entries.ts';
import type { DumpFindings } from './plan.ts';

/** A message of the dataset's topic. */
export interface Written {
  readonly partition: number;
  readonly offset: number;
  /** The run that wrote it. */
  readonly runId: string;
  /** Its number within run and partition. */
  readonly chunk: number;
}

export interface OffsetSet {
  has(offset: number): boolean;
}

/** The ids and groups that a message writes to. */
export interface Touched extends Written {
  /** Records and deletes. */
  readonly records: number;
  readonly replaces: Iterable<number>;
  /** Of records and of deletes. */
  readonly ids: Iterable<number>;
}

/** The dataset's topic. */
export interface SourceLog {
  /** By partition. */
  bounds(): Promise<readonly LogBounds[]>;
  /**
   * Hashes of the messages that the log holds in these ranges, by partition and offset. Messages with the same bytes have
   * different hashes if they were written at different times or appended by different leaders.
   */
  hashesOf(ranges: readonly Range[]): Promise<ReadonlyMap<number, ReadonlyMap<number, string>>>;
  /**
   * Calls `onTouched` for every message of the ranges that consumers apply, except those for which `isOwn` is true: these
   * need not be decoded.
   */
  scan(
    ranges: readonly Range[],
    onTouched: (touched: Touched) => void,
    isOwn?: (written: Written) => boolean,
  ): Promise<void>;
  /** Messages that consumers have refused, by the dead letters from these offsets on. */
  refusals(since: readonly number[]): Promise<Refusals>;
}

export interface Refusals {
  readonly places: readonly { readonly partition: number; readonly offset: number }[];
  /** Where the dead-letter topic ended, by partition. */
  readonly end: readonly number[];
}

/** A message of the index; without a value it removes its key. */
export interface IndexMessage {
  readonly key: string;
  readonly value: Buffer | null;
}

/** The topic of the index. */
export interface IndexLog {
  /** The newest value of each key. */
  readonly messages: ReadonlyMap<string, Buffer>;
  append(messages: readonly IndexMessage[]): Promise<void>;
}

/** The messages that a run has sent to the topic. */
export interface OwnMessages {
  /** Whether a message of the topic is one of them, at the offset that was acknowledged. */
  has(written: Written): boolean;
  /** The number of acknowledged messages, which the partition must hold at least. */
  acknowledged(partition: number): number;
  /** Their offsets, if none between the first and the last can be missing when these two are there. */
  gapless(partition: number): OffsetSet | undefined;
}

/** A file of the dump, which sends its rows to the topic. */
export interface DumpFile {
  readonly own: OwnMessages;
  /** Reads the file to its end and compares every group. Sends nothing. */
  compare(index: GroupEntries): Promise<DumpFindings>;
  /**
   * Sends the groups that `compare` found different, and empties others. Returns when all messages are acknowledged.
   * @param whole also sends the groups that `compare` found unchanged
   */
  send(emptied: readonly number[], whole: boolean): Promise<void>;
  /** Sends these groups again, or empties them; calls `onSent` with the entry of each that has rows. */
  sendAgain(groups: ReadonlySet<number>, onSent: (group: number, entry: GroupEntry) => void): Promise<void>;
  /**
   * Sends a mark of a base to every partition. Sends an end only where the broker still has all messages of this run.
   * @returns its offsets; undefined where the mark was refused or its offset is not known
   */
  mark(mark: BaseMark['mark']): Promise<readonly (number | undefined)[]>;
}
