/**
 * Opens dead letters: decodes the rows in the refused bytes by the rules that hold now. For a letter about a message it
 * reads that message again, because the source topic keeps it whole.
 */
import type { Type } from 'avsc';
import type { LogBounds } from '../../kafka/bounds.ts';
import { type LogReader, OutsideLog } from '../../kafka/log.ts';
import { scan } from '../../kafka/scan.ts';
import { avroTypeOf } from '../../topics/avro-type.ts';
import { type DatasetName, datasetNames, datasets, type TopicNames } from '../../topics/catalog.ts';
import {
  ChunkDecoder,
  deleteColumns,
  RejectedMessage,
  recordColumns,
  wireHeaderBytes,
} from '../../topics/chunk.ts';
import type { FoundLetter } from '../../topics/dead-letter.ts';
import { type Registry, schemaText, unregistered } from '../../topics/registry.ts';
import { Chunker } from '../chunker.ts';
import { headerLineOf, layoutOf } from '../file-layout.ts';
import { datasetOf } from '../file-names.ts';

/** A record or a key as avsc represents it, by field name. */
export type Fields = Readonly<Record<string, unknown>>;

interface OpenedRows {
  readonly kind: 'rows';
  readonly dataset: DatasetName;
  readonly asOfMs: number;
  /** Time of the message, or of the row's refusal, in milliseconds since 1970. */
  readonly timeMs: number;
  readonly records: readonly Fields[];
  readonly deletes: readonly Fields[];
}

export type Opened =
  | OpenedRows
  | { readonly kind: 'refused'; readonly reason: string; readonly detail: string };

interface ChunkContent {
  readonly asOf: number;
  readonly records: Fields[];
  readonly deletes: Fields[];
  /** Groups of ids; see `ChunkHeader`. */
  readonly replaces?: readonly number[];
}

interface OpenerOptions {
  /** Sending needs registered schemas; looking registers none. */
  readonly purpose: 'looking' | 'sending';
  readonly reader: LogReader;
  readonly registry: Registry;
  readonly names: TopicNames;
  /** Bounds of the existing source topics. */
  readonly bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>;
}

export class LetterOpener {
  readonly #options: OpenerOptions;
  readonly #codecs = new Map<DatasetName, { type: Type; schemaId: number; decoder: ChunkDecoder }>();
  readonly #rowReaders = new Map<string, (row: Buffer) => Buffer | { reason: string; detail: string }>();

  constructor(options: OpenerOptions) {
    this.#options = options;
  }

  /** @throws ReelflowError brokerUnreachable, registryUnreachable, accessRefused, undecodableBatch */
  async open(letter: FoundLetter): Promise<Opened> {
    try {
      return 'file' in letter.source
        ? await this.#openRow(letter, letter.source)
        : await this.#openMessage(letter, letter.source);
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      return { kind: 'refused', reason: thrown.reason, detail: thrown.message };
    }
  }

  /** A chunk of these rows, written with our own schema. */
  async encode(
    dataset: DatasetName,
    content: ChunkContent & { runId: string; chunk: number },
  ): Promise<Buffer> {
    const { type, schemaId } = await this.#codecOf(dataset);
    const header = Buffer.alloc(wireHeaderBytes);
    header.writeInt32BE(schemaId, 1);
    return Buffer.concat([header, type.toBuffer(content)]);
  }

  /** Decodes values of a dataset's topic. */
  async decoderOf(dataset: DatasetName): Promise<ChunkDecoder> {
    return (await this.#codecOf(dataset)).decoder;
  }

  /** The rows of a value of any registered version of the schema. @throws RejectedMessage */
  async decode(dataset: DatasetName, value: Buffer | null): Promise<ChunkContent> {
    const { decoder } = await this.#codecOf(dataset);
    const own = await decoder.asOwn(value);
    // avsc checks neither ids nor UTF-8; this decoder refuses what processors refuse.
    const wanted = datasets[dataset].columns.map(({ name }) => name);
    decoder.decode(own, recordColumns(dataset, wanted), deleteColumns(dataset));
    return { replaces: [], ...(decoder.read(own) as ChunkContent) };
  }

  async #openRow(letter: FoundLetter, { file }: { file: string }): Promise<Opened> {
    const dataset = datasetOf(file);
    if (dataset === undefined) return refused('not_replayable', `${file} is not named after a dataset`);
    if (letter.originalBytes > letter.value.length) {
      return refused('cut', `the letter kept only ${letter.value.length} of ${letter.originalBytes} bytes`);
    }
    const value = (await this.#rowReaderOf(dataset, letter.columns))(letter.value);
    if (!Buffer.isBuffer(value)) return refused(value.reason, value.detail);
    const { records } = await this.decode(dataset, value);
    return { kind: 'rows', dataset, asOfMs: letter.timeMs, timeMs: letter.timeMs, records, deletes: [] };
  }

  async #openMessage(
    letter: FoundLetter,
    { topic, partition, offset }: { topic: string; partition: number; offset: number },
  ): Promise<Opened> {
    const { names, bounds, reader } = this.#options;
    const dataset = datasetNames.find((known) => names.source(known) === topic);
    if (dataset === undefined) {
      return refused(
        'not_replayable',
        `${topic} holds no records; run \`reelflow reset\` to replace a lost delta`,
      );
    }
    const { start, end } = bounds.get(topic)?.get(partition) ?? { start: 0, end: 0 };
    const gone = refused(
      'source_gone',
      `${topic}/${partition} no longer has this message at offset ${offset}`,
    );
    if (offset < start || offset >= end) return gone;
    try {
      for await (const { messages } of scan(reader, topic, [{ partition, start: offset, end: offset + 1 }])) {
        const [message] = messages;
        const value = message?.value ?? Buffer.alloc(0);
        const isThat =
          value.length === letter.originalBytes &&
          value.subarray(0, letter.value.length).equals(letter.value);
        if (message === undefined || !isThat) return gone;
        const { asOf, records, deletes, replaces = [] } = await this.decode(dataset, message.value);
        if (replaces.length > 0) {
          return refused(
            'replaces_groups',
            'it replaces whole groups of ids: the next `reelflow replay` sends them again',
          );
        }
        return { kind: 'rows', dataset, asOfMs: asOf, timeMs: message.timestampMs, records, deletes };
      }
    } catch (thrown) {
      if (!(thrown instanceof OutsideLog)) throw thrown;
    }
    return gone;
  }

  /** Encodes lines with the producers' own chunker. */
  async #rowReaderOf(dataset: DatasetName, columns: readonly string[] | undefined) {
    const spec = datasets[dataset];
    const header = columns?.join('\t') ?? headerLineOf(spec);
    const key = `${dataset}\n${header}`;
    const known = this.#rowReaders.get(key);
    if (known !== undefined) return known;
    const { schemaId } = await this.#codecOf(dataset);
    let result: Buffer | { reason: string; detail: string } | undefined;
    const chunker: Chunker = new Chunker({
      dataset: spec,
      layout: layoutOf(spec, Buffer.from(header), 'the dead letter'),
      shards: 1,
      schemaId,
      runId: 'dead-letter',
      asOf: new Date(0),
      onChunk: (chunk) => {
        result = Buffer.from(chunk.value);
        chunker.recycle(chunk);
      },
      onRejected: (rejected) => {
        result = rejected;
      },
    });
    chunker.push(Buffer.from(`${header}\n`));
    const read = (row: Buffer) => {
      result = undefined;
      chunker.push(Buffer.concat([row, Buffer.from('\n')]));
      chunker.cut();
      return result ?? { reason: 'columns', detail: 'no row' };
    };
    this.#rowReaders.set(key, read);
    return read;
  }

  async #codecOf(dataset: DatasetName) {
    const known = this.#codecs.get(dataset);
    if (known !== undefined) return known;
    const { registry, names, purpose } = this.#options;
    const schemaId =
      purpose === 'sending'
        ? await registry.register(names.source(dataset), `imdb.${dataset}`)
        : unregistered;
    const type = avroTypeOf(JSON.parse(schemaText(`imdb.${dataset}`)));
    const codec = { type, schemaId, decoder: new ChunkDecoder(dataset, schemaId, registry) };
    this.#codecs.set(dataset, codec);
    return codec;
  }
}

const refused = (reason: string, detail: string): Opened => ({ kind: 'refused', reason, detail });
