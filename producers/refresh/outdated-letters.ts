/**
 * Dead letters of earlier runs and of consumers that a refresh has made useless: it has sent their groups of ids again, or
 * emptied them, as its dump says. So each row of such a letter was corrected, is gone, or was refused once more and has a
 * letter of this run. They are marked as superseded, which closes them for every reader of the letters.
 */
import type { Producer } from 'kafkajs';
import type { Broker } from '../../kafka/client.ts';
import type { LogReader } from '../../kafka/log.ts';
import { scan } from '../../kafka/scan.ts';
import { type DatasetName, datasetNames, datasets, type TopicNames } from '../../topics/catalog.ts';
import { type FoundLetter, markMessage, OpenLetters } from '../../topics/dead-letter.ts';
import { groupOf } from '../../topics/id-groups.ts';
import { datasetOf } from '../file-names.ts';
import { LineId } from '../line-id.ts';
import { sendServed } from '../producer.ts';
import type { LogRange } from './devices.ts';
import { boundsOf } from './kafka-logs.ts';

/** What an open letter is about. */
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
  /** Whether anything was sent: then every group of a refused message was, because its index entry was unknown. */
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
  readonly #ranges: readonly LogRange[];
  /** By partition of their topic and offset; read when a dataset needs them first. */
  #open: Promise<Map<number, Map<number, OpenLetter>>> | undefined;

  private constructor(options: OutdatedLettersOptions, ranges: readonly LogRange[]) {
    this.#options = options;
    this.#ranges = ranges;
  }

  /** Letters that come later are of the run that begins now. */
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
