/**
 * The fault run: dumps are replayed without a break while producers, processor members, sink, broker and registry are
 * killed, put to sleep past their sessions, cut off from each other, and given yesterday's state, all by a seed. A
 * reader follows CURRENT meanwhile. In the end all faults stop, everything finishes, and gold must equal the batch
 * computation of all rows that were ever replayed, with each record of the topics accounted for.
 *
 * The seed decides which faults come, when and to whom; what the processes are doing in that moment it cannot decide.
 */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import avsc from 'avsc';
import { Command } from 'commander';
import { tableText } from '../../cli/table.ts';
import { type Broker, createBroker } from '../../kafka/client.ts';
import { startJvmServices } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { scanTopic } from '../../kafka/scan.ts';
import { exitCodes, messageOf } from '../../runtime/errors.ts';
import { createLogger } from '../../runtime/logger.ts';
import { currentSnapshot, readManifest } from '../../sinks/gold/manifest.ts';
import { type DatasetName, datasetNames, type TopicNames, topicNamesIn } from '../../topics/catalog.ts';
import { schemaText } from '../../topics/registry.ts';
import { goldDifferences } from '../support/gold-differences.ts';
import { followCurrent } from '../support/gold-reader.ts';
import { BadNetwork } from './bad-network.ts';
import { Actor, type End, type Tally } from './cast.ts';
import { Chance } from './chance.ts';
import { Dumps } from './dumps.ts';

interface Flags {
  seed: number;
  kills: number;
  minutes: number;
  titles: number;
  outageMax: number;
  keep?: true;
}

const flags = new Command('test:chaos')
  .description('inject random faults; the same seed gives the same faults')
  .option('--seed <n>', 'seed of the faults and the rows', Number, Math.floor(Math.random() * 2 ** 31))
  .option('--kills <n>', 'number of kill -9', Number, 200)
  .option('--minutes <n>', 'stop injecting faults after this many minutes', Number, 20)
  .option('--titles <n>', 'titles of the first dump', Number, 3_000)
  .option('--outage-max <seconds>', 'longest outage of broker or registry, 5 at least', Number, 120)
  .option('--keep', 'keep the folder of a run that passed')
  .parse()
  .opts<Flags>();

const root = fileURLToPath(new URL('../..', import.meta.url));
const weights = {
  'kill a producer': 22,
  'kill a processor': 30,
  'kill the sink': 20,
  'kill the broker': 2,
  'kill the registry': 2,
  'outage of the broker': 1,
  'outage of the registry': 1,
  'hang of the broker': 1,
  'hang of the registry': 1,
  'stop a member past its session': 5,
  'stop the sink past its session': 1,
  'members join or leave': 6,
  'cut all connections': 5,
  'delay the network': 3,
  'half-open connections': 3,
  'lose acknowledgements': 6,
  "restore yesterday's state": 4,
  "lose a member's state": 2,
  "lose the sink's state": 1,
} as const;
type Fault = keyof typeof weights;

/** Ends that a broken network explains; all others are findings. */
const excused: ReadonlySet<number | null> = new Set([
  exitCodes.brokerUnreachable,
  exitCodes.registryUnreachable,
  exitCodes.busy,
]);

const folder = mkdtempSync(join(tmpdir(), 'reelflow-faults-'));
const gold = join(folder, 'gold');
const namespace = 'faults';
const names: TopicNames = topicNamesIn(namespace);
const violations: string[] = [];
const done = new Map<string, number>();
const ends = new Map<string, number>();
const tally: Tally = { refused: 0, silent: 0, healed: 0, restored: 0 };
const started = Date.now();
/** Whether a broken network may still be felt. */
let isFaulting = true;
/** Whether there are more kills to come. */
let isAnyKilled = true;

const seconds = () => ((Date.now() - started) / 1000).toFixed(1).padStart(6);
const say = (line: string) => process.stdout.write(`${seconds()} s  ${line}\n`);
const count = (of: Map<string, number>, name: string) => of.set(name, (of.get(name) ?? 0) + 1);
function violate(what: string): void {
  violations.push(what);
  say(`VIOLATION ${what}`);
}

say(`seed ${flags.seed}, ${flags.kills} kills, in ${folder}`);
const [brokerPort, controllerPort, registryPort, proxyPort] = (await freePorts(4)) as [
  number,
  number,
  number,
  number,
];
const proxy = await BadNetwork.start(proxyPort, { host: '127.0.0.1', port: brokerPort });
const services = await startJvmServices({
  folder: join(folder, 'services'),
  jars: join(root, '.reelflow', 'jars'),
  brokerPort,
  controllerPort,
  registryPort,
  env: process.env,
  brokerProperties: {
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${proxyPort}`,
    'broker.session.timeout.ms': '2000',
    'broker.heartbeat.interval.ms': '500',
  },
});
const endpoints = { brokers: [`127.0.0.1:${proxyPort}`], registryUrl: services.endpoints.registryUrl };
const env = { KAFKA_BROKERS: endpoints.brokers.join(), SCHEMA_REGISTRY_URL: endpoints.registryUrl };

const chance = new Chance(flags.seed);
const dumps = await Dumps.make(
  join(folder, 'data'),
  flags.titles,
  flags.seed,
  new Chance(flags.seed ^ 0x5eed),
);

function onEnd({ role, code, signal, words, hasWorked }: End): void {
  const kind = Object.entries(exitCodes).find(([, value]) => value === code)?.[0] ?? String(code ?? signal);
  count(ends, `${role.replace(/ .*/, '')}: ${kind}`);
  // A command may give up at its start. One that is at work waits until broker and registry are back.
  const isWaiting = code === exitCodes.brokerUnreachable || code === exitCodes.registryUnreachable;
  if (isFaulting && excused.has(code) && !(isWaiting && hasWorked)) return;
  violate(`${role} ended by itself with ${kind}: ${words.split('\n').slice(-8).join('\n')}`);
}

const common = (state: string) => [
  ...['--gold', gold],
  ...['--state', join(folder, state)],
  ...['--namespace', namespace],
];
const actor = (role: string, args: () => readonly string[]) =>
  new Actor(role, args, {
    env,
    cwd: folder,
    log: join(folder, `${role.replaceAll(' ', '-')}.log`),
    tally,
    onEnd,
  });
/** The first two share a folder, so a shard finds its store or its old owner; the third has one of its own. */
const stateOf = ['state-shared', 'state-shared', 'state-own'] as const;
const small = [
  ...['--verbose', '--max-records', '2000', '--window', '100ms', '--memory', '500MB'],
  ...['--backups', join(folder, 'backups'), '--backup-interval', '3s'],
];
const members = stateOf.map((state, n) =>
  actor(`member ${n + 1}`, () => ['process', ...common(state), ...small]),
);
const sink = actor('sink', () => [
  'sink',
  ...common('state-sink'),
  ...['--interval', '500ms', '--keep', '5', '--verbose', '--memory', '500MB'],
]);

// The producer: one dump after the other, each until it is whole.

const producerLog: string[] = [];
let producer: { kill(): void } | undefined;
let isProducing = true;

function runOnce(args: readonly string[]): Promise<{ code: number | null; stderr: string; stdout: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(root, 'cli/reelflow.js'), ...args], {
      cwd: folder,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stderr = '';
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-200_000);
    });
    if (args[0] === 'replay') producer = { kill: () => child.kill('SIGKILL') };
    child.once('close', (code) => {
      producer = undefined;
      resolve({ code, stderr, stdout });
    });
  });
}

async function produce(): Promise<void> {
  while (isProducing) {
    const dump = dumps.next(0.12);
    // The first goes slower, so that it is killed on its way as well.
    // Some ids of the dumps lie outside the range: their rejection is part of the run.
    const usual = [...common('state-producer'), '--rate', '15000', '--max-rejected', '100', '--json'];
    const args = ['replay', dump, '--upsert', ...usual];
    let resume: string[] = [];
    for (;;) {
      const { code, stderr } = await runOnce([...args, ...resume]);
      producerLog.push(`${dump} ${resume} ${code}\n${stderr}`);
      if (code === 0) break;
      if (code === exitCodes.input && resume.length > 0) {
        // Killed before its journal was begun: that of the dump before is there, and finished.
        resume = [];
        continue;
      }
      if (code !== null && !excused.has(code)) {
        violate(`a producer ended by itself with ${code}: ${stderr.slice(-600)}`);
        return;
      }
      if (code !== null) {
        count(ends, `producer: ${code}`);
        await delay(500);
      }
      resume = ['--resume'];
    }
  }
}

// Faults

let kills = 0;
let size = 3;
const busy = new Set<string>();
const background = new Set<Promise<unknown>>();

/** Runs a fault that takes a while beside the others; one of a name at a time. */
function beside(name: string, work: () => Promise<unknown>): boolean {
  if (busy.has(name)) return false;
  busy.add(name);
  const running = work()
    .catch((thrown) => violate(`${name}: ${messageOf(thrown)}`))
    .finally(() => {
      busy.delete(name);
      background.delete(running);
    });
  background.add(running);
  return true;
}

async function untilSo(holds: () => boolean, withinMs: number): Promise<boolean> {
  const deadline = Date.now() + withinMs;
  while (!holds()) {
    if (Date.now() > deadline) return false;
    await delay(50);
  }
  return true;
}

/** Half of the victims may do a piece of work before they die: else nothing would ever be done that could be lost. */
function killActor(name: string, victim: Actor, isPatient: boolean): boolean {
  return beside(name, async () => {
    if (isPatient) await untilSo(() => victim.hasWorked || !isAnyKilled, 12_000);
    if (!isAnyKilled || !(await victim.kill())) return;
    kills += 1;
    count(done, name.replace(/ \d$/, ''));
  });
}

function setSize(next: number): void {
  size = next;
  members.forEach((member, n) => {
    if (n < size) member.keep();
  });
}

/** Past a session, every fifth time past the patience of the watchdog as well. */
const sleepMs = (ms: number) => (ms % 5 === 0 ? 65_000 : 7_000 + (ms % 2_000));

const backups = new Map<string, string>();

/** Stops the members of a state folder, keeps or restores a copy of it, and goes on. */
async function withMembersDead(state: string, work: (path: string) => void): Promise<void> {
  const owners = members.filter((_, n) => stateOf[n] === state);
  for (const owner of owners) await owner.letGo('SIGKILL');
  kills += owners.length;
  work(join(folder, state));
  setSize(size);
}

function copyOf(path: string): string {
  const copy = `${path}.${backups.size}.${Date.now()}`;
  cpSync(path, copy, { recursive: true });
  return copy;
}

async function commit(fault: Fault, draw: { who: number; ms: number; patient: boolean }): Promise<boolean> {
  const { who, ms, patient } = draw;
  switch (fault) {
    case 'kill a producer': {
      const running = producer;
      if (running === undefined) return false;
      running.kill();
      kills += 1;
      count(done, fault);
      return true;
    }
    case 'kill a processor': {
      const n = who % size;
      return killActor(`${fault} ${n}`, members[n] as Actor, patient);
    }
    case 'kill the sink':
      return killActor(fault, sink, patient);
    case 'kill the broker':
    case 'kill the registry': {
      const service = fault === 'kill the broker' ? services.broker : services.registry;
      return beside('kill a service', async () => {
        await service.kill('SIGKILL');
        kills += 1;
        count(done, fault);
        await delay(ms % 1_000);
        await service.restart();
        await delay(2_000);
      });
    }
    case 'outage of the broker':
    case 'outage of the registry':
    case 'hang of the broker':
    case 'hang of the registry': {
      const service = fault.endsWith('broker') ? services.broker : services.registry;
      const forMs = 5_000 + (ms / 100_000) * (flags.outageMax - 5) * 1_000;
      return beside('kill a service', async () => {
        say(`${fault} for ${Math.round(forMs / 1_000)} s`);
        // A service that hangs keeps its connections and takes new ones; it answers none.
        const hangs = fault.startsWith('hang');
        await service.kill(hangs ? 'SIGSTOP' : 'SIGKILL');
        count(done, fault);
        await delay(forMs);
        if (hangs) await service.kill('SIGCONT');
        else await service.restart();
        await delay(2_000);
      });
    }
    case 'stop a member past its session':
      return beside(fault, async () => {
        if (await (members[who % size] as Actor).sleep(sleepMs(ms))) count(done, fault);
      });
    case 'stop the sink past its session':
      return beside(fault, async () => {
        if (await sink.sleep(sleepMs(ms))) count(done, fault);
      });
    case 'members join or leave': {
      const next = [2, 1, 3][who % 3] === size ? (size % 3) + 1 : ([2, 1, 3][who % 3] as number);
      return beside(fault, async () => {
        const leaving = members.slice(next);
        setSize(next);
        await Promise.all(leaving.map((member) => member.letGo('SIGTERM')));
        count(done, fault);
      });
    }
    case 'cut all connections':
      proxy.cut();
      count(done, fault);
      return true;
    case 'delay the network':
      return beside(fault, async () => {
        count(done, fault);
        proxy.delay(50 + (ms % 700));
        await delay(2_500);
        proxy.delay(0);
      });
    case 'half-open connections':
      return beside(fault, async () => {
        count(done, fault);
        proxy.halfOpen(2_000 + (ms % 6_000));
      });
    case 'lose acknowledgements':
      proxy.cutAnswers(1 + (who % 4));
      count(done, fault);
      return true;
    case "restore yesterday's state": {
      const state = stateOf[1 + (who % 2)] as string;
      return beside('states', async () => {
        await withMembersDead(state, (path) => {
          const old = backups.get(state);
          if (old !== undefined) {
            rmSync(path, { recursive: true, force: true });
            cpSync(old, path, { recursive: true });
            count(done, fault);
          }
          // Today's becomes yesterday's, unless a copy of yesterday is used once more.
          if (existsSync(path) && (old === undefined || patient)) backups.set(state, copyOf(path));
        });
      });
    }
    case "lose a member's state": {
      const state = stateOf[1 + (who % 2)] as string;
      return beside('states', async () => {
        await withMembersDead(state, (path) => rmSync(path, { recursive: true, force: true }));
        count(done, fault);
      });
    }
    case "lose the sink's state":
      return beside('kill the sink', async () => {
        await sink.letGo('SIGKILL');
        kills += 1;
        rmSync(join(folder, 'state-sink'), { recursive: true, force: true });
        sink.keep();
        count(done, fault);
      });
  }
}

// The end

/** Records that the chunks of a topic hold, read with avsc, which knows nothing of our codec. */
async function recordsOn(broker: Broker, topic: string, dataset: DatasetName): Promise<number> {
  const type = avsc.Type.forSchema(JSON.parse(schemaText(`imdb.${dataset}`)));
  let records = 0;
  for await (const { messages } of scanTopic(broker, topic)) {
    for (const { value } of messages) {
      const chunk = type.fromBuffer((value as Buffer).subarray(5)) as { records: []; deletes: [] };
      records += chunk.records.length + chunk.deletes.length;
    }
  }
  return records;
}

async function audit(): Promise<{ records: number; lines: string[] }> {
  const id = currentSnapshot(gold);
  if (id === undefined) {
    violate('there is no snapshot');
    return { records: 0, lines: [] };
  }
  const differences = await goldDifferences(gold, dumps.all);
  if (differences.length > 0) violate(`gold differs: ${JSON.stringify(differences.slice(0, 5))}`);

  const broker = createBroker(endpoints, createLogger('silent'));
  const manifest = readManifest(gold, id);
  const lines: string[] = [];
  let records = 0;
  for (const dataset of datasetNames) {
    const topic = names.source(dataset);
    const { applied = 0, duplicate = 0, rejected = 0 } = manifest.accounting[topic] ?? {};
    const onTopic = await recordsOn(broker, topic, dataset);
    records += onTopic;
    lines.push(
      `${topic}: ${onTopic} records = ${applied} applied + ${duplicate} duplicate + ${rejected} rejected`,
    );
    if (applied + duplicate + rejected !== onTopic) violate(`accounts do not close: ${lines.at(-1)}`);
  }
  return { records, lines };
}

async function finish(what: string, args: readonly string[]): Promise<void> {
  // One that has just been killed may be a member for as long as its session lasts.
  for (let attempt = 0; ; attempt++) {
    const { code, stderr, stdout } = await runOnce(args);
    const refused = /"refused":(\d+)/.exec(stdout);
    tally.refused += Number(refused?.[1] ?? 0);
    if (code === 0) return;
    if (attempt === 2 || !excused.has(code)) {
      violate(`${what} ended with ${code}: ${stderr.slice(-800)}`);
      return;
    }
  }
}

async function main(): Promise<void> {
  const producing = produce();
  await untilSo(() => dumps.count > 1, 30_000);
  setSize(3);
  sink.keep();
  const reader = followCurrent(gold, 50);
  await untilSo(() => currentSnapshot(gold) !== undefined, 30_000);
  say('the first snapshot is there: faults begin');

  const deadline = Date.now() + flags.minutes * 60_000;
  let lastTold = 0;
  let nextBrake = 10;
  while (kills < flags.kills && Date.now() < deadline && violations.length === 0) {
    const fault = chance.weighted(weights);
    const draw = { who: chance.int(0, 5), ms: chance.int(0, 99_999), patient: chance.next() < 0.5 };
    const gapMs = chance.int(300, 1_500);
    if (!(await commit(fault, draw))) count(done, 'skipped: not running, or the same fault is still active');
    await delay(gapMs);
    if (kills >= nextBrake) {
      // As tight as progress permits: what never gets done cannot be lost.
      const { snapshots } = reader.seen;
      await untilSo(() => reader.seen.snapshots > snapshots || violations.length > 0, 30_000);
      nextBrake = kills + 10;
    }
    if (kills - lastTold >= 20) {
      lastTold = kills;
      say(
        `${kills} kills, ${dumps.count} dumps, ${reader.seen.snapshots} snapshots, ${tally.refused} refused`,
      );
    }
  }
  isAnyKilled = false;
  say(`${kills} kills; faults end`);
  await Promise.all(background);
  proxy.calm();
  proxy.cut();
  isProducing = false;
  await producing;
  say('the last dump is whole');
  await Promise.all([...members, sink].map((each) => each.letGo('SIGTERM')));
  isFaulting = false;
  await finish('process', ['process', '--until-caught-up', '--json', ...common('state-shared'), ...small]);
  await finish('sink', ['sink', '--once', '--json', ...common('state-sink')]);
  const followed = await reader.stop();
  for (const violation of followed.violations.slice(0, 10)) violate(`the reader of CURRENT: ${violation}`);
  const { records, lines } = await audit();

  const table = tableText<readonly [string, number]>(
    [
      { head: 'fault', cell: ([what]) => what },
      { head: 'times', align: 'right', cell: ([, times]) => String(times) },
    ],
    [
      ...[...done].sort(),
      ...[...ends].sort().map(([end, times]) => [`ended by itself: ${end}`, times] as const),
    ],
  );
  process.stdout.write(`${table}\n${lines.join('\n')}\n`);
  say(
    `${kills} kills, ${dumps.count} dumps, ${records} records; the reader looked ${followed.looks} times and saw ${followed.snapshots} snapshots; ` +
      `${tally.refused} refused, ${tally.silent} silent catch-ups, ${tally.healed} healed or rebuilt, ${tally.restored} restored from backups`,
  );
}

for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => {
    violate(`interrupted by ${name}`);
  });
}
try {
  await main();
} catch (thrown) {
  violate(thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown));
} finally {
  isFaulting = true;
  isProducing = false;
  producer?.kill();
  await Promise.all([...members, sink].map((each) => each.letGo('SIGKILL')));
  await Promise.allSettled(background);
  await services.stop();
  await proxy.close();
}
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'producers.log'), producerLog.join('\n'));
if (violations.length > 0) {
  process.stdout.write(
    `FAILED\n${violations.join('\n')}\nAgain: npm run test:chaos -- --seed ${flags.seed} --kills ${flags.kills}\nLogs: ${folder} (${readdirSync(
      folder,
    )
      .filter((name) => name.endsWith('.log'))
      .join(', ')})\n`,
  );
  process.exitCode = 1;
} else {
  process.stdout.write(
    `PASSED: gold equals the batch computation, the accounts close (seed ${flags.seed})\n`,
  );
  if (flags.keep !== true) rmSync(folder, { recursive: true, force: true });
}
