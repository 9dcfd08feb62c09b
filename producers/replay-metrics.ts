/** Replay metrics, updated several times a second, never per record. */
import { Metrics } from '../runtime/metrics.ts';
import type { ReplayProgress } from './file-replay.ts';

type Count = 'read' | 'rejected' | 'chunks' | 'bytes';

export class ReplayMetrics extends Metrics {
  readonly #records = this.counter(
    'reelflow_replay_records_total',
    'Rows produced as records or rejected, including earlier attempts of a resumed run',
    'dataset',
    'fate',
  );
  readonly #chunks = this.counter('reelflow_replay_chunks_total', 'Acknowledged chunks', 'dataset');
  readonly #bytes = this.counter(
    'reelflow_replay_chunk_bytes_total',
    'Bytes of acknowledged chunks before compression',
    'dataset',
  );
  readonly #deadLetters = this.counter(
    'reelflow_replay_dead_letters_total',
    'Rows sent to the dead-letter topic; rows that a resumed run reads again count again',
    'reason',
  );
  readonly #fileBytes = this.gauge('reelflow_replay_file_bytes', 'Size of the file on disk', 'dataset');
  readonly #fileBytesRead = this.gauge(
    'reelflow_replay_file_read_bytes',
    'Bytes of the file read',
    'dataset',
  );
  readonly #reported = new Map<string, Readonly<Record<Count, number>>>();

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
