/**
 * The refresh protocol of the product on a modelled topic and a modelled index, under seeded schedules: replays that are
 * killed between any two steps or run beside each other, foreign producers, requests that arrive twice and late, topics
 * that are recreated, shortened or trimmed, messages that consumers refuse, index messages that are lost, damaged or old.
 * Then one replay runs undisturbed, and the topic must hold exactly its dump.
 */
import { crc32 } from 'node:zlib';
import { DatasetRefresh } from '../../producers/refresh/dataset-refresh.ts';
import type { DumpFile } from '../../producers/refresh/devices.ts';
import { GroupEntries, type GroupEntry } from '../../producers/refresh/group-entries.ts';
import { OwnOffsets } from '../../producers/refresh/own-offsets.ts';
import { type Base, type BaseMark, followBase, type OpenBase } from '../../topics/base.ts';
import { blockKey, partitionOf } from '../../topics/catalog.ts';
import { blockOfGroup, groupOf, groupSize } from '../../topics/id-groups.ts';

const dataset = 'title.ratings';
const partitions = 2;
/** Two groups of one block, and one of a block in the other partition. */
const ids = [10_000, 10_001, 10_050, 10_051, 20_000, 20_001];

const noStrays = { rows: 0, low: 0, high: 0 };

type Rows = ReadonlyMap<number, string>;

/** By which the broker numbers the messages of a producer in a partition. */
interface Stamp {
  readonly identity: string;
  readonly sequence: number;
}

interface Message {
  readonly number: number;
  /** When it was sent: no two messages have the same time, but copies of one do. */
  readonly sentAt: number;
  /** Of the partition's leader that appended it. */
  readonly leaderEpoch: number;
  /** Consumers did not apply it, and there is a dead letter. */
  isRefused?: true;
  readonly runId: string;
  readonly stamp?: Stamp;
  readonly replaces: readonly number[];
  readonly rows: Rows;
  readonly mark?: BaseMark;
}

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A topic, and what happens to it. An offset that was trimmed stays, as undefined. */
class Topic {
  logs: (Message | undefined)[][] = Array.from({ length: partitions }, () => []);
  starts: number[] = Array(partitions).fill(0);
  leaderEpochs: number[] = Array(partitions).fill(0);
  #sent = 0;

  now(): number {
    return this.#sent++;
  }

  /** @returns its offset */
  append(partition: number, message: Omit<Message, 'leaderEpoch'>): number {
    const log = this.logs[partition] as (Message | undefined)[];
    return log.push({ ...message, leaderEpoch: this.leaderEpochs[partition] as number }) - 1;
  }

  appendForeign(id: number, value: string, replaces: readonly number[] = []): void {
    const rows = new Map([[id, value]]);
    const partition = partitionOfGroup(groupOf(id));
    this.append(partition, { number: -1, sentAt: this.now(), runId: 'foreign', replaces, rows });
  }

  /**
   * Whether the broker has the message before this one of its producer. One that has lost all of them takes any. That it
   * also refuses copies of messages that it has, at least of the newest ones, is not relied on.
   */
  takes(partition: number, { identity, sequence }: Stamp): boolean {
    const own = this.logs[partition]?.filter((message) => message?.stamp?.identity === identity) ?? [];
    return own.length === 0 || own.some((message) => (message?.stamp?.sequence ?? 0) >= sequence - 1);
  }

  /** What a consumer holds that reads everything that is left, of one partition from an offset on. */
  fold(only?: number, from = 0): Map<number, string> {
    const rows = new Map<number, string>();
    for (const [partition, log] of this.logs.entries()) {
      if (only !== undefined && only !== partition) continue;
      for (const message of log.slice(from)) {
        if (message === undefined || message.isRefused) continue;
        for (const id of rows.keys()) if (message.replaces.includes(groupOf(id))) rows.delete(id);
        for (const [id, value] of message.rows) rows.set(id, value);
      }
    }
    return rows;
  }

  /** Whole bases of a partition. */
  bases(partition: number): Base[] {
    const found: Base[] = [];
    let open: OpenBase | undefined;
    for (const [offset, message] of (this.logs[partition] ?? []).entries()) {
      if (message?.isRefused) open = undefined;
      if (message?.mark === undefined) continue;
      const followed = followBase(open, message.mark, offset);
      if (followed.whole !== undefined) found.push(followed.whole);
      open = followed.open;
    }
    return found;
  }
}

const partitionOfGroup = (group: number) => partitionOf(blockKey('tt', blockOfGroup(group)), partitions);
const hashOf = (message: Message) =>
  JSON.stringify([
    message.leaderEpoch,
    message.sentAt,
    message.runId,
    message.replaces,
    [...message.rows],
    message.mark,
  ]);

function groupsOf(rows: Rows): Map<number, Map<number, string>> {
  const groups = new Map<number, Map<number, string>>();
  for (const [id, value] of rows) {
    const group = groupOf(id);
    const own = groups.get(group) ?? new Map<number, string>();
    groups.set(group, own.set(id, value));
  }
  return groups;
}

function entryOfRows(rows: Rows): GroupEntry {
  const text = JSON.stringify([...rows]);
  let maskLow = 0;
  for (const id of rows.keys()) maskLow |= 1 << (id % groupSize);
  return { low: crc32(text) | 0, high: text.length, maskLow, maskHigh: 0, rows: rows.size };
}

/** The other end of every step: resolves when the schedule lets the process go on. */
type Turn = () => Promise<void>;

class World {
  readonly topic = new Topic();
  readonly index = new Map<string, Buffer>();
  /** Values that index keys had before. */
  readonly indexHistory: [string, Buffer | undefined][] = [];
  /** Requests that the network has kept a copy of. */
  readonly late: { readonly partition: number; readonly message: Omit<Message, 'leaderEpoch'> }[] = [];
  /** Places of refused messages. */
  readonly letters: { partition: number; offset: number }[] = [];
  /** How many of them a replay has read that ended since: it has sent their groups again. */
  lettersSettled = 0;
  sent = 0;
  runs = 0;

  /** Whether the next replay still needs a refused message before an offset. */
  hasOpenLetter(partition: number, before: number): boolean {
    const open = this.letters.slice(this.lettersSettled);
    return open.some((letter) => letter.partition === partition && letter.offset < before);
  }

  writeIndex(key: string, value: Buffer | null): void {
    this.indexHistory.push([key, this.index.get(key)]);
    if (value === null) this.index.delete(key);
    else this.index.set(key, value);
  }
}

interface ReplayOptions {
  readonly dump: Rows;
  readonly isDuplicated?: () => boolean;
  readonly full?: boolean;
  readonly settlementsMax?: number;
  readonly baseAbove?: number | undefined;
}

/** One replay, a turn before every step that others can see or come between. */
async function replay(
  world: World,
  turn: Turn,
  { dump, isDuplicated, full, settlementsMax = 3, baseAbove }: ReplayOptions,
): Promise<void> {
  const { topic } = world;
  const runId = `run ${world.runs++}`;
  const groups = groupsOf(dump);
  let lettersRead = 0;
  let renewals = 0;
  const own = new OwnOffsets({ renewals: () => renewals }, dataset, runId);
  /** Next sequence numbers, by partition. */
  let sequences: number[] = Array(partitions).fill(0);
  let different: number[] = [];
  const stampFor = (partition: number): Stamp => ({
    identity: `${runId}/${renewals}`,
    sequence: sequences[partition] as number,
  });
  // A run whose message is refused takes another identity, of which the broker knows no messages yet.
  const isRefused = (partition: number): boolean => {
    if (topic.takes(partition, stampFor(partition))) return false;
    renewals++;
    sequences = sequences.map(() => 0);
    return true;
  };
  const push = (partition: number, content: Pick<Message, 'replaces' | 'rows' | 'mark'>) => {
    const stamp = stampFor(partition);
    const message = { ...content, number: world.sent++, sentAt: topic.now(), runId, stamp };
    const offset = topic.append(partition, message);
    sequences[partition] = (sequences[partition] as number) + 1;
    own.add(partition, message.number, offset);
    return { message, offset };
  };
  const send = async (group: number, replaces = [group]) => {
    await turn();
    const partition = partitionOfGroup(group);
    isRefused(partition);
    const { message } = push(partition, { replaces, rows: groups.get(group) ?? new Map() });
    if (isDuplicated?.()) world.late.push({ partition, message });
  };
  await turn();
  const refresh = new DatasetRefresh({
    dataset,
    runId,
    asOfMs: 0,
    fingerprint: 'rules',
    settlementsMax,
    baseAbove,
    ...(full === true && { full }),
    log: {
      bounds: async () => {
        await turn();
        return topic.logs.map((log, partition) => ({
          start: topic.starts[partition] as number,
          end: log.length,
        }));
      },
      hashesOf: async (ranges) =>
        new Map(
          ranges.map(({ partition, start, end }) => {
            const found = (topic.logs[partition] ?? []).slice(start, end);
            return [
              partition,
              new Map(found.flatMap((message, at) => (message ? [[start + at, hashOf(message)]] : []))),
            ];
          }),
        ),
      refusals: async ([since = 0]) => {
        lettersRead = world.letters.length;
        return { places: world.letters.slice(since), end: [lettersRead] };
      },
      scan: async (ranges, onTouched, isOwn) => {
        for (const { partition, start, end } of ranges) {
          for (let offset = start; offset < end; offset++) {
            const message = topic.logs[partition]?.[offset];
            if (message === undefined) continue;
            const { replaces, rows } = message;
            const origin = { partition, offset, runId: message.runId, chunk: message.number };
            if (isOwn?.(origin)) continue;
            onTouched({ ...origin, records: rows.size, replaces, ids: rows.keys() });
          }
        }
      },
    },
    index: {
      messages: new Map(world.index),
      append: async (messages) => {
        for (const { key, value } of messages) {
          await turn();
          world.writeIndex(key, value);
        }
      },
    },
  });
  const file: DumpFile = {
    compare: async (index) => {
      const changed = new GroupEntries();
      const unchanged = new Set<number>();
      for (const [group, rows] of groups) {
        const entry = entryOfRows(rows);
        if (index.holds(group, entry.low, entry.high)) unchanged.add(group);
        else changed.put(group, entry);
      }
      different = [...groups.keys()].filter((group) => !unchanged.has(group));
      return {
        rows: dump.size,
        unchangedRows: 0,
        refused: 0,
        changed,
        isUnchanged: (group) => unchanged.has(group),
        lastId: 0,
        strays: noStrays,
      };
    },
    send: async (emptied, whole) => {
      for (const group of [...(whole ? groups.keys() : different), ...emptied]) await send(group);
    },
    sendAgain: async (wanted, onSent) => {
      for (const group of wanted) {
        await send(group);
        const rows = groups.get(group);
        if (rows !== undefined) onSent(group, entryOfRows(rows));
      }
    },
    mark: async (mark) => {
      const offsets: number[] = [];
      for (let partition = 0; partition < partitions; partition++) {
        await turn();
        const isLost = isRefused(partition);
        if (mark === 'end' && (isLost || renewals > 0)) continue;
        const { offset } = push(partition, { replaces: [], rows: new Map(), mark: { id: runId, mark } });
        offsets.push(offset);
      }
      return offsets;
    },
    own,
  };
  await refresh.open();
  await turn();
  if (refresh.isEmptyTopic) {
    await refresh.beginLoad();
    const loaded = new GroupEntries();
    for (const [group, rows] of groups) {
      await send(group, []);
      loaded.put(group, entryOfRows(rows));
    }
    refresh.loaded(loaded, noStrays);
  } else {
    await refresh.plan(file);
    await refresh.send(file);
  }
  await refresh.settle(file);
  await refresh.endBase(file);
  await refresh.close();
  world.lettersSettled = Math.max(world.lettersSettled, lettersRead);
}

/** Runs an async function one step at a time. */
class Process {
  readonly name: string;
  isDone = false;
  #resume: (() => void) | undefined;
  #parked = Promise.withResolvers<void>();
  #failure: unknown;

  constructor(name: string, work: (turn: Turn) => Promise<void>) {
    this.name = name;
    const turn = () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#resume = resolve;
      this.#parked.resolve();
      return promise;
    };
    work(turn)
      .catch((thrown) => {
        this.#failure = thrown;
      })
      .finally(() => {
        this.isDone = true;
        this.#parked.resolve();
      });
  }

  /** Lets the process take one step; waits until it is at the next one, or done. */
  async step(): Promise<void> {
    await this.#parked.promise;
    if (this.isDone) return this.#check();
    this.#parked = Promise.withResolvers();
    this.#resume?.();
    await this.#parked.promise;
    this.#check();
  }

  async finish(): Promise<void> {
    await this.#parked.promise;
    while (!this.isDone) await this.step();
    this.#check();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

export interface RefreshFailure {
  readonly seed: number;
  readonly reason: string;
  readonly trace: readonly string[];
}

const text = (rows: Rows) => JSON.stringify([...rows].sort(([a], [b]) => a - b));

/** Everything before the begin of a whole base must be dispensable, unless the next replay needs a message that was refused. */
function brokenBase(world: World): string | undefined {
  const { topic } = world;
  for (let partition = 0; partition < partitions; partition++) {
    const base = topic.bases(partition).at(-1);
    if (base === undefined || world.hasOpenLetter(partition, base.begin)) continue;
    const [all, behind] = [topic.fold(partition), topic.fold(partition, base.begin)];
    if (text(all) !== text(behind)) return `without what is before a base, ${text(all)} is ${text(behind)}`;
  }
  return undefined;
}

async function run(seed: number, withBases: boolean): Promise<Omit<RefreshFailure, 'seed'> | undefined> {
  const random = randomFrom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const pick = <T>(from: readonly T[]) => from[below(from.length)] as T;
  const world = new World();
  const { topic } = world;
  const trace: string[] = [];
  const note = (what: string) => trace.push(what);
  const dumps = Array.from({ length: 3 }, (): Rows => {
    const rows = ids.filter(() => random() < 0.6).map((id) => [id, pick(['a', 'b'])] as const);
    return new Map(rows.length > 0 ? rows : [[10_000, 'a']]);
  });
  let processes: Process[] = [];
  const start = (name: string, work: (turn: Turn) => Promise<void>) => {
    note(`start ${name}`);
    processes.push(new Process(name, work));
  };
  const upsert = async (turn: Turn, id: number, value: string, replaces: number[]) => {
    await turn();
    topic.appendForeign(id, value, replaces);
  };

  for (let step = 3 + below(30); step > 0; step--) {
    const kind = random();
    if (processes.length === 0 || (kind < 0.18 && processes.length < 2)) {
      if (random() < 0.75) {
        const dump = pick(dumps);
        const isDuplicating = random() < 0.5;
        const full = random() < 0.05;
        const settlementsMax = below(3);
        const baseAbove = withBases ? pick([2, 0]) : undefined;
        start(`replay of ${text(dump)}`, (turn) =>
          replay(world, turn, { dump, full, settlementsMax, baseAbove, isDuplicated: () => isDuplicating }),
        );
      } else {
        const [id, value] = [pick(ids), pick(['x', 'y', 'z'])];
        const replaces = random() < 0.2 ? [groupOf(id)] : [];
        start(`upsert of ${id} ${value} ${replaces}`, (turn) => upsert(turn, id, value, replaces));
      }
    } else if (kind < 0.26) {
      const victim = below(processes.length);
      note(`kill ${processes[victim]?.name}`);
      processes.splice(victim, 1);
    } else if (kind < 0.31 && world.late.length > 0) {
      arriveLate(world, below, note);
    } else if (withBases && kind < 0.34) {
      const partition = below(partitions);
      const base = topic.bases(partition).at(-1);
      // The sink keeps what the next replay needs.
      if (base === undefined || world.hasOpenLetter(partition, base.begin)) continue;
      note(`partition ${partition} loses what is before its base at ${base.begin}`);
      topic.logs[partition]?.fill(undefined, 0, base.begin);
      topic.starts[partition] = base.begin;
    } else if (kind < (withBases ? 0.37 : 0.35)) {
      disturb(world, random, below, note);
    } else {
      const process = pick(processes);
      // Most runs are cut off or come between others; some end.
      const steps = random() < 0.1 ? Number.POSITIVE_INFINITY : 1;
      note(`${steps === 1 ? 'step' : 'end'} of ${process.name}`);
      const disturbedAt = below(30);
      for (let taken = 0; taken < steps && !process.isDone; taken++) {
        // A broker that fails loses the tails of several partitions.
        if (taken === disturbedAt && random() < 0.5) loseTails(world, random, note);
        else if (taken === disturbedAt) await upsert(async () => undefined, pick(ids), 'w', []);
        await process.step();
      }
      processes = processes.filter(({ isDone }) => !isDone);
      if (process.isDone) {
        const broken = brokenBase(world);
        if (broken !== undefined) return { reason: broken, trace };
      }
    }
  }

  const dump = pick(dumps);
  note(`undisturbed replay of ${text(dump)}`);
  await new Process('last', (turn) => replay(world, turn, { dump })).finish();
  const held = topic.fold();
  if (text(held) !== text(dump)) return { reason: `the topic holds ${text(held)}`, trace };
  const { sent } = world;
  await new Process('same', (turn) => replay(world, turn, { dump, baseAbove: 0 })).finish();
  if (world.sent > sent) return { reason: `the same dump again sends ${world.sent - sent} groups`, trace };
  return undefined;
}

/** A copy of a request arrives; the broker takes it where it has lost the first one. */
function arriveLate(
  { topic, late }: World,
  below: (limit: number) => number,
  note: (what: string) => void,
): void {
  const [copy] = late.splice(below(late.length), 1);
  if (copy === undefined) return;
  const { partition, message } = copy;
  const isTaken = topic.takes(partition, message.stamp as Stamp);
  note(`a late copy of ${message.replaces} ${isTaken ? 'arrives' : 'is refused'}`);
  if (isTaken) topic.append(partition, message);
}

function loseTail(
  world: World,
  partition: number,
  count: number,
  random: () => number,
  note: (what: string) => void,
): void {
  const log = world.topic.logs[partition] as (Message | undefined)[];
  if (log.length - count < (world.topic.starts[partition] as number)) return;
  log.length -= count;
  // The next leader has another epoch.
  world.topic.leaderEpochs[partition] = (world.topic.leaderEpochs[partition] as number) + 1;
  note(`partition ${partition} loses its tail from ${log.length} on`);
  refill(world, partition, count, random, note);
}

function loseTails(world: World, random: () => number, note: (what: string) => void): void {
  for (let partition = 0; partition < partitions; partition++) loseTail(world, partition, 1, random, note);
}

/** Others may write where messages were lost, and requests that were held may arrive. */
function refill(
  world: World,
  partition: number,
  count: number,
  random: () => number,
  note: (what: string) => void,
): void {
  if (count === 0 || random() < 0.3) return;
  const own = ids.filter((id) => partitionOfGroup(groupOf(id)) === partition);
  for (let left = 1 + Math.floor(random() * count); left > 0; left--) {
    if (random() < 0.5) {
      arriveLate(world, (limit) => Math.floor(random() * limit), note);
      continue;
    }
    const id = own[Math.floor(random() * own.length)] as number;
    note(`others write ${id} to partition ${partition}`);
    world.topic.appendForeign(id, 'w');
  }
}

/** What happens to topics and index behind everybody's back. */
function disturb(
  world: World,
  random: () => number,
  below: (limit: number) => number,
  note: (what: string) => void,
): void {
  const { topic, index, indexHistory } = world;
  const keys = [...index.keys()];
  const key = keys[below(keys.length)];
  const partition = below(partitions);
  const log = topic.logs[partition] as (Message | undefined)[];
  const first = topic.starts[partition] as number;
  const kind = below(8);
  if (kind === 0) {
    note('the topic is recreated');
    const lost = topic.logs.map((each) => each.length);
    topic.logs = topic.logs.map(() => []);
    topic.starts.fill(0);
    topic.leaderEpochs.fill(0);
    for (const [each, count] of lost.entries()) refill(world, each, count, random, note);
  } else if (kind === 1 && log.length > first) {
    const lost = random() < 0.5 ? 1 : 1 + below(log.length - first);
    loseTail(world, partition, lost, random, note);
  } else if (kind === 2 && log.length > 0) {
    const next = Math.max(first, below(log.length) + 1);
    note(`partition ${partition} is trimmed before ${next}`);
    log.fill(undefined, 0, next);
    topic.starts[partition] = next;
  } else if (kind === 3 && key !== undefined) {
    note(`the index loses ${key}`);
    world.writeIndex(key, null);
  } else if (kind === 4 && key !== undefined) {
    const value = Buffer.from(index.get(key) as Buffer);
    const at = 1 + below(value.length - 1);
    value[at] = (value[at] as number) ^ (1 << below(8));
    note(`the index damages byte ${at} of ${key}`);
    world.writeIndex(key, value);
  } else if (kind === 5 && indexHistory.length > 0) {
    const [old, value] = indexHistory[below(indexHistory.length)] as [string, Buffer | undefined];
    note(`the index has an older ${old}`);
    world.writeIndex(old, value ?? null);
  } else if (kind === 7 && log.length > first) {
    const offset = first + below(log.length - first);
    note(`a consumer refuses ${partition}/${offset}`);
    // A copy of it that arrives late is another message.
    log[offset] = { ...(log[offset] as Message), isRefused: true };
    world.letters.push({ partition, offset });
  } else if (kind === 6 && random() < 0.5) {
    note('the index is lost');
    index.clear();
  }
}

/**
 * Runs schedules until one fails.
 * @param withBases replays send bases, more of them end, and the messages before a base are deleted
 * @returns the failure, or undefined
 */
export async function simulateRefresh(
  seed: number,
  schedules: number,
  withBases = false,
): Promise<RefreshFailure | undefined> {
  for (let nth = 0; nth < schedules; nth++) {
    const failure = await run(seed + nth, withBases).catch((thrown) => ({
      reason: String(thrown),
      trace: [],
    }));
    if (failure !== undefined) return { seed: seed + nth, ...failure };
  }
  return undefined;
}
