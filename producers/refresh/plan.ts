/**
 * Plans what a refresh of one dataset sends, and refuses implausible dumps. The plan is a pure function of the entries of the
 * index and of the dump.
 */
import { counted } from '../../runtime/counted.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { type DatasetName, datasets, idText } from '../../topics/catalog.ts';
import type { Strays } from '../../topics/dump-index.ts';
import { blockOfGroup } from '../../topics/id-groups.ts';
import { entryState, type GroupEntries, idsIn, idsOf } from './group-entries.ts';

interface Tally {
  groups: number;
  ids: number;
}

/** Ids count if they have at least one row that is not refused. */
export interface DatasetPlan {
  /** Rows of the dump. */
  readonly rows: number;
  /** Groups of another hash, and all of their ids that are in both: the hash of a group does not show which ids changed. */
  readonly changed: Tally;
  /** Groups and ids that the index does not have. */
  readonly new: Tally;
  /** Groups and ids that the dump does not have. */
  readonly vanished: Tally;
  /** Groups whose rows on the topic the index does not know; ids that they may hold. */
  readonly unknown: Tally;
  /** Rows that are refused, of the groups that are sent. */
  readonly refused: number;
  /** Ids of the index. */
  readonly idsBefore: number;
  /** Whether ids vanished, and all of them come after the last row of the file. */
  readonly isCut: boolean;
  /** Groups of the index that the dump lacks: to be emptied. Ascending. */
  readonly emptied: readonly number[];
  /** Whether the whole dump is sent as a base, because the topic holds many times its records. */
  readonly isBase: boolean;
}

/** The result of one pass over the dump. */
export interface DumpFindings {
  readonly rows: number;
  /** Rows in groups that stay as they are, without the refused ones. */
  readonly unchangedRows: number;
  readonly refused: number;
  /** Entries of the groups that are not as the index has them. */
  readonly changed: GroupEntries;
  /** Groups that are as the index has them. */
  isUnchanged(group: number): boolean;
  readonly lastId: number;
  readonly strays: Strays;
}

/** @param index the groups that the topic holds */
export function planOf(
  dataset: DatasetName,
  index: GroupEntries,
  dump: DumpFindings,
): Omit<DatasetPlan, 'isBase'> {
  const tally = (): Tally => ({ groups: 0, ids: 0 });
  const changed = tally();
  const fresh = tally();
  const vanished = tally();
  const unknown = tally();
  const emptied: number[] = [];
  let idsBefore = 0;
  let isCutByNumber = true;
  let isCutByText = true;
  const { idPrefix } = datasets[dataset];
  const last = dump.lastId < 0 ? '' : idText(idPrefix, dump.lastId);
  // Files are sorted as numbers or as texts.
  const noteVanished = (id: number) => {
    isCutByNumber &&= id > dump.lastId;
    isCutByText &&= idText(idPrefix, id) > last;
  };

  for (const { group, block, at } of index) {
    const [low, high] = [block.maskLow[at] as number, block.maskHigh[at] as number];
    const ids = idsIn(low, high);
    idsBefore += ids;
    const isUnknown = block.state[at] === entryState.unknown;
    if (isUnknown) {
      unknown.groups++;
      unknown.ids += ids;
    }
    if (dump.isUnchanged(group)) continue;
    const now = dump.changed.block(blockOfGroup(group));
    const isThere = dump.changed.stateOf(group) !== entryState.absent;
    const nowLow = now?.maskLow[at] ?? 0;
    const nowHigh = now?.maskHigh[at] ?? 0;
    const goneLow = low & ~nowLow;
    const goneHigh = high & ~nowHigh;
    vanished.ids += idsIn(goneLow, goneHigh);
    if (isCutByNumber || isCutByText) for (const id of idsOf(group, goneLow, goneHigh)) noteVanished(id);
    if (!isThere) {
      emptied.push(group);
      vanished.groups++;
      continue;
    }
    fresh.ids += idsIn(nowLow & ~low, nowHigh & ~high);
    if (isUnknown) continue;
    changed.groups++;
    changed.ids += idsIn(low & nowLow, high & nowHigh);
  }
  for (const { group, block, at } of dump.changed) {
    if (index.stateOf(group) !== entryState.absent) continue;
    fresh.groups++;
    fresh.ids += idsIn(block.maskLow[at] as number, block.maskHigh[at] as number);
  }
  const { rows, refused } = dump;
  const isCut = vanished.ids > 0 && (isCutByNumber || isCutByText);
  return { rows, changed, new: fresh, vanished, unknown, refused, idsBefore, isCut, emptied };
}

/** Percentage of the ids of a dataset. */
const maxRemovedDefault = 1;

export interface Guards {
  /** Percentage given by the user; with it, a file that looks cut off is accepted too. */
  readonly maxRemoved?: number;
  readonly allowOlder?: boolean;
}

/** The date of a dump, and the dates that it is compared with. */
interface DumpDate {
  readonly asOfMs: number;
  /** Of the index; undefined where there is none. */
  readonly beforeMs: number | undefined;
  readonly nowMs: number;
}

/** A file may be dated this much later than the broker's time: clocks of hosts differ. */
const clockToleranceMs = 60_000;

/**
 * Refuses a dump that lacks too many ids of the index.
 * @throws ReelflowError tooManyRemoved, cutFile
 */
export function checkPlan(dataset: DatasetName, file: string, plan: DatasetPlan, guards: Guards): void {
  const { vanished, idsBefore, isCut } = plan;
  if (vanished.ids === 0) return;
  const limit = guards.maxRemoved ?? maxRemovedDefault;
  const percent = (100 * vanished.ids) / idsBefore;
  const figures = `${file}: ${vanished.ids} of ${counted(idsBefore, 'id')} (${percent.toFixed(2)} %) have no valid rows`;
  if (isCut && guards.maxRemoved === undefined) {
    throw new ReelflowError('cutFile', `${dataset} looks cut off`, {
      detail: `${figures}, and all of them come after the last row of the file. Nothing was sent.`,
      hint: 'Fetch the file again. If these rows are really gone, run the same command with --max-removed and a percentage.',
    });
  }
  if (percent > limit) {
    throw new ReelflowError('tooManyRemoved', `${dataset} would lose too many ids`, {
      detail: `${figures}; the limit is ${limit} %. Nothing was sent.`,
      hint: 'Check the file. If these rows are really gone, raise the limit with --max-removed.',
    });
  }
}

/** @throws ReelflowError olderDump, futureDump */
export function checkDate(file: string, date: DumpDate, guards: Guards): void {
  const text = (ms: number) => new Date(ms).toISOString();
  const { asOfMs, beforeMs, nowMs } = date;
  if (asOfMs > nowMs + clockToleranceMs) {
    throw new ReelflowError('futureDump', `${file} is dated in the future`, {
      detail: `Its date is ${text(asOfMs)}, the broker's clock is at ${text(nowMs)}. Nothing was sent.`,
      hint: 'Check the modification time of the file, and the clock of the broker.',
    });
  }
  if (beforeMs !== undefined && asOfMs < beforeMs && guards.allowOlder !== true) {
    throw new ReelflowError('olderDump', `${file} is older than the dump that the topics hold`, {
      detail: `Its date is ${text(asOfMs)}, that of the dump in the topics is ${text(beforeMs)}. Nothing was sent.`,
      hint: 'Fetch a newer dump, or return to this one with --allow-older.',
    });
  }
}
