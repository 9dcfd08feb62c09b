/**
 * Processors and the sink over an in-memory log, put through a schedule of faults. What decides is the product:
 * `Tenure` with `planShard` and `Publisher`, `Follower` with `DeltaChain`, `isAhead`, `hasReached` and `otherCubes`, `dealShards` with
 * `electOne`. What
 * is modelled is what they stand on: the broker; the store (position, outbox and rows committed together); the sink's
 * store (cubes and chain committed together); crashes, which lose what is not committed. A cube counts the values of
 * keys, so that whatever the sink holds can be compared with the fold of the log up to its position, but for its gaps:
 * source logs lose their beginnings, and every member accepts that.
 *
 * A schedule is a list of steps that mean something in every state, so a failing one is shrunk by dropping steps.
 */

import { OutsideLog } from '../../kafka/log.ts';
import { type Claim, dealShards, electOne } from '../../kafka/shard-assignment.ts';
import type { Plan } from '../../processors/plan.ts';
import { Publisher } from '../../processors/publisher.ts';
import { publishMarks } from '../../processors/reset-marks.ts';
import type { OutboxEntry } from '../../processors/shard-store.ts';
import { Tenure } from '../../processors/tenure.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { Follower } from '../../sinks/follower.ts';
import { type Current, hasReached, isAhead, otherCubes } from '../../sinks/progress.ts';
import type { ShardState } from '../../sinks/shard-state.ts';
import { versionsIn } from '../../topics/cube-versions.ts';
import type { ChainState } from '../../topics/delta-chain.ts';
import { type DeltaHeader, decodeDeltaHeader, encodeDeltaHeader } from '../../topics/delta-wire.ts';
import {
  type Gap,
  type Gaps,
  nextIn,
  notAfter,
  onTopics,
  type Position,
  sameGaps,
  startAfter,
  withGap,
} from '../../topics/position.ts';
import { noRecords, sumOf } from '../../topics/record-counts.ts';

const schemaId = 7;
const topics = ['a', 'b'] as const;
const keys = 5;
const values = 3;
const groups = topics.length * values;
const members = 3;
const keepSnapshots = 2;
/** Places where a fault could strike; a schedule that ends has a few hundred. */
const pointsMax = 3_000;

/** Faults of the simulator's own model, for rules that the product keeps in SQL. */
export type ModelBug = 'no-guard' | 'no-outbox' | 'publish-before-commit' | 'store-is-writer';

export const stepKinds = [
  'produce',
  'replay',
  'work',
  'work',
  'work',
  'sink',
  'sink',
  'snapshot',
  'deal',
  'hear',
  'kill',
  'start',
  'backup',
  'restore',
  'lose',
  'late',
  'sink-crash',
  'sink-lost',
  'sink-old',
  'upgrade',
  'reset',
  'trim',
] as const;
type StepKind = (typeof stepKinds)[number];

const faultKinds = ['crash', 'repeat', 'hold', 'meanwhile', 'stray'] as const;
type FaultKind = (typeof faultKinds)[number];

export interface Step {
  readonly kind: StepKind;
  readonly member: number;
  readonly shard: number;
  readonly size: number;
  /** What goes wrong at the `at`th point of this step where something can. */
  readonly fault?: { readonly kind: FaultKind; readonly at: number; readonly inner: Step | undefined };
}

export interface Schedule {
  readonly shards: number;
  /** Members that share a state folder with the first one. */
  readonly sharing: number;
  /** One member and a disk that keeps what it was given: then nothing is ever rebuilt. */
  readonly isCalm: boolean;
  readonly steps: readonly Step[];
}

/** A rule that the schedule has broken. */
export class Broken extends Error {}

/** The process of a member ends here. */
class Crash extends Error {}

export function randomOf(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

export function scheduleOf(seed: number): Schedule {
  const random = randomOf(seed);
  const isCalm = random(4) === 0;
  const forbidden = new Set<StepKind>(
    isCalm ? ['backup', 'restore', 'lose', 'late', 'deal', 'upgrade', 'trim'] : [],
  );
  // Each schedule has its own mood: a few kinds of step come often.
  const favourites = Array.from({ length: 3 }, () => stepKinds[random(stepKinds.length)] as StepKind);
  const stepOf = (depth: number): Step => {
    let kind: StepKind;
    do {
      const usual = ['produce', 'work', 'sink'] as const;
      const dice = random(6);
      if (dice < 2) kind = usual[random(3)] as StepKind;
      else if (dice < 4) kind = favourites[random(3)] as StepKind;
      else kind = stepKinds[random(stepKinds.length)] as StepKind;
    } while (forbidden.has(kind) || (depth > 0 && (kind === 'reset' || kind === 'deal')));
    const step = { kind, member: random(members), shard: random(2), size: 1 + random(4) };
    if (depth > 1 || random(3) > 0) return step;
    let fault = faultKinds[random(faultKinds.length)] as FaultKind;
    if (isCalm && (fault === 'hold' || fault === 'meanwhile')) fault = 'crash';
    const inner = fault === 'meanwhile' ? stepOf(depth + 1) : undefined;
    return { ...step, fault: { kind: fault, at: random(7), inner } };
  };
  const shards = isCalm || random(3) > 0 ? 1 : 2;
  const sharing = isCalm ? 1 : 1 + random(members);
  return { shards, sharing, isCalm, steps: Array.from({ length: 30 + random(50) }, () => stepOf(0)) };
}

interface SourceMessage {
  /** (key, value) upserts; value 0 deletes. */
  readonly records: readonly (readonly [number, number])[];
  readonly isRejected: boolean;
}

interface Source {
  readonly next: number;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  readonly removed: number;
  readonly gaps: readonly Gap[];
}

/** What a store has committed; never changed, so a copy of it is a backup. */
interface Committed {
  readonly storeId: string;
  /** Topics of which it keeps rows, and whether it keeps the further column of b. */
  readonly topics: readonly string[];
  readonly isWide: boolean;
  readonly generation: number;
  readonly sources: Readonly<Record<string, Source>>;
  /** Value by topic and key. */
  readonly rows: Int8Array;
  readonly outbox: readonly OutboxEntry[];
}

/** A file on a disk of members. */
interface File {
  committed: Committed;
  isLocked: boolean;
  isRemoved: boolean;
}

interface Batch {
  readonly topic: string;
  readonly from: number;
  /** Lost before the messages. */
  readonly gap: Gap | undefined;
  readonly messages: readonly SourceMessage[];
}

/** An open store. */
class Store {
  readonly file: File;
  readonly shard: number;
  /** Of this opening. */
  readonly writerId: string;
  readonly cubeSet: string;
  nextEntry: number;

  constructor(file: File, shard: number, writerId: string, cubeSet: string) {
    this.cubeSet = cubeSet;
    this.file = file;
    this.shard = shard;
    this.writerId = writerId;
    this.nextEntry = (file.committed.outbox.at(-1)?.number ?? 0) + 1;
  }

  get position(): Position {
    return Object.fromEntries(Object.entries(this.file.committed.sources).map(([t, { next }]) => [t, next]));
  }

  get gaps(): Gaps {
    return Object.fromEntries(Object.entries(this.file.committed.sources).map(([t, { gaps }]) => [t, gaps]));
  }

  get fitsCubes(): boolean {
    const { topics: kept, isWide } = this.file.committed;
    return kept.join() === topicsOf(this.cubeSet).join() && (isWide || !isWideSet(this.cubeSet));
  }

  async readOutbox(): Promise<readonly OutboxEntry[]> {
    return this.file.committed.outbox;
  }
}

type SimulatedTenure = Tenure<Store, readonly Batch[], { readonly entry: OutboxEntry | undefined }>;

class Member {
  readonly id: string;
  readonly disk: Map<number, File[]>;
  isUp = false;
  isBusy = false;
  /** The cubes that its program declares, and when it started. */
  cubeSet = '';
  sinceMs = 0;
  /** The last assignment that it received. */
  given: readonly number[] = [];
  readonly owned = new Map<number, SimulatedTenure>();

  constructor(id: string, disk: Map<number, File[]>) {
    this.id = id;
    this.disk = disk;
  }
}

interface SinkShard {
  readonly state: ShardState;
  /** By name of the cube. */
  readonly cubes: Readonly<Record<CubeName, Int32Array>>;
}

interface Snapshot {
  readonly shards: ReadonlyMap<number, SinkShard>;
  readonly current: NonNullable<Current>;
}

/**
 * The cubes. `one` is built-in and counts the values of both topics, `two` is a user's and counts those of b. Version 1 of a cube
 * counts a value in another group; that of `two` reads a further column of b.
 */
const cubeNames = ['one', 'two'] as const;
type CubeName = (typeof cubeNames)[number];
const cubeSets = ['one:0', 'one:0 two:0', 'one:1 two:1', 'two:0'] as const;

const topicsOf = (cubeSet: string) => (versionsIn(cubeSet).has('one') ? topics : topics.slice(1));
const isWideSet = (cubeSet: string) => versionsIn(cubeSet).get('two') === '1';
const noCubes = (): Record<CubeName, Int32Array> => ({
  one: new Int32Array(groups),
  two: new Int32Array(groups),
});

/** A cube of counts by topic and value; undefined for a cube that the set does not have. */
function cubeOf(cubeSet: string, name: CubeName, counts: Int32Array): Int32Array {
  const cube = new Int32Array(groups);
  const version = versionsIn(cubeSet).get(name);
  for (let group = name === 'two' ? values : 0; group < groups && version !== undefined; group++) {
    const turned = group - (group % values) + values - 1 - (group % values);
    cube[version === '1' ? turned : group] = counts[group] as number;
  }
  return cube;
}

const countOf = (rows: Int8Array): Int32Array => {
  const cube = new Int32Array(groups);
  for (let row = 0; row < rows.length; row++) {
    const value = rows[row] as number;
    if (value > 0)
      cube[((row / keys) | 0) * values + value - 1] =
        (cube[((row / keys) | 0) * values + value - 1] as number) + 1;
  }
  return cube;
};

function apply(rows: Int8Array, topic: string, message: SourceMessage): number {
  if (message.isRejected) return 0;
  let changed = 0;
  const first = topics.indexOf(topic as 'a') * keys;
  for (const [key, value] of message.records) {
    if (rows[first + key] === value) continue;
    rows[first + key] = value;
    changed += 1;
  }
  return changed;
}

/** Runs a schedule. @throws Broken */
export async function run(schedule: Schedule, seed: number, bug?: ModelBug): Promise<World> {
  const world = new World(schedule, seed, bug);
  for (const step of schedule.steps) await world.step(step);
  await world.heal();
  return world;
}

export class World {
  readonly #schedule: Schedule;
  readonly #random: (below: number) => number;
  readonly #bug: ModelBug | undefined;
  /** By shard, by topic. */
  readonly #sources: Record<string, SourceMessage[]>[];
  /** By shard: the fold of each topic up to each offset. */
  readonly #folds: Record<string, Int32Array[]>[];
  readonly #records: Record<string, number[]>[];
  /** By shard: the first offset that each topic still holds. */
  readonly #starts: Record<string, number>[];
  readonly #deltas: { start: number; messages: Buffer[] }[];
  readonly #members: Member[];
  #group = new Set<number>();
  readonly #backups: { shard: number; committed: Committed }[] = [];
  readonly #late: { shard: number; message: Buffer }[] = [];
  #fault: Step['fault'];
  #pointsLeft = 0;
  #points = 0;
  #storeIds = 0;
  #openings = 0;
  #cubeSet: string = cubeSets[0];
  #started = 0;
  #sinkBusy = false;
  #sinkShards = new Map<number, SinkShard>();
  /** What the sink has committed, the newest last. */
  #sinkPast: ReadonlyMap<number, SinkShard>[] = [];
  #followers = new Map<number, Follower<{ value: Buffer; at: number }>>();
  #fetched = new Map<number, number>();
  #snapshots: Snapshot[] = [];
  readonly #marks = new Map<string, Position>();
  readonly counts = { refused: 0, rebuilt: 0, bases: 0, caughtUp: 0, deltas: 0, snapshots: 0, resets: 0 };

  constructor(schedule: Schedule, seed: number, bug: ModelBug | undefined) {
    this.#schedule = schedule;
    this.#random = randomOf(seed ^ 0x5eed);
    this.#bug = bug;
    const perShard = <T>(make: () => T): T[] => Array.from({ length: schedule.shards }, make);
    this.#sources = perShard(() => ({ a: [], b: [] }));
    this.#folds = perShard(() => ({ a: [new Int32Array(groups)], b: [new Int32Array(groups)] }));
    this.#records = perShard(() => ({ a: [0], b: [0] }));
    this.#starts = perShard(() => ({ a: 0, b: 0 }));
    this.#deltas = perShard(() => ({ start: 0, messages: [] }));
    const shared = new Map<number, File[]>();
    this.#members = Array.from(
      { length: members },
      (_, i) => new Member(`m${i}`, i < schedule.sharing ? shared : new Map()),
    );
  }

  async step(step: Step): Promise<void> {
    const outer = { fault: this.#fault, left: this.#pointsLeft };
    this.#fault = step.fault;
    this.#pointsLeft = step.fault?.at ?? 0;
    try {
      await this.#do(step);
    } finally {
      this.#fault = outer.fault;
      this.#pointsLeft = outer.left;
    }
  }

  async #do({ kind, member: m, shard: s, size }: Step): Promise<void> {
    const shard = s % this.#schedule.shards;
    const memberIndex = this.#schedule.isCalm ? 0 : m;
    const member = this.#members[memberIndex] as Member;
    switch (kind) {
      case 'produce':
        for (let i = 0; i < size; i++) this.#produce(shard, topics[this.#random(2)] as 'a', this.#message());
        return;
      case 'replay': {
        // A chunk comes once more.
        const topic = topics[this.#random(2)] as 'a';
        const log = this.#sources[shard]?.[topic] as SourceMessage[];
        const again = log[this.#random(log.length + 1)];
        if (again !== undefined) this.#produce(shard, topic, again);
        return;
      }
      case 'start':
        return this.#start(memberIndex);
      case 'work': {
        if (!member.isUp && size > 1) await this.#start(memberIndex);
        if (member.owned.has(shard)) return this.#work(memberIndex, shard, size);
        // Not its shard: one of those that are owned, so that few steps do nothing.
        const owned = this.#members.flatMap((each, i) =>
          each.isBusy ? [] : [...each.owned.keys()].map((of) => [i, of] as const),
        );
        const one = owned[(m * 2 + s) % Math.max(1, owned.length)];
        if (one !== undefined) return this.#work(one[0], one[1], size);
        return;
      }
      case 'deal':
        // The members that the coordinator sees: some dead ones, not all live ones.
        this.#group = new Set(
          this.#members.flatMap((each, i) => (each.isUp && this.#random(3) > 0 ? [i] : [])),
        );
        return this.#deal(this.#random(2) === 0);
      case 'hear':
        if (member.isUp && !member.isBusy) await this.#guarded(memberIndex, () => this.#reassign(member));
        return;
      case 'kill':
        if (!member.isBusy) this.#kill(memberIndex);
        return;
      case 'backup': {
        const file = member.disk.get(shard)?.at(-1);
        if (file !== undefined) this.#backups.push({ shard, committed: file.committed });
        return;
      }
      case 'restore': {
        const backup = this.#backups[this.#random(this.#backups.length + 1)];
        if (backup === undefined) return;
        const files = (member.disk.get(backup.shard) ?? []).filter(
          ({ isLocked }) => isLocked || this.#random(2) === 0,
        );
        member.disk.set(backup.shard, [
          ...files,
          { committed: backup.committed, isLocked: false, isRemoved: false },
        ]);
        return;
      }
      case 'lose': {
        const files = member.disk.get(shard) ?? [];
        member.disk.set(
          shard,
          files.filter(({ isLocked }) => isLocked),
        );
        return;
      }
      case 'late': {
        const [late] = this.#late.splice(this.#random(Math.max(1, this.#late.length)), 1);
        if (late !== undefined) this.#append(late.shard, late.message);
        return;
      }
      case 'sink':
        return this.#readDeltas(shard, size);
      case 'sink-crash':
        if (!this.#sinkBusy) this.#startSink();
        return;
      case 'sink-lost':
        if (this.#sinkBusy) return;
        this.#sinkShards = new Map(this.#snapshots.at(-1)?.shards ?? []);
        for (const [number, { state, cubes }] of this.#sinkShards) {
          this.#sinkShards.set(number, { state: { ...state, heldUntil: {} }, cubes });
        }
        this.#startSink();
        return;
      case 'sink-old': {
        // Yesterday's state comes back; one that needs deltas which are trimmed would be refused.
        if (this.#sinkBusy) return;
        const whole = this.#sinkPast.filter((shards) =>
          this.#deltas.every(({ start }, of) => (shards.get(of)?.state.next ?? 0) >= start),
        );
        const old = whole[this.#random(Math.max(1, whole.length))];
        if (old === undefined) return;
        this.#sinkShards = new Map(old);
        this.#startSink();
        return;
      }
      case 'snapshot':
        if (!this.#sinkBusy) this.#snapshot();
        return;
      case 'upgrade':
        this.#cubeSet = cubeSets[size - 1] as string;
        return;
      case 'reset':
        if (size === 1) await this.#reset();
        return;
      case 'trim': {
        const topic = topics[this.#random(2)] as 'a';
        const starts = this.#starts[shard] as Record<string, number>;
        starts[topic] = Math.min(nextIn(starts, topic) + size, nextIn(this.#ends(shard), topic));
      }
    }
  }

  /** A place where a fault may strike. */
  async #point(member: number | undefined): Promise<void> {
    if (++this.#points > pointsMax) throw new Broken('it does not end');
    const fault = this.#fault;
    if (fault === undefined || this.#pointsLeft-- > 0) return;
    if (fault.kind !== 'crash' && fault.kind !== 'meanwhile') return;
    this.#fault = undefined;
    if (fault.kind === 'crash') throw new Crash();
    if (fault.inner === undefined) return;
    await this.step(fault.inner);
    if (member !== undefined && !this.#members[member]?.isUp) throw new Crash();
  }

  #takes(kind: FaultKind): boolean {
    if (this.#fault?.kind !== kind || this.#pointsLeft-- > 0) return false;
    this.#fault = undefined;
    return true;
  }

  // The sources

  #message(): SourceMessage {
    const records = Array.from(
      { length: 1 + this.#random(3) },
      () => [this.#random(keys), this.#random(values + 1)] as const,
    );
    return { records, isRejected: this.#random(12) === 0 };
  }

  #produce(shard: number, topic: string, message: SourceMessage): void {
    const log = this.#sources[shard]?.[topic] as SourceMessage[];
    log.push(message);
    const rows = new Int8Array(topics.length * keys);
    for (const each of log) apply(rows, topic, each);
    this.#folds[shard]?.[topic]?.push(countOf(rows));
    const records = this.#records[shard]?.[topic] as number[];
    records.push((records.at(-1) ?? 0) + message.records.length);
  }

  #ends(shard: number): Position {
    return Object.fromEntries(topics.map((topic) => [topic, this.#sources[shard]?.[topic]?.length ?? 0]));
  }

  /** What a cube counts of a topic's messages before `next` but for gaps, and how many records they are. */
  #foldOf(
    shard: number,
    topic: string,
    next: number,
    gaps: readonly Gap[],
  ): { cube: Int32Array; records: number } {
    if (gaps.length === 0) {
      const cube = this.#folds[shard]?.[topic]?.[next];
      const records = this.#records[shard]?.[topic]?.[next];
      if (cube === undefined || records === undefined) throw new Broken(`${topic} has no offset ${next}`);
      return { cube, records };
    }
    const rows = new Int8Array(topics.length * keys);
    let records = 0;
    for (const [offset, message] of (this.#sources[shard]?.[topic] ?? []).slice(0, next).entries()) {
      if (gaps.some(([from, to]) => from <= offset && offset < to)) continue;
      apply(rows, topic, message);
      records += message.records.length;
    }
    return { cube: countOf(rows), records };
  }

  // The delta topic

  #append(shard: number, message: Buffer): number {
    const { messages } = this.#deltas[shard] as { messages: Buffer[] };
    return messages.push(message) - 1;
  }

  #publisherOf(
    shard: number,
    member: number | undefined,
    isCommitted: (message: Buffer) => boolean,
  ): Publisher {
    const log = this.#deltas[shard] as { start: number; messages: Buffer[] };
    const reader = {
      fetch: async ([want]: readonly { topic: string; partition: number; next: number }[]) => {
        const next = want?.next ?? 0;
        if (next < log.start) throw new OutsideLog('deltas', shard);
        await this.#point(member);
        const messages = log.messages.slice(next).map((value, i) => ({
          offset: next + i,
          timestampMs: 0,
          key: null,
          value,
          isMarker: false,
          isUndecodable: false,
        }));
        return [{ topic: 'deltas', partition: shard, next, messages, highWatermark: log.messages.length }];
      },
    };
    const send = async ({ messages }: { messages: readonly { value: Buffer | string | null }[] }) => {
      const value = messages[0]?.value as Buffer;
      if (!isCommitted(value)) throw new Broken('a delta is published that is not committed');
      await this.#point(member);
      if (this.#takes('hold')) {
        // It is on its way while its sender dies, or waits and is taken for dead.
        this.#late.push({ shard, message: value });
        throw new Crash();
      }
      // The client sends once more what the broker has taken, and hears only of the second.
      if (this.#takes('repeat')) this.#append(shard, value);
      const offset = this.#append(shard, value);
      await this.#point(member);
      return [{ topicName: 'deltas', partition: shard, errorCode: 0, baseOffset: String(offset) }];
    };
    const options = {
      producer: { send },
      reader,
      topic: 'deltas',
      shard,
      deltaSchemaId: schemaId,
      checkRows: () => undefined,
    };
    return new Publisher(options, log.start);
  }

  // Members

  async #start(index: number): Promise<void> {
    const member = this.#members[index] as Member;
    if (member.isUp) return;
    member.isUp = true;
    member.cubeSet = this.#cubeSet;
    member.sinceMs = ++this.#started;
    member.given = [];
    this.#group.add(index);
    this.#deal(true);
    await this.#guarded(index, () => this.#reassign(member));
  }

  #kill(index: number): void {
    const member = this.#members[index] as Member;
    member.isUp = false;
    for (const { store } of member.owned.values()) store.file.isLocked = false;
    for (const files of member.disk.values()) for (const file of files) file.isLocked &&= this.#isOpen(file);
    member.owned.clear();
    this.#group.delete(index);
  }

  #isOpen(file: File): boolean {
    return this.#members.some(({ owned }) => [...owned.values()].some(({ store }) => store.file === file));
  }

  #deal(isHeard: boolean): void {
    if (this.#group.size === 0) return;
    const claims = [...this.#group].map((i): Claim => {
      const { id, disk, cubeSet, sinceMs, given } = this.#members[i] as Member;
      const freshness = new Map([...disk].map(([shard, files]) => [shard, Math.max(0, ...files.map(seen))]));
      return { memberId: id, freshness, declared: { text: cubeSet, sinceMs, holds: given.length > 0 } };
    });
    // Zombies and leaders of an earlier version may let two sets take turns.
    const elected = this.#random(4) === 0 ? claims : electOne(claims);
    const owners = dealShards(this.#schedule.shards, elected);
    for (const [i, member] of this.#members.entries()) {
      if (!this.#group.has(i) || !(isHeard || this.#random(2) === 0)) continue;
      member.given = owners.flatMap((id, shard) => (id === member.id ? [shard] : []));
    }
  }

  /** Runs something of a member; whatever it throws ends its process, as in the product. */
  async #guarded(index: number, work: () => Promise<void>): Promise<void> {
    const member = this.#members[index] as Member;
    member.isBusy = true;
    try {
      await work();
    } catch (thrown) {
      if (!(thrown instanceof Crash || thrown instanceof ReelflowError)) throw thrown;
      this.#kill(index);
    } finally {
      member.isBusy = false;
    }
  }

  async #reassign(member: Member): Promise<void> {
    for (const [shard, tenure] of [...member.owned]) {
      const isKept = member.given.includes(shard);
      if (isKept && !(await tenure.isSuperseded(this.#deltas[shard]?.messages.length ?? 0))) continue;
      member.owned.delete(shard);
      tenure.store.file.isLocked = false;
    }
    for (const shard of member.given) if (!member.owned.has(shard)) await this.#open(member, shard);
  }

  async #open(member: Member, shard: number): Promise<void> {
    const index = this.#members.indexOf(member);
    for (let opened = 1; ; opened++) {
      if (opened > 12) throw new Broken('a shard is opened again and again');
      let store: Store | undefined;
      const publisher = this.#publisherOf(shard, index, (message) => this.#isCommitted(store, message));
      await publisher.fold(this.#deltas[shard]?.messages.length ?? 0);
      const { generation } = publisher.published;
      store = this.#openFurthest(member, shard, generation);
      const cubes = { cubeSet: member.cubeSet, topics: topicsOf(member.cubeSet) };
      const tenure: SimulatedTenure = new Tenure(store, publisher, cubes, {
        apply: (to, batch, how) => this.#applyBatch(index, to, batch, how, publisher),
        adapt: async (of) => {
          this.#adapt(of);
          await this.#point(index);
        },
        writeBase: async (of, keeps) => this.#writeBase(of, keeps),
        rebuild: async (of) => {
          of.file.isLocked = false;
          of.file.isRemoved = true;
          member.disk.set(
            shard,
            (member.disk.get(shard) ?? []).filter((file) => file !== of.file),
          );
          await this.#point(index);
          store = this.#create(member, shard, generation);
          return store;
        },
        sendDeadLetters: () => this.#point(index),
        reach: async (_, published) => published,
        report: (plan) => this.#onPlan(plan),
      });
      try {
        await tenure.reconcile();
        member.owned.set(shard, tenure);
        return;
      } catch (thrown) {
        tenure.store.file.isLocked = false;
        if (!(thrown instanceof ReelflowError && thrown.kind === 'deltaRefused')) throw thrown;
      }
    }
  }

  #onPlan({ kind }: Plan): void {
    if (kind === 'catch-up') this.counts.caughtUp += 1;
    if (kind === 'rebuild') this.counts.rebuilt += 1;
    if (kind === 'base') this.counts.bases += 1;
    if (this.#schedule.isCalm && kind !== 'continue') {
      throw new Broken(`crashes alone led to the plan ${kind}`);
    }
  }

  /** The rules of `openFurthest`. */
  #openFurthest(member: Member, shard: number, generation: number): Store {
    const files = member.disk.get(shard) ?? [];
    const free = files.filter(({ isLocked, committed }) => !isLocked && committed.generation === generation);
    const best = free.reduce<File | undefined>(
      (a, b) => (a === undefined || seen(b) > seen(a) ? b : a),
      undefined,
    );
    for (const file of files) file.isRemoved ||= !file.isLocked && file !== best;
    member.disk.set(
      shard,
      files.filter((file) => file.isLocked || file === best),
    );
    if (best === undefined) return this.#create(member, shard, generation);
    best.isLocked = true;
    return new Store(best, shard, this.#writerId(best.committed.storeId), member.cubeSet);
  }

  #create(member: Member, shard: number, generation: number): Store {
    const storeId = `s${this.#storeIds++}`;
    const rows = new Int8Array(topics.length * keys);
    const committed: Committed = {
      storeId,
      topics: topicsOf(member.cubeSet),
      isWide: isWideSet(member.cubeSet),
      generation,
      sources: {},
      rows,
      outbox: [],
    };
    const file = { committed, isLocked: true, isRemoved: false };
    member.disk.set(shard, [...(member.disk.get(shard) ?? []), file]);
    return new Store(file, shard, this.#writerId(storeId), member.cubeSet);
  }

  #writerId(storeId: string): string {
    return this.#bug === 'store-is-writer' ? storeId : `${storeId}.${this.#openings++}`;
  }

  #isCommitted(store: Store | undefined, message: Buffer): boolean {
    return store?.file.committed.outbox.some(({ messages }) => messages.includes(message)) === true;
  }

  async #work(index: number, shard: number, size: number): Promise<void> {
    const member = this.#members[index] as Member;
    const tenure = member.owned.get(shard);
    if (!member.isUp || member.isBusy || tenure === undefined) return;
    await this.#guarded(index, async () => {
      const batch = this.#batchOf(tenure, shard, size);
      if (batch.length === 0) return;
      try {
        await tenure.apply(batch);
      } catch (thrown) {
        if (!(thrown instanceof ReelflowError && thrown.kind === 'deltaRefused')) throw thrown;
        member.owned.delete(shard);
        tenure.store.file.isLocked = false;
        await this.#reassign(member);
      }
    });
  }

  #batchOf(tenure: SimulatedTenure, shard: number, size: number): Batch[] {
    const { silentTo, store } = tenure;
    return topicsOf(store.cubeSet).flatMap((topic): Batch[] => {
      const log = this.#sources[shard]?.[topic] as SourceMessage[];
      const end = silentTo === undefined ? log.length : nextIn(silentTo, topic);
      let from = nextIn(store.position, topic);
      const start = nextIn(this.#starts[shard] ?? {}, topic);
      if (from < start) {
        return [
          {
            topic,
            from,
            gap: [from, start] as const,
            messages: log.slice(start, Math.min(end, start + size)),
          },
        ];
      }
      // The log is read from another place than was asked for.
      if (this.#takes('stray')) from = Math.max(0, from + (this.#random(2) === 0 ? -1 : 1));
      const messages = log.slice(from, Math.min(end, from + size));
      return messages.length === 0 ? [] : [{ topic, from, gap: undefined, messages }];
    });
  }

  async #applyBatch(
    index: number,
    store: Store,
    batch: readonly Batch[],
    { silently, publishedEntry }: { silently: boolean; publishedEntry: number },
    publisher: Publisher,
  ): Promise<{ entry: OutboxEntry | undefined }> {
    const before = store.file.committed;
    const rows = before.rows.slice();
    const sources: Record<string, Source> = { ...before.sources };
    const none: Source = { next: 0, ...noRecords, gaps: [] };
    const moved = new Map<string, Source>();
    for (const { topic, from, gap, messages } of batch) {
      const source = sources[topic] ?? none;
      if (from !== source.next && this.#bug !== 'no-guard') {
        throw new ReelflowError('stateUnusable', 'a micro-batch does not start at the position of the store');
      }
      let [applied, duplicate, rejected] = [0, 0, 0];
      for (const message of messages) {
        const changed = apply(rows, topic, message);
        applied += changed;
        if (message.isRejected) rejected += message.records.length;
        else duplicate += message.records.length - changed;
      }
      const gaps = gap === undefined ? source.gaps : withGap(source.gaps, gap);
      const counts = { applied, duplicate, rejected, removed: 0 };
      moved.set(topic, { next: from, ...counts, gaps });
      sources[topic] = {
        next: (gap?.[1] ?? from) + messages.length,
        gaps,
        ...sumOf(source, counts),
      };
    }
    await this.#point(index);
    let entry: OutboxEntry | undefined;
    if (!silently) {
      const range = Object.keys(sources).map((topic) => ({
        ...(moved.get(topic) ?? none),
        topic,
        from: before.sources[topic]?.next ?? 0,
        to: sources[topic]?.next ?? 0,
        gaps: sources[topic]?.gaps ?? [],
      }));
      entry = this.#entryOf(store, 'delta', range, before.rows, rows, []);
    }
    if (this.#bug === 'publish-before-commit' && entry !== undefined) await publisher.publish(entry.messages);
    const kept = before.outbox.filter(({ number }) => number > publishedEntry);
    const outbox = entry === undefined || this.#bug === 'no-outbox' ? kept : [...kept, entry];
    // The commit.
    store.file.committed = { ...before, sources, rows, outbox };
    if (entry !== undefined) store.nextEntry += 1;
    await this.#point(index);
    return { entry };
  }

  /** As `ShardStore.adapt`. */
  #adapt(store: Store): void {
    const { committed } = store.file;
    const wanted = topicsOf(store.cubeSet);
    const rows = committed.rows.slice();
    const sources = { ...committed.sources };
    const isWide = committed.topics.includes('b') && committed.isWide;
    for (const topic of topics) {
      const lacks = topic === 'b' && isWideSet(store.cubeSet) && !isWide;
      if (wanted.includes(topic) && committed.topics.includes(topic) && !lacks) continue;
      const first = topics.indexOf(topic) * keys;
      rows.fill(0, first, first + keys);
      delete sources[topic];
    }
    store.file.committed = {
      ...committed,
      topics: wanted,
      isWide: isWide || isWideSet(store.cubeSet),
      sources,
      rows,
      outbox: [],
    };
  }

  async #writeBase(store: Store, keeps: readonly string[]): Promise<OutboxEntry> {
    const { committed } = store.file;
    const range = topicsOf(store.cubeSet).map((topic) => {
      const { next, ...counts } = committed.sources[topic] ?? { next: 0, ...noRecords, gaps: [] };
      return { topic, from: 0, to: next, ...counts };
    });
    const none = new Int8Array(topics.length * keys);
    const entry = this.#entryOf(store, 'base', range, none, committed.rows, keeps);
    store.file.committed = { ...committed, outbox: [entry] };
    store.nextEntry += 1;
    return entry;
  }

  /** Rows in any order and parts of any size, as a database may give them; the range decides how many parts. */
  #entryOf(
    store: Store,
    kind: 'delta' | 'base',
    range: {
      topic: string;
      from: number;
      to: number;
      applied: number;
      duplicate: number;
      rejected: number;
      removed: number;
      gaps: readonly Gap[];
    }[],
    before: Int8Array,
    after: Int8Array,
    keeps: readonly string[],
  ): OutboxEntry {
    const { cubeSet } = store;
    const rows: [number, number][] = [];
    for (const [number, name] of cubeNames.entries()) {
      if (keeps.includes(name)) continue;
      // A column that the store does not keep is null in every row.
      const lacks = name === 'two' && isWideSet(cubeSet) && !store.file.committed.isWide;
      const counts = (of: Int8Array) => cubeOf(cubeSet, name, lacks ? new Int32Array(groups) : countOf(of));
      const [was, is] = [counts(before), counts(after)];
      for (let group = 0; group < groups; group++) {
        const change = (is[group] as number) - (was[group] as number);
        if (change !== 0) rows.splice(this.#random(rows.length + 1), 0, [number * groups + group, change]);
      }
    }
    const header: DeltaHeader = {
      shard: store.shard,
      shards: this.#schedule.shards,
      generation: store.file.committed.generation,
      cubeSet,
      ...(keeps.length > 0 && { keeps }),
      storeId: store.writerId,
      kind,
      range,
      recordTimeMs: store.nextEntry,
    };
    const parts = Math.max(1, Math.ceil(rows.length / 2));
    const messages = Array.from({ length: parts }, (_, i) =>
      Buffer.concat([
        encodeDeltaHeader(schemaId, { ...header, part: i + 1, parts }),
        Buffer.from(Int8Array.from(rows.slice(i * 2, i * 2 + 2).flat())),
      ]),
    );
    return { number: store.nextEntry, header, messages };
  }

  async #reset(): Promise<void> {
    try {
      await this.#mark();
    } catch (thrown) {
      if (!(thrown instanceof Crash || thrown instanceof ReelflowError)) throw thrown;
    }
  }

  async #mark(): Promise<void> {
    // As `reset.ts`: it refuses while the group has members; a process outside the group may still wake up.
    if (this.#members.some(({ isBusy }) => isBusy) || this.#sinkBusy) return;
    this.#group.clear();
    const publishers = this.#deltas.map((_, shard) => this.#publisherOf(shard, undefined, () => true));
    for (const [shard, publisher] of publishers.entries()) {
      await publisher.fold(this.#deltas[shard]?.messages.length ?? 0);
    }
    this.counts.resets += 1;
    const ends = publishers.map((_, shard) => this.#ends(shard));
    const generation = await publishMarks({
      publishers: new Map(publishers.entries()),
      generationMin: 0,
      endsOf: (shard) => ends[shard] ?? {},
      encode: (mark) => [encodeDeltaHeader(schemaId, { ...mark, part: 1, parts: 1 })],
    });
    for (const [shard, position] of ends.entries()) this.#marks.set(`${generation}/${shard}`, position);
  }

  // The sink

  #startSink(): void {
    this.#followers.clear();
    this.#fetched.clear();
  }

  #followerOf(shard: number): Follower<{ value: Buffer; at: number }> {
    const follower = this.#followers.get(shard) ?? new Follower(this.#sinkShards.get(shard)?.state);
    this.#followers.set(shard, follower);
    return follower;
  }

  async #readDeltas(shard: number, size: number): Promise<void> {
    if (this.#sinkBusy) return;
    this.#sinkBusy = true;
    try {
      const { start, messages } = this.#deltas[shard] as { start: number; messages: Buffer[] };
      const before = this.#sinkShards.get(shard);
      const first = this.#fetched.get(shard) ?? before?.state.next ?? 0;
      if (first < start) throw new Broken(`the sink is to read ${first}, the log begins at ${start}`);
      const end = Math.min(messages.length, first + size);
      if (end <= first) return;
      const follower = this.#followerOf(shard);
      let cubes = before?.cubes ?? noCubes();
      for (let offset = first; offset < end; offset++) {
        const value = messages[offset] as Buffer;
        const { header, at } = decodeDeltaHeader(value, schemaId);
        const { chain } = follower;
        const { verdict, parts } = follower.follow(header, offset, { value, at });
        if (verdict === 'refuse') this.counts.refused += 1;
        if (verdict !== 'apply') {
          if (follower.chain !== chain)
            throw new Broken(`a delta that was not applied (${verdict}) moved the chain`);
          continue;
        }
        this.counts.deltas += 1;
        this.#checkOrder(chain, follower.chain);
        const { keeps = [] } = header;
        const isKept = (name: CubeName) => header.kind === 'delta' || keeps.includes(name);
        cubes = {
          one: isKept('one') ? cubes.one.slice() : new Int32Array(groups),
          two: isKept('two') ? cubes.two.slice() : new Int32Array(groups),
        };
        for (const part of parts) {
          for (let byte = part.at; byte < part.value.length; byte += 2) {
            const group = part.value.readInt8(byte) % groups;
            const cube = cubes[cubeNames[(part.value.readInt8(byte) / groups) | 0] as CubeName];
            cube[group] = (cube[group] as number) + part.value.readInt8(byte + 1);
          }
        }
      }
      await this.#point(undefined);
      // The commit.
      const { state } = follower;
      if (state !== undefined) {
        this.#sinkShards.set(shard, { state, cubes });
        this.#sinkPast = [...this.#sinkPast, new Map(this.#sinkShards)].slice(-8);
        this.#check(shard);
      }
      this.#fetched.set(shard, end);
      await this.#point(undefined);
    } catch (thrown) {
      if (!(thrown instanceof Crash)) throw thrown;
      this.#startSink();
    } finally {
      this.#sinkBusy = false;
    }
  }

  #checkOrder(old: ChainState, now: ChainState): void {
    if (now.generation < old.generation) throw new Broken('the generation went backwards');
    // A topic that the new cubes do not read leaves with the earlier ones.
    const before = old.cubeSet === now.cubeSet ? old.position : onTopics(old.position, topicsOf(now.cubeSet));
    if (now.generation === old.generation && !notAfter(before, now.position)) {
      throw new Broken(`a shard went backwards to ${JSON.stringify(now.position)}`);
    }
  }

  /** What must hold of every state of the sink. */
  #check(shard: number): void {
    const { state, cubes } = this.#sinkShards.get(shard) as SinkShard;
    const { position, gaps, cubeSet } = state.chain;
    const folds = new Map(
      topics.map((topic) => [topic, this.#foldOf(shard, topic, nextIn(position, topic), gaps[topic] ?? [])]),
    );
    const counts = new Int32Array(groups);
    for (const { cube } of folds.values())
      for (const [group, count] of cube.entries()) counts[group] = (counts[group] as number) + count;
    for (const name of cubeNames) {
      const expected = cubeOf(cubeSet, name, counts);
      if (cubes[name].join() !== expected.join()) {
        throw new Broken(
          `shard ${shard} at ${JSON.stringify(position)}: cube ${name} is ${cubes[name]}, not ${expected}`,
        );
      }
    }
    for (const topic of topics) {
      const { applied, duplicate, rejected } = state.counts[topic] ?? {
        applied: 0,
        duplicate: 0,
        rejected: 0,
        removed: 0,
      };
      const records = folds.get(topic)?.records;
      if (applied + duplicate + rejected !== records) {
        throw new Broken(
          `${topic}/${shard}: ${applied} + ${duplicate} + ${rejected} are not ${records} records`,
        );
      }
    }
  }

  #snapshot(): void {
    const shards = this.#sinkShards;
    if (shards.size === 0) return;
    const newest = this.#snapshots.at(-1);
    const states = new Map([...shards].map(([shard, { state }]) => [shard, state]));
    // As `Publication`: a built-in cube must be complete, one of a user is left out.
    const other = otherCubes(states, versionsIn(this.#cubeSet));
    if (other.has('one')) return;
    const ready = [...versionsIn(this.#cubeSet).keys()].filter((name) => !other.has(name));
    if (ready.length === 0) return;
    const read = new Set<string>(ready.includes('one') ? topics : ['b']);
    const held = { shards: states, people: new Map(), peopleTopic: 'names', topics: read };
    if (
      !isAhead(held, newest?.current) ||
      !hasReached(held, newest?.current, (topic, shard) => nextIn(this.#ends(shard), topic))
    )
      return;
    for (const name of ready) {
      const versions = new Set([...states.values()].map(({ chain }) => versionsIn(chain.cubeSet).get(name)));
      if ([...states.values()].some(({ chain }) => chain.cubeSet === '')) versions.delete(undefined);
      if (versions.size > 1) throw new Broken(`a snapshot holds cube ${name} of two versions`);
    }
    for (const [shard, { state }] of newest?.shards ?? []) {
      const now = shards.get(shard)?.state.chain ?? { generation: -1, position: {} };
      // Also after a reset: the sources of these schedules never become shorter.
      const before = onTopics(state.chain.position, [...read]);
      if (now.generation < state.chain.generation || !notAfter(before, now.position)) {
        throw new Broken('a snapshot went backwards');
      }
    }
    for (const [shard, { state }] of shards) {
      const mark = this.#marks.get(`${state.chain.generation}/${shard}`) ?? {};
      if (!notAfter(onTopics(mark, [...read]), state.chain.position))
        throw new Broken('a snapshot is less than what was before a reset');
    }
    this.counts.snapshots += 1;
    this.#snapshots.push({ shards: new Map(shards), current: currentOf(shards) });
    this.#snapshots = this.#snapshots.slice(-keepSnapshots);
    for (const [shard, { state }] of this.#snapshots[0]?.shards ?? []) {
      const log = this.#deltas[shard] as { start: number };
      log.start = Math.max(log.start, state.lastDelta);
    }
  }

  // The end

  /** The faults stop; everybody hears what the group says. */
  async heal(): Promise<void> {
    while (this.#late.length > 0) await this.step({ kind: 'late', member: 0, shard: 0, size: 1 });
    for (const [i, { cubeSet }] of this.#members.entries()) if (cubeSet !== this.#cubeSet) this.#kill(i);
    const still = { member: 0, shard: 0, size: 1 };
    if (!this.#members.some(({ isUp }) => isUp)) await this.step({ ...still, kind: 'start' });
    this.#group = new Set(this.#members.flatMap(({ isUp }, i) => (isUp ? [i] : [])));
    this.#deal(true);
    for (let round = 0; round < 8; round++) {
      for (const member of this.#members.keys()) {
        await this.step({ ...still, member, kind: 'hear' });
        for (let shard = 0; shard < this.#schedule.shards; shard++) {
          await this.step({ kind: 'work', member, shard, size: 1_000 });
          await this.step({ kind: 'sink', member, shard, size: 1_000 });
        }
      }
      if (this.#members.every(({ isUp }) => !isUp)) {
        await this.step({ ...still, kind: 'start' });
      } else if (this.#group.size > 0) {
        this.#deal(true);
      }
    }
    for (let shard = 0; shard < this.#schedule.shards; shard++) {
      const position = this.#sinkShards.get(shard)?.state.chain.position ?? {};
      if (!notAfter(onTopics(this.#ends(shard), topicsOf(this.#cubeSet)), position)) {
        throw new Broken(
          `shard ${shard} stays at ${JSON.stringify(position)}, short of ${JSON.stringify(this.#ends(shard))}`,
        );
      }
    }
    this.#snapshot();
    for (const [shard, { state }] of this.#sinkShards) {
      const held = this.#snapshots.at(-1)?.shards.get(shard)?.state.chain;
      const { generation, position, gaps, cubeSet } = state.chain;
      if (
        held?.generation !== generation ||
        held.cubeSet !== cubeSet ||
        !notAfter(position, held.position) ||
        !sameGaps(gaps, held.gaps)
      ) {
        throw new Broken('the newest snapshot stays behind');
      }
    }
  }
}

const seen = ({ committed }: File): number => {
  let sum = 0;
  for (const { applied, duplicate, rejected } of Object.values(committed.sources))
    sum += applied + duplicate + rejected;
  return sum;
};

/** What a manifest says of the shards. */
function currentOf(shards: ReadonlyMap<number, SinkShard>): NonNullable<Current> {
  const input: Record<string, Record<string, [number, number]>> = {};
  const states: NonNullable<Current>['shards'] = {};
  for (const [shard, { state }] of shards) {
    const { chain, counts, lastDelta } = state;
    const sources: (typeof states)[string]['sources'] = {};
    for (const [topic, next] of Object.entries(chain.position)) {
      const gaps = [...(chain.gaps[topic] ?? [])].map(([from, to]): [number, number] => [from, to]);
      sources[topic] = { ...(counts[topic] ?? noRecords), next, gaps };
      input[topic] = { ...input[topic], [shard]: [startAfter(gaps), next] };
    }
    states[shard] = {
      generation: chain.generation,
      cubeSet: chain.cubeSet,
      shards: state.shards,
      lastDelta,
      sources,
    };
  }
  return { input, shards: states };
}

export interface Failure {
  readonly seed: number;
  readonly reason: string;
  readonly schedule: Schedule;
}

async function reasonOf(schedule: Schedule, seed: number, bug?: ModelBug): Promise<string | undefined> {
  try {
    await run(schedule, seed, bug);
    return undefined;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}

/** Drops steps and faults for as long as the schedule still fails. */
async function shrink(schedule: Schedule, seed: number, bug?: ModelBug): Promise<Failure> {
  let least = schedule;
  let reason = (await reasonOf(schedule, seed, bug)) ?? '';
  const fails = async (steps: readonly Step[]) => {
    const found = await reasonOf({ ...schedule, steps }, seed, bug);
    if (found === undefined) return false;
    least = { ...schedule, steps };
    reason = found;
    return true;
  };
  for (let length = least.steps.length; length >= 1; length = length > 1 ? length >> 1 : 0) {
    for (let at = 0; at < least.steps.length; ) {
      if (!(await fails(least.steps.toSpliced(at, length)))) at += length;
    }
  }
  for (let at = 0; at < least.steps.length; at++) {
    const { fault: _, ...step } = least.steps[at] as Step;
    await fails(least.steps.with(at, step));
  }
  return { seed, reason, schedule: least };
}

/** Runs the schedules of `count` seeds from `seed` on. @returns the first failure, shrunk */
export async function simulate(
  seed: number,
  count: number,
  bug?: ModelBug,
  how: 'shrunk' | 'unshrunk' = 'shrunk',
): Promise<Failure | undefined> {
  for (let i = 0; i < count; i++) {
    const schedule = scheduleOf(seed + i);
    const reason = await reasonOf(schedule, seed + i, bug);
    if (reason === undefined) continue;
    return how === 'shrunk' ? shrink(schedule, seed + i, bug) : { seed: seed + i, reason, schedule };
  }
  return undefined;
}

export function failureText({ seed, reason, schedule }: Failure): string {
  const steps = schedule.steps.map((step) => `  ${JSON.stringify(step)}`).join('\n');
  return `seed ${seed}: ${reason}\n${JSON.stringify({ ...schedule, steps: schedule.steps.length })}\n${steps}`;
}
