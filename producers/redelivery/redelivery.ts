/**
 * Redelivery sends the rows of dead letters to their topics, after their cause was corrected. A row keeps the moment of
 * its letter and is sent only if the topic holds no row of the same key with a later moment. So an old row never
 * overwrites a newer one, and repeated or killed runs send no row twice. `settlement.ts` defines moments and compares
 * rows. A mark on the dead-letter topic records settled letters; a letter that is still unusable stays as it is.
 */
import type { Producer } from 'kafkajs';
import { existingLogBounds, type LogBounds } from '../../kafka/bounds.ts';
import type { Broker } from '../../kafka/client.ts';
import { asBrokerError } from '../../kafka/failures.ts';
import { LogReader } from '../../kafka/log.ts';
import { type Range, scan } from '../../kafka/scan.ts';
import { type DatasetName, datasetNames, type TopicNames } from '../../topics/catalog.ts';
import { type Fate, type FoundLetter, markMessage, readDeadLetter } from '../../topics/dead-letter.ts';
import type { Registry } from '../../topics/registry.ts';
import { withJournalFolder } from '../journal.ts';
import { createProducer, sendServed } from '../producer.ts';
import { type Fields, LetterOpener } from './letter-opener.ts';
import {
  compareMoments,
  keyOf,
  type LetterState,
  type OutgoingMessage,
  type Row,
  type Send,
  Settlement,
} from './settlement.ts';

export interface RedeliveryOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  /** State folder: its lock excludes replays of files. */
  readonly state: string;
  readonly select: (letter: FoundLetter) => boolean;
  /** Decode and compare, but send nothing. */
  readonly dryRun: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly done: number; readonly letters: number }) => void;
  /** Sends a message; default: to the broker. @returns its offset */
  readonly send?: Send;
}

export interface RedeliveryReport {
  /** Selected letters without a mark; the sum of the next three. */
  readonly letters: number;
  /** Letters with at least one row that is now the last of its key on the topic. */
  readonly replayed: number;
  /** Letters whose rows all have newer rows of the same key. */
  readonly superseded: number;
  /** Letters that stay as they are, by the reason why they are unusable now. */
  readonly refused: Readonly<Record<string, number>>;
  /** Selected letters that earlier runs marked. */
  readonly before: number;
  readonly rowsSent: number;
  readonly rowsSuperseded: number;
  readonly dryRun: boolean;
}

/** Letters opened at a time. */
const batchBytesMax = 4_000_000;
const batchLettersMax = 500;

/**
 * Redelivers the selected letters.
 * @throws ReelflowError busy, if a replay is running or other producers keep writing; brokerUnreachable,
 *   registryUnreachable, accessRefused, stateUnusable; the reason of `signal`
 */
export async function redeliver(options: RedeliveryOptions): Promise<RedeliveryReport> {
  const { broker, names } = options;
  return withJournalFolder(options, async () => {
    const reader = new LogReader(broker);
    const producer = createProducer(broker);
    try {
      await producer.connect().catch((thrown) => {
        throw asBrokerError(thrown, broker.endpoints);
      });
      const topics = datasetNames.map((dataset) => names.source(dataset));
      const bounds = await existingLogBounds(broker, [names.deadLetter, ...topics]);
      return await new Redelivery(options, reader, producer, bounds).run();
    } finally {
      await Promise.all([producer.disconnect().catch(() => undefined), reader.close()]);
    }
  });
}

class Redelivery {
  readonly #options: RedeliveryOptions;
  readonly #reader: LogReader;
  readonly #producer: Producer;
  readonly #opener: LetterOpener;
  readonly #settlement: Settlement;
  readonly #letterRanges: readonly Range[];
  /** Source messages that are dead letters, as `topic/partition/offset`: readers of the topic skip them. */
  readonly #dead = new Set<string>();
  #replayed = 0;
  #superseded = 0;
  /** Rows for which another letter has a newer row. */
  #rowsBehind = 0;
  readonly #refused: Record<string, number> = {};

  /** @param bounds of the existing source topics and of the dead-letter topic */
  constructor(
    options: RedeliveryOptions,
    reader: LogReader,
    producer: Producer,
    bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
  ) {
    const { broker, names, registry, signal, dryRun } = options;
    this.#options = options;
    this.#reader = reader;
    this.#producer = producer;
    this.#letterRanges = [...(bounds.get(names.deadLetter) ?? [])].map(([partition, each]) => ({
      partition,
      ...each,
    }));
    const purpose = dryRun ? 'looking' : 'sending';
    this.#opener = new LetterOpener({ purpose, reader, registry, names, bounds });
    this.#settlement = new Settlement({
      broker,
      reader,
      opener: this.#opener,
      dead: this.#dead,
      dryRun,
      signal,
      send: options.send ?? ((message) => this.#sendToBroker(message)),
    });
  }

  async run(): Promise<RedeliveryReport> {
    const { onProgress, signal, dryRun } = this.#options;
    const { chosen, before } = await this.#choose();
    const letters = [...chosen.values()].reduce((sum, offsets) => sum + offsets.size, 0);
    let done = 0;
    for (const [partition, offsets] of chosen) {
      let batch: FoundLetter[] = [];
      let bytes = 0;
      const flush = async () => {
        await this.#redeliver(batch);
        done += batch.length;
        onProgress?.({ done, letters });
        batch = [];
        bytes = 0;
      };
      for await (const letter of this.#lettersOf(partition, offsets)) {
        signal?.throwIfAborted();
        batch.push({ ...letter, value: Buffer.from(letter.value) });
        bytes += letter.originalBytes;
        if (batch.length >= batchLettersMax || bytes >= batchBytesMax) await flush();
      }
      if (batch.length > 0) await flush();
    }
    return {
      letters,
      replayed: this.#replayed,
      superseded: this.#superseded,
      refused: this.#refused,
      before,
      rowsSent: this.#settlement.rowsSent,
      rowsSuperseded: this.#settlement.rowsSuperseded + this.#rowsBehind,
      dryRun,
    };
  }

  /** Reads all letters and marks. @returns offsets of the selected letters without a mark, by partition */
  async #choose(): Promise<{ chosen: Map<number, Set<number>>; before: number }> {
    const { names, select, signal } = this.#options;
    const chosen = new Map<number, Set<number>>();
    let before = 0;
    const letters = scan(this.#reader, names.deadLetter, this.#letterRanges, { signal });
    for await (const { partition, messages } of letters) {
      const own = chosen.get(partition) ?? new Set();
      chosen.set(partition, own);
      for (const message of messages) {
        const entry = readDeadLetter({ ...message, partition });
        if (entry.kind === 'mark') {
          for (const offset of entry.offsets) if (own.delete(offset)) before += 1;
        } else if (entry.kind === 'letter') {
          const { source } = entry.letter;
          if ('topic' in source) this.#dead.add(`${source.topic}/${source.partition}/${source.offset}`);
          if (select(entry.letter)) own.add(message.offset);
        }
      }
    }
    return { chosen, before };
  }

  async *#lettersOf(partition: number, offsets: ReadonlySet<number>): AsyncGenerator<FoundLetter> {
    if (offsets.size === 0) return;
    const { names, signal } = this.#options;
    const sorted = [...offsets].sort((a, b) => a - b);
    const range = { partition, start: sorted[0] as number, end: (sorted.at(-1) as number) + 1 };
    for await (const { messages } of scan(this.#reader, names.deadLetter, [range], { signal })) {
      for (const message of messages) {
        if (!offsets.has(message.offset)) continue;
        const entry = readDeadLetter({ ...message, partition });
        if (entry.kind === 'letter') yield entry.letter;
      }
    }
  }

  /**
   * Settles one batch of letters: 1. opens them, 2. takes the row with the latest moment of each key, 3. sends those that
   * are later than the topic's, 4. marks the letters.
   */
  async #redeliver(letters: readonly FoundLetter[]): Promise<void> {
    const candidates = new Map<DatasetName, Map<string, Row>>();
    const states: LetterState[] = [];
    for (const letter of letters) {
      const opened = await this.#opener.open(letter);
      if (opened.kind === 'refused') {
        this.#refused[opened.reason] = (this.#refused[opened.reason] ?? 0) + 1;
        continue;
      }
      const state = { letter, isReplayed: false };
      states.push(state);
      const { dataset, asOfMs, timeMs } = opened;
      const moment =
        'topic' in letter.source
          ? { timeMs, partition: letter.source.partition, offset: letter.source.offset }
          : { timeMs };
      const rows = candidates.get(dataset) ?? new Map<string, Row>();
      candidates.set(dataset, rows);
      const add = (fields: Fields, isDelete: boolean) => {
        const key = keyOf(dataset, fields);
        const other = rows.get(key);
        if (other !== undefined) this.#rowsBehind += 1;
        if (other !== undefined && compareMoments(moment, other.moment) < 0) return;
        rows.set(key, { fields, isDelete, moment, asOfMs, letter: state });
      };
      for (const record of opened.records) add(record, false);
      // In a chunk, deletes come after the records.
      for (const key of opened.deletes) add(key, true);
    }
    for (const [dataset, rows] of candidates) {
      await this.#settlement.settle(dataset, this.#options.names.source(dataset), rows);
    }
    await this.#mark(states);
  }

  async #mark(states: readonly LetterState[]): Promise<void> {
    const { names, dryRun } = this.#options;
    const byFate = Map.groupBy(states, ({ isReplayed }): Fate => (isReplayed ? 'replayed' : 'superseded'));
    this.#replayed += byFate.get('replayed')?.length ?? 0;
    this.#superseded += byFate.get('superseded')?.length ?? 0;
    if (dryRun) return;
    for (const [fate, own] of byFate) {
      for (const [partition, marked] of Map.groupBy(own, ({ letter }) => letter.partition)) {
        const { value, headers } = markMessage(
          fate,
          marked.map(({ letter }) => letter.offset),
          new Date(),
        );
        await this.#sendToBroker({ topic: names.deadLetter, partition, key: null, value, headers });
      }
    }
  }

  async #sendToBroker({ topic, partition, key, value, headers }: OutgoingMessage): Promise<number> {
    const { broker, signal } = this.#options;
    const messages = [{ partition, key, value, headers: { ...headers } }];
    const activity = `append to ${topic}`;
    const [sent] = await sendServed(broker, this.#producer, activity, { topic, messages }, signal);
    return Number(sent?.baseOffset ?? Number.NaN);
  }
}
