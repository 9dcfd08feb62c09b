/** What a replay tells Prometheus. It is told several times a second, never per record. */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { ReplayProgress } from './file-replay.ts';

type Count = 'read' | 'rejected' | 'chunks' | 'bytes';

export class ReplayMetrics {
  readonly #records: Counter<'dataset' | 'fate'>;
  readonly #chunks: Counter<'dataset'>;
  readonly #bytes: Counter<'dataset'>;
  readonly #deadLetters: Counter<'reason'>;
  readonly #fileBytes: Gauge<'dataset'>;
  readonly #fileBytesRead: Gauge<'dataset'>;
  readonly #told = new Map<string, Readonly<Record<Count, number>>>();

  constructor(registry: Registry) {
    const registers = [registry];
    this.#records = new Counter({
      name: 'reelflow_replay_records_total',
      help: 'Rows that became records of chunks, or were rejected; with what earlier attempts of a resumed run did',
      labelNames: ['dataset', 'fate'],
      registers,
    });
    this.#chunks = new Counter({
      name: 'reelflow_replay_chunks_total',
      help: 'Chunks that are acknowledged',
      labelNames: ['dataset'],
      registers,
    });
    this.#bytes = new Counter({
      name: 'reelflow_replay_chunk_bytes_total',
      help: 'Bytes of the chunks that are acknowledged, before compression',
      labelNames: ['dataset'],
      registers,
    });
    this.#deadLetters = new Counter({
      name: 'reelflow_replay_dead_letters_total',
      help: 'Rows that became a dead letter; one that a resumed run reads again counts again',
      labelNames: ['reason'],
      registers,
    });
    this.#fileBytes = new Gauge({
      name: 'reelflow_replay_file_bytes',
      help: 'Size of the file on disk',
      labelNames: ['dataset'],
      registers,
    });
    this.#fileBytesRead = new Gauge({
      name: 'reelflow_replay_file_read_bytes',
      help: 'How much of the file is read',
      labelNames: ['dataset'],
      registers,
    });
  }

  progress(now: ReplayProgress): void {
    const { dataset } = now;
    const before = this.#told.get(dataset) ?? { read: 0, rejected: 0, chunks: 0, bytes: 0 };
    const more = (count: Count) => Math.max(0, now[count] - before[count]);
    this.#told.set(dataset, now);
    this.#records.inc({ dataset, fate: 'rejected' }, more('rejected'));
    this.#records.inc({ dataset, fate: 'produced' }, Math.max(0, more('read') - more('rejected')));
    this.#chunks.inc({ dataset }, more('chunks'));
    this.#bytes.inc({ dataset }, more('bytes'));
    this.#fileBytes.set({ dataset }, now.bytesTotal);
    this.#fileBytesRead.set({ dataset }, now.bytesRead);
  }

  rejected(reason: string): void {
    this.#deadLetters.inc({ reason });
  }
}
