/** Results that a peer left on a topic as changes: the last value of each key. */
import { createWriteStream } from 'node:fs';
import { finished } from 'node:stream/promises';
import type { Broker } from '../../kafka/client.ts';
import { scanTopic } from '../../kafka/scan.ts';

/** Writes the last value of each key, JSON objects, a line each; a key whose last value is null is gone. */
export async function lastValues(broker: Broker, topic: string, path: string): Promise<void> {
  const last = new Map<string, string>();
  for await (const { messages } of scanTopic(broker, topic)) {
    for (const { key, value } of messages) {
      if (value === null) last.delete(String(key));
      else last.set(String(key), value.toString());
    }
  }
  const file = createWriteStream(path);
  for (const line of last.values()) file.write(`${line}\n`);
  file.end();
  await finished(file);
}
