/** Results that a peer left on a topic as changes: the last value of each key. */
import { createWriteStream } from 'node:fs';
import { finished } from 'node:stream/promises';
import type { Broker } from '../../kafka/client.ts';
import { LogReader, logBounds } from '../../kafka/log.ts';

/** Writes the last value of each key, JSON objects, a line each; a key whose last value is null is gone. */
export async function lastValues(broker: Broker, topic: string, path: string): Promise<void> {
  const last = new Map<string, string>();
  const bounds = (await logBounds(broker, [topic])).get(topic) ?? new Map();
  const reader = new LogReader(broker);
  try {
    for (const [partition, { start, end }] of bounds) {
      for (let next = start; next < end; ) {
        for (const fetched of await reader.fetch([{ topic, partition, next }], { waitMs: 500 })) {
          for (const { offset, key, value, isMarker } of fetched.messages) {
            next = offset + 1;
            if (isMarker) continue;
            if (value === null) last.delete(String(key));
            else last.set(String(key), value.toString());
          }
        }
      }
    }
  } finally {
    await reader.close();
  }
  const file = createWriteStream(path);
  for (const line of last.values()) file.write(`${line}\n`);
  file.end();
  await finished(file);
}
