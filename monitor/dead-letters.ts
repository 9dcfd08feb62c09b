/**
 * Reads dead letters: counts by kind and fate, and single letters. Changes nothing. It keeps a few numbers for each letter,
 * and the newest letters up to a bound.
 */
import { existingLogBounds, type LogBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import type { LogReader } from '../kafka/log.ts';
import { scan, scanAlone } from '../kafka/scan.ts';
import type { TopicNames } from '../topics/catalog.ts';
import { type Fate, type FoundLetter, readDeadLetter } from '../topics/dead-letter.ts';

/** Selects letters; an absent property matches all. */
export interface LetterFilter {
  readonly reason?: string;
  readonly stage?: string;
  /** Source topic, or file name. */
  readonly source?: string;
}

/** Letters with the same stage, reason and source. */
export interface LetterGroup {
  readonly stage: string;
  readonly reason: string;
  /** Source topic, or file name. */
  readonly source: string;
  letters: number;
  /** Letters that `dlq replay` has not handled yet. */
  open: number;
  replayed: number;
  superseded: number;
  /** Time of the newest, in milliseconds since 1970. */
  newestMs: number;
  /** Position of the newest on the dead-letter topic, as `partition:offset`. */
  newest: string;
}

export interface Letters {
  readonly groups: readonly LetterGroup[];
  /** The newest letters, newest first, with truncated values. */
  readonly latest: readonly (FoundLetter & { readonly fate: Fate | 'open' })[];
  /** Messages on the topic that are not dead letters. */
  readonly foreign: number;
}

/** The file of a row, or the topic of a message. */
export function sourceName({ source }: FoundLetter): string {
  return 'file' in source ? source.file : source.topic;
}

/** Whether the filter selects the letter. */
export function matches(letter: FoundLetter, { reason, stage, source }: LetterFilter): boolean {
  return (
    (reason === undefined || letter.reason === reason) &&
    (stage === undefined || letter.stage === stage) &&
    (source === undefined || sourceName(letter) === source)
  );
}

/** Bound of the value of a kept letter. */
const valueBytesMax = 2_000;

interface Known {
  readonly group: LetterGroup;
  fate: Fate | 'open';
}

/**
 * The dead letters up to now. `read` continues at its last position, so repeated calls read each letter once. It starts
 * again when the topic was recreated.
 */
export class DeadLetterView {
  readonly #broker: Broker;
  readonly #topic: string;
  readonly #filter: LetterFilter;
  readonly #latestMax: number;
  #next = new Map<number, number>();
  #known = new Map<string, Known>();
  #groups = new Map<string, LetterGroup>();
  #latest: FoundLetter[] = [];
  #foreign = 0;

  constructor(broker: Broker, names: TopicNames, options: { filter?: LetterFilter; latestMax: number }) {
    this.#broker = broker;
    this.#topic = names.deadLetter;
    this.#filter = options.filter ?? {};
    this.#latestMax = options.latestMax;
  }

  /** Reads up to the current ends. A missing topic counts as empty. @throws ReelflowError brokerUnreachable */
  async read(signal?: AbortSignal): Promise<Letters> {
    const bounds =
      (await existingLogBounds(this.#broker, [this.#topic])).get(this.#topic) ?? new Map<number, LogBounds>();
    if ([...this.#next].some(([partition, next]) => next > (bounds.get(partition)?.end ?? 0))) this.#forget();
    const ranges = [...bounds].map(([partition, { start, end }]) => ({
      partition,
      start: Math.max(start, this.#next.get(partition) ?? 0),
      end,
    }));
    for await (const { partition, messages } of scanAlone(this.#broker, this.#topic, ranges, { signal })) {
      for (const message of messages) {
        this.#take({ ...message, partition });
        this.#next.set(partition, message.offset + 1);
      }
    }
    this.#trim();
    return {
      groups: [...this.#groups.values()].sort((a, b) => b.newestMs - a.newestMs),
      latest: this.#latest.map((letter) => ({
        ...letter,
        fate: this.#known.get(idOf(letter))?.fate ?? 'open',
      })),
      foreign: this.#foreign,
    };
  }

  #take(message: Parameters<typeof readDeadLetter>[0]): void {
    const entry = readDeadLetter(message);
    if (entry.kind === 'foreign') this.#foreign += 1;
    if (entry.kind === 'letter' && matches(entry.letter, this.#filter)) this.#add(entry.letter);
    if (entry.kind !== 'mark') return;
    for (const offset of entry.offsets) {
      const known = this.#known.get(`${message.partition}:${offset}`);
      if (known === undefined) continue;
      known.group[known.fate] -= 1;
      known.group[entry.fate] += 1;
      known.fate = entry.fate;
    }
  }

  #add(letter: FoundLetter): void {
    const { stage, reason, timeMs } = letter;
    const source = sourceName(letter);
    const key = JSON.stringify([stage, reason, source]);
    const counts = { letters: 0, open: 0, replayed: 0, superseded: 0, newestMs: 0, newest: '' };
    const group = this.#groups.get(key) ?? { stage, reason, source, ...counts };
    this.#groups.set(key, group);
    group.letters += 1;
    group.open += 1;
    if (timeMs >= group.newestMs) {
      group.newestMs = timeMs;
      group.newest = idOf(letter);
    }
    this.#known.set(idOf(letter), { group, fate: 'open' });
    // A copy, because the value is a slice of the whole fetch response.
    this.#latest.push({ ...letter, value: Buffer.from(letter.value.subarray(0, valueBytesMax)) });
    if (this.#latest.length > 2 * this.#latestMax) this.#trim();
  }

  #trim(): void {
    this.#latest = this.#latest
      .sort((a, b) => b.timeMs - a.timeMs || b.offset - a.offset)
      .slice(0, this.#latestMax);
  }

  #forget(): void {
    this.#next = new Map();
    this.#known = new Map();
    this.#groups = new Map();
    this.#latest = [];
    this.#foreign = 0;
  }
}

/** `partition:offset` on the dead-letter topic. */
export function idOf({ partition, offset }: { partition: number; offset: number }): string {
  return `${partition}:${offset}`;
}

/** One letter by its position, with its whole value; undefined when there is none. @throws ReelflowError brokerUnreachable */
export async function readLetter(
  broker: Broker,
  reader: LogReader,
  names: TopicNames,
  { partition, offset }: { partition: number; offset: number },
): Promise<FoundLetter | undefined> {
  const bounds = (await existingLogBounds(broker, [names.deadLetter])).get(names.deadLetter)?.get(partition);
  if (bounds === undefined || offset < bounds.start || offset >= bounds.end) return undefined;
  const range = { partition, start: offset, end: offset + 1 };
  for await (const { messages } of scan(reader, names.deadLetter, [range])) {
    const [message] = messages;
    if (message === undefined) continue;
    const entry = readDeadLetter({ ...message, partition });
    return entry.kind === 'letter' ? entry.letter : undefined;
  }
  return undefined;
}
