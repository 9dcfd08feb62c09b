/** A micro-batch while it is open: chunks are decoded into columns as they arrive, and counted by source topic. */
import type { BaseMark } from '../topics/base.ts';
import type { DatasetName } from '../topics/catalog.ts';
import { type ChunkDecoder, type ChunkHeader, RejectedMessage } from '../topics/chunk.ts';
import type { Dictionary } from '../topics/dictionary.ts';
import type { IdSet } from '../topics/id-set.ts';
import { proofHashOf } from '../topics/log-proof.ts';
import type { Ownership } from '../topics/ownership.ts';
import type { Gap } from '../topics/position.ts';
import { StagedRows } from './staged-rows.ts';

/** The message before a position. Reading it again proves that the log is still the same one. */
export interface LastMessage {
  readonly runId: string;
  readonly chunk: number;
  /** By `proofHashOf`. */
  readonly hash: string;
}

/** The part of one source topic in a micro-batch. */
export interface SourceProgress {
  readonly topic: string;
  readonly dataset: DatasetName;
  /** Next offset before and after. */
  readonly from: number;
  to: number;
  /** Offsets that the log lost before the first message. */
  readonly gap?: Gap;
  /** Whether a message was refused. */
  hasRefused?: true;
  /** The base whose begin is the first message. */
  beginsBase?: string;
  /** The base whose end was read last, and the offset behind it. */
  endsBase?: { readonly id: string; readonly next: number };
  records: number;
  rejected: number;
  messages: number;
  /** Timestamp of the newest message, in milliseconds since 1970. */
  recordTimeMs: number;
  /** The last message, with its whole value: hashing every message would be wasted work. */
  last: { runId: string; chunk: number; timestampMs: number; value: Buffer | null };
}

/** What a store knows without a query. */
export interface StoreMemory {
  /** Titles of which the store may hold rows, by dataset. Contains every title of which it does. */
  readonly present: ReadonlyMap<DatasetName, IdSet>;
  readonly dictionary: Dictionary;
}

export interface SourceMessage {
  readonly topic: string;
  readonly dataset: DatasetName;
  readonly offset: number;
  readonly timestampMs: number;
  readonly value: Buffer | null;
}

export interface RejectedSource {
  readonly message: SourceMessage;
  readonly rejection: RejectedMessage;
}

export class MicroBatch {
  readonly staged = new Map<DatasetName, StagedRows>();
  readonly sources = new Map<string, SourceProgress>();
  readonly rejected: RejectedSource[] = [];
  records = 0;
  bytes = 0;
  /** Timestamp of the newest message. */
  recordTimeMs = 0;

  readonly #shard: number;
  readonly #memory: StoreMemory;
  readonly #projection: ReadonlyMap<DatasetName, readonly string[]>;
  readonly #ownership: Ownership;
  /** The rows of the micro-batch, not the micro-batch: that would keep the one before it alive, and so all before. */
  readonly #spent: ReadonlyMap<DatasetName, StagedRows> | undefined;

  /**
   * @param ownership of the source topics
   * @param spent an applied micro-batch of the same store, whose memory is reused
   */
  constructor(
    shard: number,
    memory: StoreMemory,
    projection: ReadonlyMap<DatasetName, readonly string[]>,
    ownership: Ownership,
    spent?: MicroBatch,
  ) {
    this.#ownership = ownership;
    this.#spent = spent?.staged;
    this.#shard = shard;
    this.#memory = memory;
    this.#projection = projection;
  }

  get isEmpty(): boolean {
    return this.sources.size === 0;
  }

  /**
   * Adds the rows of a message; one that cannot be decoded is rejected.
   * @param decoder the decoder of its dataset
   * @param value in our own schema: the message's value, or what `ChunkDecoder.resolve` made of it
   */
  add(message: SourceMessage, decoder: ChunkDecoder, value: Buffer): void {
    let staged = this.staged.get(message.dataset);
    if (staged === undefined) {
      const wanted = this.#projection.get(message.dataset) ?? [];
      staged = new StagedRows(
        message.dataset,
        wanted,
        Object.fromEntries(wanted.map((column) => [column, this.#memory.dictionary])),
        this.#spent?.get(message.dataset),
      );
      this.staged.set(message.dataset, staged);
    }
    const { records, deletes } = staged;
    const firstRecord = records.length;
    const firstDelete = deletes.length;
    let header: ChunkHeader;
    try {
      header = decoder.decode(value, records, deletes, {
        ownership: this.#ownership,
        partition: this.#shard,
      });
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      this.reject(message, thrown);
      return;
    }
    staged.replace(header.replaces, firstRecord);
    staged.classify(firstRecord, this.#memory.present.get(message.dataset) as IdSet);
    staged.classifyDeletes(firstDelete);
    const count = header.records + header.deletes;
    const source = this.#advance(message, { runId: header.runId, chunk: header.chunk }, count, 0);
    if (header.base !== undefined) noteMark(source, header.base, message.offset);
    this.records += count;
  }

  /** Counts a message that cannot be applied. It becomes a dead letter with this micro-batch. */
  reject(message: SourceMessage, rejection: RejectedMessage): void {
    this.rejected.push({ message, rejection });
    const { records } = rejection;
    this.#advance(message, { runId: '', chunk: -1 }, records, records).hasRefused = true;
  }

  /** Skips an offset that holds no message. */
  pass(message: SourceMessage): void {
    this.#advance(message, { runId: '', chunk: -1 }, 0, 0);
  }

  /** Starts a source after messages that its log has lost. */
  lose(topic: string, dataset: DatasetName, gap: Gap): void {
    const [from, to] = gap;
    const none = { records: 0, rejected: 0, messages: 0, recordTimeMs: 0 };
    const last = { runId: '', chunk: -1, timestampMs: 0, value: null };
    this.sources.set(topic, { topic, dataset, from, to, gap, ...none, last });
  }

  seal(): void {
    for (const staged of this.staged.values()) staged.seal();
  }

  #advance(
    message: SourceMessage,
    chunk: { runId: string; chunk: number },
    records: number,
    rejected: number,
  ): SourceProgress {
    let source = this.sources.get(message.topic);
    const last = { ...chunk, timestampMs: message.timestampMs, value: message.value };
    if (source === undefined) {
      const { topic, dataset, offset } = message;
      const none = { records: 0, rejected: 0, messages: 0, recordTimeMs: 0 };
      source = { topic, dataset, from: offset, to: offset, ...none, last };
      this.sources.set(message.topic, source);
    }
    source.to = message.offset + 1;
    source.records += records;
    source.rejected += rejected;
    source.messages += 1;
    source.recordTimeMs = Math.max(source.recordTimeMs, message.timestampMs);
    source.last = last;
    this.bytes += message.value?.length ?? 0;
    this.recordTimeMs = Math.max(this.recordTimeMs, message.timestampMs);
    return source;
  }
}

/** A begin is the first message of its micro-batch (`Shard.receive`), so the counts before it are those of the store. */
function noteMark(source: SourceProgress, { id, mark }: BaseMark, offset: number): void {
  if (mark === 'end') source.endsBase = { id, next: offset + 1 };
  else if (source.from === offset) source.beginsBase = id;
}

/** With the hash by which a store proves the log. */
export function lastMessageOf(last: SourceProgress['last']): LastMessage {
  return { runId: last.runId, chunk: last.chunk, hash: proofHashOf(last) };
}
