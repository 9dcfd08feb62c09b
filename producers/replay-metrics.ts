/** Replay metrics, updated several times a second, never per record. */
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
  readonly #reported = new Map<string, Readonly<Record<Count, number>>>();

  constructor(registry: Registry) {
    const registers = [registry];
    this.#records = new Counter({
      name: 'reelflow_replay_records_total',
      help: 'Rows produced as records or rejected, including earlier attempts of a resumed run',
      labelNames: ['dataset', 'fate'],
      registers,
    });
    this.#chunks = new Counter({
      name: 'reelflow_replay_chunks_total',
      help: 'Acknowledged chunks',
      labelNames: ['dataset'],
      registers,
    });
    this.#bytes = new Counter({
      name: 'reelflow_replay_chunk_bytes_total',
      help: 'Bytes of acknowledged chunks before compression',
      labelNames: ['dataset'],
      registers,
    });
    this.#deadLetters = new Counter({
      name: 'reelflow_replay_dead_letters_total',
      help: 'Rows sent to the dead-letter topic; rows that a resumed run reads again count again',
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
      help: 'Bytes of the file read',
      labelNames: ['dataset'],
      registers,
    });
  }

  progress(now: ReplayProgress): void {
    const { dataset } = now;
    const before = this.#reported.get(dataset) ?? { read: 0, rejected: 0, chunks: 0, bytes: 0 };
    const more = (count: Count) => Math.max(0, now[count] - before[count]);
    this.#reported.set(dataset, now);
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
