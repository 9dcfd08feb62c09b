/**
 * The simulator against the product with a guard taken out, one at a time: every mutant has to break a rule within so
 * many schedules. Run as a program it prints one JSON line a mutant.
 */
import { type Change, installMutants } from './mutation.ts';
import type { Failure, ModelBug } from './simulator.ts';

interface Mutant {
  readonly name: string;
  /** What is changed in the product, or what the model of its SQL does wrong. */
  readonly change: Change | ModelBug;
}

const chain = (name: string, from: string, to: string): Mutant => ({
  name: `chain: ${name}`,
  change: { file: 'topics/delta-chain.ts', from, to },
});
const plan = (name: string, from: string, to: string): Mutant => ({
  name: `plan: ${name}`,
  change: { file: 'processors/plan.ts', from, to },
});
const of = (file: string, name: string, from: string, to: string): Mutant => ({
  name,
  change: { file, from, to },
});

/**
 * Not here, because nothing that these schedules reach depends on them alone: a gap, a generation without its mark and
 * a mark that comes twice, the versions and gaps of a late base that keeps cubes (delta-chain.test.ts), a snapshot that differs in nothing but its generation, and topics that no cube needs (progress.test.ts), messages between parts and late marks of resets (simulator.test.ts), catching up aloud, which costs
 * time only.
 */
export const mutants: readonly Mutant[] = [
  // The four bugs of the issue.
  { name: 'the guard on the next offset is skipped', change: 'no-guard' },
  { name: 'the outbox is forgotten by the store', change: 'no-outbox' },
  { name: 'a delta is published before its commit', change: 'publish-before-commit' },
  of(
    'processors/tenure.ts',
    'the outbox is marked without being published',
    'if (plan.publish.includes(entry.number)) await this.#publish(entry);',
    '',
  ),
  chain(
    'deltas are applied by number instead of by range',
    `if (!samePosition(from, position)) return 'refuse';`,
    `if (part.recordTimeMs !== (Number((this as any).number) || 0) + 1) return 'refuse';
     if (part.part === part.parts) (this as any).number = part.recordTimeMs;`,
  ),
  chain('any range is applied', `if (!samePosition(from, position)) return 'refuse';`, ''),
  chain(
    'an overlap is applied',
    `if (!samePosition(from, position)) return 'refuse';`,
    `if (!notAfter(from, position)) return 'refuse';`,
  ),
  chain('older generations live', `if (part.generation < generation) return 'dead';`, ''),
  chain(
    'a reset keeps the position',
    `this.#state = startOf(part.generation);`,
    `this.#state = { ...startOf(part.generation), position };`,
  ),
  chain('cube sets mix', `if (cubeSet !== '' && part.cubeSet !== cubeSet) return 'refuse';`, ''),
  chain(
    'a base may go back',
    `if (keeps.length === 0) return notAfter(before, to);`,
    `if (keeps.length === 0) return true;`,
  ),
  chain('a base of some cubes counts later too', `samePosition(before, to) &&`, `notAfter(to, before) &&`),
  chain(
    'stores mix that have lost other messages',
    `if (!sameGaps(gapsBefore(gapsOf(part), from), gaps)) return 'refuse';`,
    '',
  ),
  chain('a part may be missing', `if (part.part !== expected) return 'skip';`, ''),
  chain(
    'any part may be the last',
    `if (part.part < part.parts) {`,
    `if (part.part < part.parts && false) {`,
  ),
  chain('a trimmed log begins at nothing', `      this.#state = stateBefore(part);\n`, ''),
  chain(
    'a trimmed log is taken for whole',
    `this.#isTrimmed = state === 'trimmed';`,
    `this.#isTrimmed = false;`,
  ),

  plan(
    'catching up has no end',
    `return { kind: 'catch-up', to: published.position };`,
    `return { kind: 'catch-up', to: { a: 1e9, b: 1e9 } };`,
  ),
  plan(
    'the outbox need not lead to the store',
    `if (samePosition(reduced(reached.state, topics).position, position)) {`,
    `if (left.length > 0) {`,
  ),
  plan(
    'a loss that was passed silently is no reason for a base',
    `if (notAfter(published.position, position) && !sameGaps(gaps, published.gaps)) {`,
    `if (false) {`,
  ),
  plan('nothing of the outbox is left', `publish: left.map(({ number }) => number)`, `publish: []`),
  plan(
    'all cube sets are the same',
    `return published.cubeSet === '' || published.cubeSet === cubeSet`,
    `return true`,
  ),
  plan(
    'a store that went another way is published as a base',
    `if (samePosition(published.position, {})) {`,
    `if (true) {`,
  ),
  plan(
    'a store that has nothing to publish publishes a base',
    `      ? { kind: 'continue', publish: [] }\n      : {`,
    `      ? { kind: 'base', keeps: [], why: '' }\n      : {`,
  ),

  of(
    'processors/publisher.ts',
    'what is sent counts as published',
    `    return (\n      generation ===`,
    `    return true || (\n      generation ===`,
  ),
  of(
    'processors/publisher.ts',
    'messages of other owners are not read',
    `if (offset !== this.#next) await this.fold(offset);`,
    `this.#next = offset;`,
  ),
  of(
    'processors/tenure.ts',
    'an owner does not check what others have published',
    `return this.#publisher.published !== before;`,
    `return false;`,
  ),
  of('processors/tenure.ts', 'catching up never ends', `      this.#silentTo = undefined;\n`, ''),
  of(
    'processors/tenure.ts',
    'a rebuilt store does not catch up',
    `        this.#silentTo = await this.#work.reach(this.store, onTopics(published.position, this.#cubes.topics));\n`,
    '',
  ),
  of('processors/tenure.ts', 'cubes of another set stay as they are', `await this.reconcile();`, ''),

  of(
    'processors/tenure.ts',
    'a store that lacks a column is not adapted',
    `if (plan.kind !== 'rebuild' && !this.store.fitsCubes) {`,
    `if (false) {`,
  ),
  of(
    'topics/cube-versions.ts',
    'a cube of another version is kept',
    `other.get(name) === version)`,
    `other.has(name))`,
  ),

  of(
    'sinks/follower.ts',
    'a base adds to what was',
    `part.kind === 'delta' ? { ...state?.counts } : {}`,
    `{ ...state?.counts }`,
  ),
  of(
    'sinks/follower.ts',
    'a repeated part counts twice',
    `const pending = header.part === 1 ? undefined : this.#pending.get(key);`,
    `const pending = this.#pending.get(key);`,
  ),
  of(
    'sinks/follower.ts',
    'the log is trimmed up to the last part',
    `const first = pending?.first ?? offset;`,
    `const first = offset;`,
  ),
  of('sinks/progress.ts', 'nothing is ever new', `end(topic, shard) < next`, `end(topic, shard) > next`),
  of(
    'sinks/progress.ts',
    'a base of other cubes is nothing new',
    `current.shards[shard]?.cubeSet !== chain.cubeSet ||`,
    '',
  ),
  of(
    'sinks/progress.ts',
    'a snapshot may hold the cubes of two versions',
    `if (held.get(name) !== version)`,
    `if (!held.has(name))`,
  ),
  of(
    'sinks/progress.ts',
    'a base that lacks other messages is nothing new',
    `!sameGaps(chain.gaps, gapsIn(current, shard))`,
    `false`,
  ),
  of(
    'sinks/progress.ts',
    'a snapshot may hold less than the one before',
    `return notAfter(position, state.chain.position);`,
    `return true;`,
  ),
  of('sinks/progress.ts', 'a reset holds nothing back', `if (next < end) return false;`, ''),
  of(
    'kafka/shard-assignment.ts',
    'a shard is dealt to no member',
    `if (owners[shard] !== undefined) continue;`,
    `if (owners[shard] !== undefined || shard > 0) continue;`,
  ),
];

/** Modules between the simulator and what is changed. */
const dependents = new Set([
  'topics/cube-versions.ts',
  'topics/delta-chain.ts',
  'processors/plan.ts',
  'processors/publisher.ts',
  'processors/tenure.ts',
  'sinks/follower.ts',
  'sinks/progress.ts',
  'kafka/shard-assignment.ts',
]);

export interface Verdict {
  readonly name: string;
  /** What the simulator said; null when it noticed nothing. */
  readonly reason: string | null;
  /** Schedules until then. */
  readonly schedules: number;
}

async function judge(number: number, seed: number, schedulesMax: number): Promise<Verdict> {
  const { name, change } = mutants[number] as Mutant;
  const url = `${new URL('./simulator.ts', import.meta.url).href}?mutant=${number}`;
  const { simulate } = (await import(url)) as typeof import('./simulator.ts');
  const bug = typeof change === 'string' ? change : undefined;
  const failure: Failure | undefined = await simulate(seed, schedulesMax, bug, 'unshrunk');
  return {
    name,
    reason: failure?.reason ?? null,
    schedules: failure ? failure.seed - seed + 1 : schedulesMax,
  };
}

if (import.meta.main) {
  installMutants(
    mutants.map(({ change }) => (typeof change === 'string' ? undefined : change)),
    dependents,
  );
  const [seed = 1, of = 1, nth = 0, schedulesMax = 5_000] = process.argv.slice(2).map(Number);
  for (const number of mutants.keys()) {
    if (number % of !== nth) continue;
    process.stdout.write(`${JSON.stringify(await judge(number, seed, schedulesMax))}\n`);
  }
}
