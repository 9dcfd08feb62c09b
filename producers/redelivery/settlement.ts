/**
 * Settles keys: ensures that the last row of each key on its partition is the one with the latest moment. It sends
 * candidates that are later than the topic's rows. If another producer's newer row then lies before an older one, it
 * sends the newer row again, until the last row is the latest.
 *
 * The moment of a row is the position of its message, or the time of refusal for a row of a file. Messages sent here
 * carry the moment of their rows in a header.
 */
import { existingLogBounds, type LogBounds } from '../../kafka/bounds.ts';
import { type Broker, withAdmin } from '../../kafka/client.ts';
import type { LogReader } from '../../kafka/log.ts';
import { scan } from '../../kafka/scan.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import {
  blockKey,
  blockSize,
  type DatasetName,
  datasets,
  idText,
  messageBytesMax,
  partitionOf,
} from '../../topics/catalog.ts';
import { deleteColumns, RejectedMessage, recordColumns } from '../../topics/chunk.ts';
import type { FoundLetter } from '../../topics/dead-letter.ts';
import { groupOf } from '../../topics/id-groups.ts';
import { Ownership } from '../../topics/ownership.ts';
import type { Columns } from '../../topics/rows.ts';
import { newRunId } from '../journal.ts';
import type { Fields, LetterOpener } from './letter-opener.ts';

export type Send = (message: OutgoingMessage) => Promise<number>;

export interface OutgoingMessage {
  readonly topic: string;
  readonly partition: number;
  readonly key: string | null;
  readonly value: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

interface SettlementOptions {
  readonly broker: Broker;
  readonly reader: LogReader;
  readonly opener: LetterOpener;
  /** Source messages that are dead letters, as `topic/partition/offset`: readers of the topic skip them. */
  readonly dead: ReadonlySet<string>;
  readonly dryRun: boolean;
  readonly send: Send;
  readonly signal: AbortSignal | undefined;
}

export interface LetterState {
  readonly letter: FoundLetter;
  /** At least one of its rows is or was the last of its key. */
  isReplayed: boolean;
}

/** The age of a row; see the head of this file. */
interface Moment {
  readonly timeMs: number;
  /** Position of the message, for rows of messages. */
  readonly partition?: number;
  readonly offset?: number;
}

export interface Row {
  readonly fields: Fields;
  readonly isDelete: boolean;
  readonly moment: Moment;
  readonly asOfMs: number;
  /** Undefined for a newer row of the topic that is sent again. */
  readonly letter: LetterState | undefined;
}

/** A partition of a dataset's topic. */
interface Place {
  readonly dataset: DatasetName;
  readonly topic: string;
  readonly partition: number;
  /** Of the topic. */
  readonly partitions: number;
}

interface Found {
  readonly moment: Moment;
  readonly offset: number;
}

const momentHeader = 'moment';
const attemptsMax = 20;

/** Positive if `a` is later, by offset within a partition, else by time. */
export function compareMoments(a: Moment, b: Moment): number {
  if (a.offset !== undefined && b.offset !== undefined && a.partition === b.partition)
    return a.offset - b.offset;
  return a.timeMs - b.timeMs;
}

export class Settlement {
  readonly #options: SettlementOptions;
  readonly #runId = `redelivery-${newRunId()}`;
  #chunk = 0;
  rowsSent = 0;
  rowsSuperseded = 0;

  constructor(options: SettlementOptions) {
    this.#options = options;
  }

  /**
   * @param rows candidates by key, see `keyOf`
   * @throws ReelflowError busy, if other producers keep writing; brokerUnreachable, registryUnreachable, accessRefused
   */
  async settle(dataset: DatasetName, topic: string, rows: ReadonlyMap<string, Row>): Promise<void> {
    const partitions = (await existingLogBounds(this.#options.broker, [topic])).get(topic)?.size ?? 0;
    if (partitions === 0) {
      throw new ReelflowError('input', `Topic ${topic} does not exist`, {
        detail: 'The dead letters of its dataset need this topic.',
        hint: 'Replay the dataset first, which creates its topic.',
      });
    }
    const byPartition = Map.groupBy(rows, ([, { fields }]) =>
      partitionOf(blockOf(dataset, fields), partitions),
    );
    for (const [partition, own] of byPartition) {
      await this.#settlePartition({ dataset, topic, partition, partitions }, new Map(own));
    }
  }

  /** Sends until the last row of every key is the one with the latest moment. */
  async #settlePartition(place: Place, rows: ReadonlyMap<string, Row>): Promise<void> {
    const { dryRun } = this.#options;
    const start = await this.#startOf(place, rows);
    for (let attempt = 1; ; attempt++) {
      const { end } = await this.#boundsOf(place);
      const seen = await this.#look(place, start, end, rows);
      const due: Row[] = [];
      for (const [key, row] of rows) {
        const { latest, last } = seen.get(key) ?? {};
        const against = latest === undefined ? 1 : compareMoments(row.moment, latest.moment);
        if (against > 0) due.push(row);
        else if (latest !== undefined && last !== undefined && compareMoments(latest.moment, last) > 0) {
          due.push(await this.#rowAt(place, latest, key));
        }
        if (attempt === 1 && against < 0) this.rowsSuperseded += 1;
        // Equal: an earlier run sent it and ended before it marked the letter.
        if (attempt === 1 && against >= 0 && row.letter !== undefined) row.letter.isReplayed = true;
      }
      if (due.length === 0) return;
      this.rowsSent += due.filter(({ letter }) => letter !== undefined).length;
      if (dryRun) return;
      if ((await this.#sendRows(place, due)) === end) return;
      if (attempt === attemptsMax) {
        throw new ReelflowError('busy', 'Other producers keep writing to the topic', {
          detail: `${place.topic}/${place.partition}: new rows arrived during each of ${attemptsMax} attempts.`,
          hint: 'Run the command again when they have finished.',
        });
      }
    }
  }

  /** The first offset that can hold a row later than one of the candidates. */
  async #startOf(place: Place, rows: ReadonlyMap<string, Row>): Promise<number> {
    const { topic, partition } = place;
    const moments = [...rows.values()].map(({ moment }) => moment);
    const offsets = moments.flatMap((moment) =>
      moment.partition === partition ? [(moment.offset as number) + 1] : [],
    );
    const times = moments.flatMap((moment) => (moment.partition === partition ? [] : [moment.timeMs]));
    const { start, end } = await this.#boundsOf(place);
    let first = Math.min(end, ...offsets);
    if (times.length > 0) {
      const found = await withAdmin(this.#options.broker, (admin) =>
        admin.fetchTopicOffsetsByTimestamp(
          topic,
          times.reduce((a, b) => Math.min(a, b)),
        ),
      );
      first = Math.min(first, Number(found.find((one) => one.partition === partition)?.offset ?? start));
    }
    return Math.max(start, first);
  }

  async #boundsOf({ topic, partition }: Place): Promise<LogBounds> {
    const bounds = await existingLogBounds(this.#options.broker, [topic]);
    return bounds.get(topic)?.get(partition) ?? { start: 0, end: 0 };
  }

  /** For each of the keys: the row with the latest moment on the topic, and the moment of the last row. */
  async #look(
    { dataset, topic, partition, partitions }: Place,
    start: number,
    end: number,
    keys: ReadonlyMap<string, unknown>,
  ): Promise<Map<string, { latest: Found; last: Moment }>> {
    const seen = new Map<string, { latest: Found; last: Moment }>();
    const { idPrefix, columns, keyColumns } = datasets[dataset];
    const wanted = columns.slice(0, keyColumns).map(({ name }) => name);
    const decoder = await this.#options.opener.decoderOf(dataset);
    const ownership = new Ownership(idPrefix, partitions);
    const { reader, signal } = this.#options;
    for await (const { messages } of scan(reader, topic, [{ partition, start, end }], { signal })) {
      for (const { offset, value, timestampMs, headers, isUndecodable } of messages) {
        if (isUndecodable || this.#options.dead.has(`${topic}/${partition}/${offset}`)) continue;
        const [records, deletes] = [recordColumns(dataset, wanted), deleteColumns(dataset)];
        let groups: ReadonlySet<number>;
        try {
          const own = await decoder.asOwn(value);
          groups = new Set(decoder.decode(own, records, deletes, { ownership, partition }).replaces);
        } catch (thrown) {
          // Readers of the topic skip it, too.
          if (!(thrown instanceof RejectedMessage)) throw thrown;
          continue;
        }
        const moment = readMoment(headers?.[momentHeader]) ?? { timeMs: timestampMs, partition, offset };
        // A replaced group counts as a delete of every key that it could have.
        const replaced =
          groups.size === 0 ? [] : [...keys.keys()].filter((key) => groups.has(groupOf(idIn(key))));
        for (const key of [...keysIn(records, keyColumns), ...keysIn(deletes, keyColumns), ...replaced]) {
          if (!keys.has(key)) continue;
          const before = seen.get(key);
          const isLatest = before === undefined || compareMoments(moment, before.latest.moment) >= 0;
          seen.set(key, { latest: isLatest ? { moment, offset } : before.latest, last: moment });
        }
      }
    }
    return seen;
  }

  /** A row of the topic, to be sent again. */
  async #rowAt({ dataset, topic, partition }: Place, { offset, moment }: Found, key: string): Promise<Row> {
    const { reader, opener } = this.#options;
    for await (const { messages } of scan(reader, topic, [{ partition, start: offset, end: offset + 1 }])) {
      const content = await opener.decode(dataset, messages[0]?.value ?? null);
      const { asOf, records, deletes, replaces = [] } = content;
      const deleted = deletes.find((fields) => keyOf(dataset, fields) === key);
      const fields = deleted ?? records.findLast((record) => keyOf(dataset, record) === key);
      if (fields !== undefined) {
        return { fields, isDelete: deleted !== undefined, moment, asOfMs: asOf, letter: undefined };
      }
      if (replaces.includes(groupOf(idIn(key)))) {
        return { fields: keyFields(dataset, key), isDelete: true, moment, asOfMs: asOf, letter: undefined };
      }
    }
    throw new RangeError(`${topic}/${partition}: no ${key} at offset ${offset}`);
  }

  /** Rows of one moment share a message. @returns the offset of the first, or NaN if other messages lie between them */
  async #sendRows({ dataset, topic, partition }: Place, rows: readonly Row[]): Promise<number> {
    let first = Number.NaN;
    let next: number | undefined;
    for (const [moment, own] of Map.groupBy(rows, ({ moment }) => JSON.stringify(moment))) {
      for await (const value of this.#valuesOf(dataset, own)) {
        const [{ fields, letter }] = own as [Row];
        const offset = await this.#options.send({
          topic,
          partition,
          key: blockOf(dataset, fields),
          value,
          headers: {
            [momentHeader]: moment,
            ...(letter !== undefined && { deadLetter: `${letter.letter.partition}:${letter.letter.offset}` }),
          },
        });
        if (next === undefined) first = offset;
        else if (offset !== next) first = Number.NaN;
        next = offset + 1;
      }
    }
    return first;
  }

  async *#valuesOf(dataset: DatasetName, rows: readonly Row[]): AsyncGenerator<Buffer> {
    const value = await this.#options.opener.encode(dataset, {
      runId: this.#runId,
      chunk: this.#chunk,
      asOf: rows[0]?.asOfMs ?? 0,
      records: rows.filter(({ isDelete }) => !isDelete).map(({ fields }) => fields),
      deletes: rows.filter(({ isDelete }) => isDelete).map(({ fields }) => fields),
    });
    if (value.length <= messageBytesMax || rows.length === 1) {
      this.#chunk += 1;
      yield value;
      return;
    }
    const half = rows.length >> 1;
    yield* this.#valuesOf(dataset, rows.slice(0, half));
    yield* this.#valuesOf(dataset, rows.slice(half));
  }
}

/** The number in the id and the ordering, as `123/0`. */
export function keyOf(dataset: DatasetName, fields: Fields): string {
  const { columns, keyColumns } = datasets[dataset];
  const [id, ordering] = columns.map(({ name }) => fields[name]);
  return `${Number(String(id).slice(2))}/${keyColumns === 2 ? ordering : 0}`;
}

/** The number in the id of a key. */
const idIn = (key: string): number => Number(key.split('/')[0]);

/** The columns that a key is made of. */
function keyFields(dataset: DatasetName, key: string): Fields {
  const { columns, keyColumns, idPrefix } = datasets[dataset];
  const [id, ordering] = key.split('/').map(Number) as [number, number];
  const values = [idText(idPrefix, id), ordering];
  return Object.fromEntries(columns.slice(0, keyColumns).map(({ name }, at) => [name, values[at]]));
}

function keysIn(rows: Columns, keyColumns: 1 | 2): string[] {
  const ids = rows.int(0);
  const orderings = keyColumns === 2 ? rows.int(1) : undefined;
  return Array.from({ length: rows.length }, (_, row) => `${ids[row]}/${orderings?.[row] ?? 0}`);
}

function blockOf(dataset: DatasetName, fields: Fields): string {
  const { columns, idPrefix } = datasets[dataset];
  const id = String(fields[columns[0]?.name ?? '']);
  return blockKey(idPrefix, Math.floor(Number(id.slice(2)) / blockSize));
}

function readMoment(header: Buffer | undefined): Moment | undefined {
  if (header === undefined) return undefined;
  try {
    const { timeMs, partition, offset } = JSON.parse(header.toString()) as Record<string, unknown>;
    if (typeof timeMs !== 'number') return undefined;
    if (typeof partition !== 'number' || typeof offset !== 'number') return { timeMs };
    return { timeMs, partition, offset };
  } catch {
    return undefined;
  }
}
