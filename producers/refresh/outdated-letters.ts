/**
 * Marks dead letters as superseded that a refresh has made outdated: it has sent their groups of ids again, or emptied them.
 * So each row of such a letter was corrected, is gone, or was refused again and has a letter of this run. The mark closes the
 * letter for every reader.
 */
import type { Producer } from 'kafkajs';
import type { Broker } from '../../kafka/client.ts';
import type { LogReader } from '../../kafka/log.ts';
import { type Range, scan } from '../../kafka/scan.ts';
import { type DatasetName, datasetNames, datasets, type TopicNames } from '../../topics/catalog.ts';
import { type FoundLetter, markMessage, OpenLetters } from '../../topics/dead-letter.ts';
import { groupOf } from '../../topics/id-groups.ts';
import { datasetOf } from '../file-names.ts';
import { LineId } from '../line-id.ts';
import { sendServed } from '../producer.ts';
import { boundsOf } from './kafka-logs.ts';

/** The subject of an open letter. */
interface OpenLetter {
  readonly dataset: DatasetName;
  /** Group of a row's id; `stray` for a row without one; `message` for a message that a consumer refused. */
  readonly of: number | 'stray' | 'message';
}

/** What a refresh of a dataset has replaced. */
interface Replaced {
  group(group: number): boolean;
  /** Whether the rows without an id are others than before. */
  readonly strays: boolean;
  /** Whether anything was sent. Every group of a refused message was then sent, because its index entry was unknown. */
  readonly messages: boolean;
}

/** Offsets of one mark. */
const offsetsMax = 10_000;

interface OutdatedLettersOptions {
  readonly broker: Broker;
  readonly reader: LogReader;
  readonly producer: Producer;
  /** Once it is aborted, nothing waits for the end of an outage. */
  readonly signal?: AbortSignal | undefined;
  readonly names: TopicNames;
}

export class OutdatedLetters {
  readonly #options: OutdatedLettersOptions;
  readonly #ranges: readonly Range[];
  /** By partition and offset of the letter; read when the first dataset needs them. */
  #open: Promise<Map<number, Map<number, OpenLetter>>> | undefined;

  private constructor(options: OutdatedLettersOptions, ranges: readonly Range[]) {
    this.#options = options;
    this.#ranges = ranges;
  }

  /** Excludes letters that are written from now on: they belong to the run that begins. */
  static async open(options: OutdatedLettersOptions): Promise<OutdatedLetters> {
    const topic = options.names.deadLetter;
    const bounds = await boundsOf(options.broker, topic, options.signal);
    return new OutdatedLetters(
      options,
      [...bounds].map(([partition, { start, end }]) => ({ partition, start, end })),
    );
  }

  /** Marks the letters of a dataset. */
  async mark(dataset: DatasetName, replaced: Replaced): Promise<void> {
    if (!replaced.messages && !replaced.strays) return;
    this.#open ??= this.#read();
    for (const [partition, letters] of await this.#open) {
      const offsets = [...letters]
        .filter(([, letter]) => letter.dataset === dataset && isReplaced(letter, replaced))
        .map(([offset]) => offset);
      for (let at = 0; at < offsets.length; at += offsetsMax) {
        await this.#send(dataset, partition, offsets.slice(at, at + offsetsMax));
      }
    }
  }

  async #read(): Promise<Map<number, Map<number, OpenLetter>>> {
    const { reader, names } = this.#options;
    const open = new OpenLetters((letter) => openLetterOf(letter, names));
    for await (const { partition, messages } of scan(reader, names.deadLetter, this.#ranges)) {
      for (const message of messages) open.take({ ...message, partition });
    }
    return open.byPartition;
  }

  async #send(dataset: DatasetName, partition: number, offsets: readonly number[]): Promise<void> {
    const { producer, names, broker, signal } = this.#options;
    const topic = names.deadLetter;
    const { key, value, headers } = markMessage('superseded', offsets, new Date());
    const activity = `mark letters of ${dataset} in ${topic}/${partition}`;
    await sendServed(
      broker,
      producer,
      activity,
      { topic, messages: [{ partition, key, value, headers }] },
      signal,
    );
  }
}

function isReplaced({ of }: OpenLetter, { group, strays, messages }: Replaced): boolean {
  if (of === 'stray') return strays;
  return of === 'message' ? messages : group(of);
}

function openLetterOf({ source, value, columns }: FoundLetter, names: TopicNames): OpenLetter | undefined {
  if ('topic' in source) {
    const dataset = datasetNames.find((known) => names.source(known) === source.topic);
    return dataset && { dataset, of: 'message' };
  }
  const dataset = datasetOf(source.file);
  if (dataset === undefined) return undefined;
  const { idPrefix, columns: own } = datasets[dataset];
  const column = columns?.indexOf((own[0] as { name: string }).name) ?? 0;
  const id = new LineId(idPrefix, column).at(Buffer.concat([value, Buffer.from('\n')]), 0);
  return { dataset, of: id < 0 ? 'stray' : groupOf(id) };
}
