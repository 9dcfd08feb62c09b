/**
 * What tests of the command line share: a place for each test (folder and namespace), the real command as child
 * processes, and readers of topics and gold. After a test its processes, files and topics are removed; folder and topics
 * of a failed test stay, and its error names them.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import avsc from 'avsc';
import kafkajs from 'kafkajs';
import { test as base, expect, inject } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { type Broker, createBroker, withAdmin } from '../../kafka/client.ts';
import { scanTopic } from '../../kafka/scan.ts';
import type { ProcessorReport } from '../../processors/processor-options.ts';
import { headerLineOf } from '../../producers/file-layout.ts';
import type { ReplayReport } from '../../producers/replay-report.ts';
import { generate } from '../../producers/synthetic/synthetic.ts';
import { environmentOf } from '../../runtime/config.ts';
import { createLogger } from '../../runtime/logger.ts';
import { currentSnapshot, type Manifest, readManifest } from '../../sinks/gold/manifest.ts';
import type { SinkReport } from '../../sinks/sink.ts';
import type { Difference } from '../../sinks/verify/compare.ts';
import {
  type DatasetName,
  datasetNames,
  datasets,
  type TopicNames,
  topicNamesIn,
} from '../../topics/catalog.ts';
import { schemaText } from '../../topics/registry.ts';
import { goldDifferences } from './gold-differences.ts';

/** The command line. */
export const program = fileURLToPath(new URL('../../cli/reelflow.js', import.meta.url));
/** Real files, beside the checkout; they are never copied. */
export const sample = fileURLToPath(new URL('../../../shared/imdb-sample', import.meta.url));

const endpoints = { brokers: inject('brokers'), registryUrl: inject('registryUrl') };

export const broker: Broker = createBroker(endpoints, createLogger('silent'));

/** The variables that name the shared broker and registry. */
export const servicesEnv = environmentOf(endpoints);

/** How long a condition is waited for: it fails a test only where it will never hold. */
const patienceMs = 120_000;

/** Lines of standard error that a failed test prints of each command. */
const tailLines = 40;

/** A line of a command's structured log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly level: string; readonly msg: string };

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

/** A command that runs, and what it has said so far. */
export class Running {
  readonly done: Promise<Finished>;
  readonly #child: ChildProcess;
  #stdout = '';
  #stderr = '';
  #isDone = false;
  #listeners = new Set<() => void>();

  constructor(args: readonly string[], options: { cwd: string; env: NodeJS.ProcessEnv }) {
    const started = performance.now();
    this.#child = spawn(process.execPath, [program, ...args], {
      ...options,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      for (const listener of this.#listeners) listener();
    });
    this.done = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('close', (code, signal) => {
        this.#isDone = true;
        for (const listener of this.#listeners) listener();
        const seconds = (performance.now() - started) / 1000;
        if (process.env.REELFLOW_TEST_TIMES) process.stderr.write(`${seconds.toFixed(1)} s ${args[0]}\n`);
        resolve({ code, signal, stdout: this.#stdout, stderr: this.#stderr, seconds });
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** What it has written until now. */
  get stdout(): string {
    return this.#stdout;
  }

  get log(): LogLine[] {
    return logOf(this.#stderr);
  }

  /** The first log line that matches. @throws when the command ends without one, or after so long that it never will */
  async logged(what: string, matches: (line: LogLine) => boolean): Promise<LogLine> {
    const { promise, resolve, reject } = Promise.withResolvers<LogLine>();
    const look = () => {
      const found = this.log.find(matches);
      if (found !== undefined) resolve(found);
      else if (this.#isDone) reject(new Error(`ended without logging ${what}\n${this.#stderr}`));
    };
    const timer = setTimeout(
      () => reject(new Error(`did not log ${what} in ${patienceMs / 1000} s\n${this.#stderr.slice(-4_000)}`)),
      patienceMs,
    );
    this.#listeners.add(look);
    look();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#listeners.delete(look);
    }
  }

  /** The command line, its exit and the end of its standard error, for a test that failed. */
  tail(): string {
    const { exitCode, signalCode, spawnargs } = this.#child;
    const lines = this.#stderr.trimEnd().split('\n').slice(-tailLines);
    return [`--- ${spawnargs.slice(2).join(' ')}: ${signalCode ?? exitCode ?? 'running'}`, ...lines].join(
      '\n',
    );
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Sends SIGTERM. @returns how it ended and how many seconds after the signal */
  async terminate(): Promise<Finished & { readonly secondsToEnd: number }> {
    const started = performance.now();
    this.kill('SIGTERM');
    const finished = await this.done;
    return { ...finished, secondsToEnd: (performance.now() - started) / 1000 };
  }
}

/** The lines of a structured log. */
export function logOf(stderr: string): LogLine[] {
  const lines = stderr.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
  return lines.map((line) => JSON.parse(line) as LogLine);
}

/** What a command says to people on standard error: all that is not a log line. */
export function spoken({ stderr }: Finished): string {
  return stderr
    .split('\n')
    .filter((line) => !line.startsWith('{'))
    .join('\n');
}

/** The last line of a command's output. */
export function lastJson<T>({ stdout }: Finished): T {
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T;
}

interface TopicMessage {
  readonly partition: number;
  readonly offset: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, string>>;
}

type Stage = 'replay' | 'process' | 'sink' | 'demo' | 'run' | 'reset';

/** Folder, namespace, state and gold of one test, and the commands that it runs there. */
export class Place {
  readonly folder = mkdtempSync(join(tmpdir(), 'reelflow-test-'));
  readonly namespace = `test-${randomBytes(5).toString('hex')}`;
  readonly names: TopicNames = topicNamesIn(this.namespace);
  readonly gold = join(this.folder, 'gold');
  readonly state = join(this.folder, 'state');
  readonly #running: Running[] = [];
  readonly #undo: (() => unknown)[] = [];

  /** Runs `step` when the test is over, before the folder goes. */
  onEnd(step: () => unknown): void {
    this.#undo.push(step);
  }

  /** A folder with these files. */
  files(name: string, files: Readonly<Record<string, string | Buffer>>): string {
    const folder = join(this.folder, name);
    mkdirSync(folder, { recursive: true });
    for (const [file, content] of Object.entries(files)) writeFileSync(join(folder, file), content);
    return folder;
  }

  /** Starts a command line in this folder, where no local services are. */
  start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Running {
    const running = new Running(args, {
      cwd: this.folder,
      env: {
        ...process.env,
        ...servicesEnv,
        ...env,
      },
    });
    this.#running.push(running);
    return running;
  }

  run(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Finished> {
    return this.start(args, env).done;
  }

  /** The arguments of a stage with this place's folders and namespace; what `more` says comes after them. */
  args(stage: Stage, ...more: string[]): string[] {
    return [
      stage,
      ...['--gold', this.gold],
      ...['--state', this.state],
      ...['--namespace', this.namespace],
      ...more,
    ];
  }

  async replay(data: string, ...more: string[]): Promise<ReplayReport> {
    return this.#succeed('replay', data, '--json', ...more);
  }

  /** Sends every row of these files, and removes none. */
  async upsert(data: string, ...more: string[]): Promise<ReplayReport> {
    return this.replay(data, '--upsert', ...more);
  }

  /** One processor member until it has caught up. */
  async process(...more: string[]): Promise<ProcessorReport> {
    return this.#succeed('process', '--until-caught-up', '--json', ...more);
  }

  async sink(...more: string[]): Promise<SinkReport> {
    return this.#succeed('sink', '--once', '--json', ...more);
  }

  /** Replay, process, sink, one after the other. @returns the manifest of the snapshot that came of it */
  async pipeline(
    data: string,
    more: { replay?: string[]; process?: string[]; sink?: string[] } = {},
  ): Promise<Manifest> {
    await this.replay(data, ...(more.replay ?? []));
    await this.process(...(more.process ?? []));
    const { snapshot } = await this.sink(...(more.sink ?? []));
    return readManifest(this.gold, snapshot ?? 'none');
  }

  async #succeed<T>(stage: Stage, ...more: string[]): Promise<T> {
    const finished = await this.run(this.args(stage, ...more));
    expect(finished, `reelflow ${stage}\n${finished.stderr.slice(-4_000)}`).toMatchObject({ code: 0 });
    return lastJson<T>(finished);
  }

  get manifest(): Manifest {
    return readManifest(this.gold, currentSnapshot(this.gold) ?? 'none');
  }

  /** Where the newest snapshot differs from a batch computation over these files. */
  async differences(data: string): Promise<Difference[]> {
    return goldDifferences(this.gold, data);
  }

  /** The messages of a topic of this namespace from its start to its end; none when it does not exist. */
  readTopic(topic: string): Promise<TopicMessage[]> {
    return readTopic(topic);
  }

  /** Dead letters by their headers, with the bytes that were kept. */
  async deadLetters(): Promise<(Record<string, string> & { value: Buffer })[]> {
    const messages = await readTopic(this.names.deadLetter);
    return messages.map(({ headers, value }) => ({ ...headers, value: value ?? Buffer.alloc(0) }) as never);
  }

  /** Whether the processors' group has committed the end offsets of all partitions that they read. */
  async hasCaughtUp(): Promise<boolean> {
    const topics = datasetNames
      .filter((dataset) => dataset !== 'name.basics')
      .map((dataset) => this.names.source(dataset));
    const bounds = await logBounds(broker, topics);
    const committed = await withAdmin(broker, (admin) =>
      admin.fetchOffsets({ groupId: this.names.processorGroup, topics }),
    );
    return committed.every(({ topic, partitions }) =>
      partitions.every(({ partition, offset }) => {
        const end = bounds.get(topic)?.get(partition)?.end ?? 0;
        return end === 0 || Number(offset) >= end;
      }),
    );
  }

  /** Ends what still runs and removes what was written. @throws when a test left a command running */
  async close(failed: boolean): Promise<void> {
    const left = this.#running.filter(({ isDone }) => !isDone);
    for (const running of left) running.kill('SIGKILL');
    await Promise.all(left.map(({ done }) => done));
    for (const step of this.#undo.reverse()) await step();
    if (failed) {
      process.stderr.write(`kept for inspection: ${this.folder}, topics ${this.namespace}.*\n`);
      for (const running of this.#running) process.stderr.write(`${running.tail()}\n`);
      return;
    }
    rmSync(this.folder, { recursive: true, force: true });
    await withAdmin(broker, async (admin) => {
      const topics = (await admin.listTopics()).filter((topic) => topic.startsWith(`${this.namespace}.`));
      if (topics.length > 0) await admin.deleteTopics({ topics });
    });
    expect(left, 'commands that the test left running').toHaveLength(0);
  }
}

/** `test` with a place of its own, and with more of them for tests that compare. */
export const test = base.extend<{ place: Place; newPlace: () => Place }>({
  place: async ({ newPlace }, use) => {
    await use(newPlace());
  },
  newPlace: async ({ task }, use) => {
    const places: Place[] = [];
    await use(() => {
      const place = new Place();
      places.push(place);
      return place;
    });
    for (const place of places) await place.close(task.result?.state === 'fail');
  },
});

/** Waits for a condition that is named in the error. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  limitMs = patienceMs,
): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not so in ${limitMs / 1000} s: ${what}`);
    await delay(50);
  }
}

/** The messages of a topic from its start to its end, with their headers; none when it does not exist. */
export async function readTopic(topic: string): Promise<TopicMessage[]> {
  const exists = await withAdmin(broker, async (admin) => (await admin.listTopics()).includes(topic));
  if (!exists) return [];
  const found: TopicMessage[] = [];
  for await (const { partition, messages } of scanTopic(broker, topic)) {
    for (const { offset, key, value, headers = {} } of messages) {
      const texts = Object.entries(headers).map(([name, text]) => [name, String(text)]);
      found.push({ partition, offset, key, value, headers: Object.fromEntries(texts) });
    }
  }
  return found;
}

const chunkTypes = new Map<DatasetName, avsc.Type>();

/** The schema of a dataset's chunks as avsc, which knows nothing of our own codec. */
export function chunkType(dataset: DatasetName): avsc.Type {
  const known = chunkTypes.get(dataset);
  if (known !== undefined) return known;
  const type = avsc.Type.forSchema(JSON.parse(schemaText(`imdb.${dataset}`)));
  chunkTypes.set(dataset, type);
  return type;
}

export interface ChunkContent {
  readonly runId?: string;
  readonly chunk?: number;
  readonly asOf?: number;
  readonly records: readonly object[];
  readonly deletes?: readonly object[];
  readonly replaces?: readonly number[];
}

/** The value of a message: wire header and Avro. */
export function encodeChunk(type: avsc.Type, schemaId: number, content: ChunkContent): Buffer {
  const header = Buffer.alloc(5);
  header.writeInt32BE(schemaId, 1);
  const body = type.toBuffer({ runId: 'test', chunk: 0, asOf: 0, deletes: [], ...content });
  return Buffer.concat([header, body]);
}

/** How many records the chunks of a topic hold, deletes included. */
export async function recordsOnTopic(names: TopicNames, dataset: DatasetName): Promise<number> {
  const type = chunkType(dataset);
  let records = 0;
  for (const { value } of await readTopic(names.source(dataset))) {
    const chunk = type.fromBuffer((value as Buffer).subarray(5)) as Required<ChunkContent>;
    records += chunk.records.length + chunk.deletes.length;
  }
  return records;
}

/** The request that sets the message limit of a retained topic. It replaces all settings of the topic. */
export const limitOf = (topic: string, bytes: number) => ({
  validateOnly: false,
  resources: [
    {
      type: kafkajs.ConfigResourceTypes.TOPIC,
      name: topic,
      configEntries: Object.entries({
        'cleanup.policy': 'delete',
        'retention.ms': '-1',
        'retention.bytes': '-1',
        'max.message.bytes': String(bytes),
      }).map(([name, value]) => ({ name, value })),
    },
  ],
});

/** Registers a schema under a subject of its own. @returns its id */
export async function registerSchema(subject: string, schema: unknown): Promise<number> {
  const response = await fetch(`${inject('registryUrl')}/subjects/${subject}/versions`, {
    method: 'POST',
    headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
    body: JSON.stringify({ schema: JSON.stringify(schema) }),
  });
  expect(response.status, `registering a schema under ${subject}`).toBe(200);
  return ((await response.json()) as { id: number }).id;
}

/** Text of a dataset's file in a folder, unpacked. */
export function textOf(folder: string, dataset: DatasetName): string {
  const file = readdirSync(folder).find((name) => name === `${dataset}.tsv` || name === `${dataset}.tsv.gz`);
  if (file === undefined) throw new Error(`${folder} has no ${dataset}`);
  const bytes = readFileSync(join(folder, file));
  return (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
}

/** The header line of a dataset's file, with its newline. */
export const headerOf = (dataset: DatasetName): string => `${headerLineOf(datasets[dataset])}\n`;

/** Each second file is packed. */
const packed: ReadonlySet<DatasetName> = new Set(['title.basics', 'title.principals', 'name.basics']);

/** Writes the seven datasets, some of them packed. @returns the folder */
export function writeDatasets(folder: string, texts: Readonly<Partial<Record<DatasetName, string>>>): string {
  mkdirSync(folder, { recursive: true });
  for (const [dataset, text] of Object.entries(texts)) {
    const isPacked = packed.has(dataset as DatasetName);
    writeFileSync(join(folder, `${dataset}.tsv${isPacked ? '.gz' : ''}`), isPacked ? gzipSync(text) : text);
  }
  return folder;
}

/** Factor between neighbouring ids: a few thousand titles lie in as many blocks, and so in all partitions. */
const spread = 1_499;

/** A synthetic dataset of a few thousand titles that lie in all partitions. @returns the folder */
export async function smallDataset(folder: string, titles: number, seed: number): Promise<string> {
  const raw = `${folder}.raw`;
  await generate({ titles, seed, out: raw });
  const texts = datasetNames.map((dataset) => {
    const text = textOf(raw, dataset).replace(
      /\b(tt|nm)(\d{7,9})\b/g,
      (_, prefix: string, digits: string) => {
        const number = Number(digits);
        // Of 7 digits with a leading zero, of 7 without, of 8: each stays among its own.
        const first = [10_000_000, 1_000_000, 0].find((one) => one <= number) ?? 0;
        return prefix + String(first + (number - first) * spread).padStart(7, '0');
      },
    );
    return [dataset, text] as const;
  });
  rmSync(raw, { recursive: true });
  return writeDatasets(folder, Object.fromEntries(texts));
}

/** A way to a TCP service that can be shut: connections through it are cut and new ones refused. */
export class Door {
  readonly port: number;
  readonly #target: { host: string; port: number };
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  private constructor(port: number, target: { host: string; port: number }) {
    this.port = port;
    this.#target = target;
  }

  /** @param port a free one */
  static async to(target: { host: string; port: number }, port: number): Promise<Door> {
    const door = new Door(port, target);
    await door.open();
    return door;
  }

  async open(): Promise<void> {
    const server = createServer((near) => {
      const far = connect(this.#target);
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(socket);
        socket.on('error', () => other.destroy());
        socket.on('close', () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
    this.#server = server;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject);
    server.listen(this.port, '127.0.0.1', resolve);
    await promise;
  }

  async shut(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    server.close(() => resolve());
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }
}
