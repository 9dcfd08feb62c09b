/**
 * The protocol of processors and sink under seeded schedules of faults, and the product with one guard after the other
 * taken out: the rules that the simulator checks after every step have to notice each of them.
 * `SIMULATOR_SEED` and `SIMULATOR_SCHEDULES` run others than the usual ones.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { Follower } from '../../sinks/follower.ts';
import type { DeltaPart } from '../../topics/delta-wire.ts';
import { deltaHeader } from '../support/deltas.ts';
import { mutants, type Verdict } from './mutants.ts';
import { failureText, type ModelBug, run, type Schedule, type Step, simulate } from './simulator.ts';

const usualSeed = 20_261_121;
const count = Number(process.env.SIMULATOR_SCHEDULES ?? 1_000);
const randomSeed = Number(process.env.SIMULATOR_SEED ?? Math.floor(Math.random() * 2 ** 30));

test.each([
  ['the usual', usualSeed],
  ['a random', randomSeed],
  // Its first schedule had a mark that arrived in place of a later one.
  ['a former', 387_500_557, 1],
])(
  'after every step the sink is the fold of the log, and in the end all of it: %s seed, %i',
  async (_, seed, schedules = count) => {
    const startedMs = performance.now();
    const failure = await simulate(seed, schedules);
    const perSecond = Math.round(schedules / ((performance.now() - startedMs) / 1_000));
    console.log(`simulator: ${schedules} schedules from seed ${seed}, ${perSecond} a second`);
    expect(failure && failureText(failure)).toBeUndefined();
  },
  120_000,
);

const step = (kind: Step['kind'], member: number, fault?: NonNullable<Step['fault']>): Step => ({
  kind,
  member,
  shard: 0,
  size: 4,
  ...(fault && { fault }),
});

/**
 * Both the original of a store and its copy publish the same range, and the one is cut off between its parts while the
 * other goes on.
 */
function originalAndCopy(at: number, cutAt: number): Schedule {
  const cut = step('work', 1, { kind: 'crash', at: cutAt, inner: undefined });
  const steps = [
    ...[step('produce', 0), step('work', 0), step('backup', 0), step('restore', 1), step('start', 1)],
    ...[step('deal', 0), step('deal', 0), step('hear', 1)],
    ...[step('produce', 0), step('produce', 0), step('produce', 0)],
    step('work', 0, { kind: 'meanwhile', at, inner: cut }),
    ...[step('sink', 0), step('sink', 0)],
  ];
  return { shards: 1, sharing: 1, isCalm: false, steps };
}

async function failuresOfCopies(bug?: ModelBug): Promise<number> {
  let failures = 0;
  for (let seed = 0; seed < 400; seed++) {
    const schedule = originalAndCopy(1 + (seed % 6), 3 + (seed % 3));
    await run(schedule, seed, bug).catch(() => {
      failures += 1;
    });
  }
  return failures;
}

test('parts from a store and from its copy never form one delta', async () => {
  expect(await failuresOfCopies()).toBe(0);
  expect(await failuresOfCopies('store-is-writer')).toBeGreaterThan(0);
});

const held = (at: number): NonNullable<Step['fault']> => ({ kind: 'hold', at, inner: undefined });

async function failuresOf(schedule: (seed: number) => readonly Step[]): Promise<string[]> {
  const reasons = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const steps = schedule(seed);
    await run({ shards: 1, sharing: 1, isCalm: false, steps }, seed).catch((thrown: Error) => {
      reasons.add(thrown.message);
    });
  }
  return [...reasons];
}

// Method: its request waits in the network until CURRENT holds more than the mark names; without the comparison with
// CURRENT four of five of these schedules publish a smaller snapshot.
test('the late mark of a killed reset never lets CURRENT go back', async () => {
  const schedule = (seed: number) => [
    ...[step('produce', 0), step('start', 0), step('work', 0), step('sink', 0), step('snapshot', 0)],
    ...[{ ...step('reset', 0, held(seed % 3)), size: 1 }, step('produce', 0), step('produce', 0)],
    ...[step('work', 0), step('work', 0), step('sink', 0), step('snapshot', 0)],
    ...[step('late', 0), step('hear', 0), { ...step('work', 0), size: 2 + (seed % 4) }],
    ...[step('sink', 0), step('snapshot', 0)],
  ];
  expect(await failuresOf(schedule)).toEqual([]);
});

// Method: the mark of the first reset arrives while the second one sends its own. Without another attempt the second
// reset ends, and a snapshot holds less than it has promised.
test('a reset whose generation another mark has begun begins the next one', async () => {
  const schedule = (seed: number) => [
    ...[step('produce', 0), step('start', 0), step('work', 0), step('sink', 0), step('snapshot', 0)],
    ...[{ ...step('reset', 0, held(0)), size: 1 }, step('produce', 0), step('produce', 0)],
    { ...step('reset', 0, { kind: 'meanwhile', at: seed % 6, inner: step('late', 0) }), size: 1 },
    ...[step('hear', 0), { ...step('work', 0), size: 2 + (seed % 4) }],
    ...[step('sink', 0), step('snapshot', 0)],
  ];
  expect(await failuresOf(schedule)).toEqual([]);
});

test('the position of the sink never lies between the parts of a delta', () => {
  const part = (from: number, to: number, number: number, parts: number): DeltaPart => ({
    ...deltaHeader({ a: from }, { a: to }, { storeId: `s${parts}` }),
    part: number,
    parts,
  });
  const follower = new Follower<number>();
  expect(follower.follow(part(0, 1, 1, 1), 0, 0)).toMatchObject({ verdict: 'apply', parts: [0] });
  expect(follower.follow(part(1, 3, 1, 2), 1, 1).verdict).toBe('collect');
  // What is contained, what does not go on, and what is not a delta, between the parts.
  expect(follower.follow(part(0, 1, 1, 1), 2, 2).verdict).toBe('skip');
  expect(follower.follow(part(2, 4, 1, 1), 3, 3).verdict).toBe('refuse');
  follower.pass(4);
  expect(follower.state).toMatchObject({ next: 1, lastDelta: 0 });
  const restarted = new Follower<number>(follower.state);
  expect(restarted.follow(part(1, 3, 1, 2), 1, 1).verdict).toBe('collect');
  expect(restarted.follow(part(1, 3, 2, 2), 5, 5)).toMatchObject({ verdict: 'apply', parts: [1, 5] });
  expect(restarted.state).toMatchObject({ next: 6, lastDelta: 1, chain: { position: { a: 3 } } });
});

/** Runs every `of`th mutant in a process of its own, where Node loads the product without a test runner. */
async function judge(of: number, nth: number, onVerdict: (verdict: Verdict) => void): Promise<void> {
  const program = fileURLToPath(new URL('./mutants.ts', import.meta.url));
  const child = spawn(process.execPath, [program, String(usualSeed), String(of), String(nth)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '--disable-warning=ExperimentalWarning' },
  });
  let errors = '';
  child.stderr.on('data', (data) => {
    errors += data;
  });
  const closed = new Promise((resolve) => child.on('close', resolve));
  for await (const line of createInterface({ input: child.stdout })) onVerdict(JSON.parse(line) as Verdict);
  expect([await closed, errors]).toEqual([0, '']);
}

test('the simulator detects each missing guard', async () => {
  const verdicts: Verdict[] = [];
  await Promise.all([0, 1].map((nth) => judge(2, nth, (verdict) => verdicts.push(verdict))));
  expect(verdicts).toHaveLength(mutants.length);
  expect(verdicts.filter(({ reason }) => reason === null)).toEqual([]);
}, 300_000);
