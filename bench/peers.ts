/**
 * `npm run bench:peers`: the five gold tables by reelflow and by other engines, on the same rows, the same broker and
 * registry, one after the other. Every result is held against the batch computation in sinks/. An engine that cannot
 * run here is named with the reason.
 *
 * Seconds are those of the work: an engine's own start is a column of its own, and topics are filled before. reelflow's
 * first line includes reading the files and filling the topics; `reelflow from topics` does not.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { Command, InvalidArgumentError } from 'commander';
import { type Context, openContext } from '../cli/context.ts';
import { type CommonFlags, integerIn, localFolder } from '../cli/options.ts';
import { stopSignal } from '../cli/stop.ts';
import { findServices } from '../kafka/local/services.ts';
import { replay } from '../producers/replay.ts';
import { isAbort, messageOf } from '../runtime/errors.ts';
import { currentSnapshot, snapshotFolder } from '../sinks/gold/manifest.ts';
import { batchGold } from '../sinks/verify/file-gold.ts';
import { topicNamesIn } from '../topics/catalog.ts';
import { removeTopics, syntheticData } from './data.ts';
import { benchFolder, type Measured, measure, median } from './measure.ts';
import { checkResults } from './peers/check.ts';
import { duckdb } from './peers/duckdb.ts';
import { flinkSql, reelflowFlink } from './peers/flink.ts';
import { kafkaStreams } from './peers/kafka-streams.ts';
import { Absent, type Input, type Peer, type Workshop } from './peers/peer.ts';
import { fillRowTopics } from './peers/rows.ts';
import { sparkBatch, sparkStreaming } from './peers/spark.ts';
import { type Line, type Result, report, resultOf } from './report.ts';
import { stage, wholePipeline } from './stages.ts';
import { goldDatasets, workloads } from './workload.ts';

const peers: readonly Peer[] = [
  duckdb,
  sparkBatch,
  sparkStreaming('chunks'),
  sparkStreaming('rows'),
  flinkSql('chunks'),
  flinkSql('rows'),
  reelflowFlink,
  kafkaStreams,
];
const peerNames = peers.map(({ name }) => name);
const partitions = 4;
const say = (line: string) => process.stderr.write(`${line}\n`);
const signal = stopSignal();

interface Flags {
  titles: number;
  runs: number;
  only: readonly string[];
  tenth: readonly string[];
  limit: number;
  check: boolean;
  json?: true;
  save?: true;
}

function nameList(text: string): string[] {
  const wanted = text.split(',').map((name) => name.trim());
  const unknown = wanted.filter((name) => !peerNames.includes(name));
  if (unknown.length > 0) throw new InvalidArgumentError(`There is no peer ${unknown.join(', ')}.`);
  return wanted;
}

type Run = Omit<Measured, 'lastLine'> & { readonly gold: string };

/** The rows as files and, once they are wanted, on topics; what they should give; and the runs of the engines. */
class Lab {
  readonly notes: string[] = [];
  readonly #flags: Flags;
  readonly #context: Context;
  readonly #data: string;
  readonly #folder: string;
  readonly #oracle: DuckDBConnection;
  readonly #filled = new Set<Input>();
  #records = Number.NaN;
  #reelflowSeconds = Number.NaN;

  private constructor(
    flags: Flags,
    context: Context,
    data: string,
    folder: string,
    oracle: DuckDBConnection,
  ) {
    this.#flags = flags;
    this.#context = context;
    this.#data = data;
    this.#folder = folder;
    this.#oracle = oracle;
  }

  static async open(flags: Flags): Promise<Lab> {
    const { endpoints } = await findServices({ env: process.env, folder: localFolder, onProgress: say });
    const data = resolve(await syntheticData({ titles: flags.titles, datasets: goldDatasets }, say));
    const namespace = `peers-${process.pid}-${flags.titles}`;
    const folder = resolve(benchFolder, namespace);
    mkdirSync(folder, { recursive: true });
    const context = await openContext(placesIn(folder, namespace), { endpoints });
    context.logger.level = 'warn';
    const oracle = await (await DuckDBInstance.create(join(folder, 'oracle.duckdb'))).connect();
    if (flags.check) {
      say('computing the tables to compare with');
      await batchGold(oracle, data);
    }
    return new Lab(flags, context, data, folder, oracle);
  }

  async close(): Promise<void> {
    this.#oracle.closeSync();
    await removeTopics(this.#context.broker, `${this.#namespace}-`);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** From the files to gold, replay, process and sink together. */
  async reelflow(): Promise<Line> {
    const runs = await this.#runs('reelflow', async (number) => {
      const namespace = `${this.#namespace}-${number}`;
      const places = placesIn(this.#folder, namespace);
      const run = await wholePipeline({
        context: { ...this.#context, places, names: topicNamesIn(namespace) },
        data: this.#data,
        folder: join(this.#folder, namespace),
        only: workloads.five.only,
        signal,
      });
      this.#records = run.records;
      const gold = await this.#check(currentIn(places));
      await removeTopics(this.#context.broker, `${namespace}.`);
      return { ...run, secondsToStart: 0, gold };
    });
    this.#reelflowSeconds = median(runs.map(({ seconds }) => seconds));
    this.notes.push('`reelflow`: 4 shards; replay, process and sink as three processes at the same time.');
    return this.#line('reelflow', 'files', runs);
  }

  /** From full topics to gold, process and then sink. */
  async reelflowFromTopics(): Promise<Line> {
    await this.#fill('chunks');
    const runs = await this.#runs('reelflow from topics', async (number) => {
      const places = {
        ...placesIn(this.#folder, `from-topics-${number}`),
        namespace: `${this.#namespace}-chunks`,
      };
      const options = { logs: this.#folder, signal };
      const run = (name: 'process' | 'sink', until: string) =>
        stage(name, this.#context, places, [until, ...workloads.five.only], options);
      const processed = await run('process', '--until-caught-up');
      const sunk = await run('sink', '--once');
      return {
        seconds: processed.seconds + sunk.seconds,
        secondsToStart: 0,
        cpuSeconds: processed.cpuSeconds + sunk.cpuSeconds,
        brokerCpuSeconds: processed.brokerCpuSeconds + sunk.brokerCpuSeconds,
        peakBytes: Math.max(processed.peakBytes, sunk.peakBytes),
        gold: await this.#check(currentIn(places)),
      };
    });
    this.notes.push('`reelflow from topics`: process until caught up, then sink once, starts included.');
    return this.#line('reelflow from topics', 'chunks', runs);
  }

  async peer(peer: Peer): Promise<Line> {
    const { name, input, setup, without } = peer;
    this.notes.push(`\`${name}\`: ${setup}. Not done: ${without}.`);
    try {
      await this.#fill(input);
      return this.#line(name, input, await this.#runs(name, (number) => this.#runPeer(peer, number)));
    } catch (thrown) {
      signal.throwIfAborted();
      const why = isAbort(thrown) ? `stopped after ${this.#flags.limit} minutes` : messageOf(thrown);
      say(`${name}: ${why}`);
      return {
        engine: name,
        reads: input,
        gold: `${thrown instanceof Absent ? 'absent' : 'failed'}: ${why.split('\n')[0]}`,
      };
    }
  }

  async #runPeer(peer: Peer, number: number): Promise<Run> {
    const { broker, endpoints } = this.#context;
    const namespace = `${this.#namespace}-${peer.name}-${number}`;
    const out = join(this.#folder, namespace);
    mkdirSync(out, { recursive: true });
    const workshop: Workshop = {
      ...{ broker, endpoints, data: this.#data, out, namespace, say },
      prefix: (input) => `${this.#namespace}-${input}.imdb.`,
    };
    try {
      const measured = await measure(await peer.prepare(workshop), {
        log: join(this.#folder, `${namespace}.log`),
        broker: endpoints.brokers[0] as string,
        signal: AbortSignal.any([signal, AbortSignal.timeout(this.#flags.limit * 60_000)]),
      });
      await peer.collect?.(workshop);
      return { ...measured, gold: await this.#check(out) };
    } finally {
      await removeTopics(broker, `${namespace}.`);
      rmSync(out, { recursive: true, force: true });
    }
  }

  async #runs<T>(name: string, run: (number: number) => Promise<T>): Promise<T[]> {
    const results: T[] = [];
    for (let number = 1; number <= this.#flags.runs; number++) {
      signal.throwIfAborted();
      say(`${name}, run ${number} of ${this.#flags.runs}`);
      results.push(await run(number));
    }
    return results;
  }

  /** Brings the rows onto topics, once. */
  async #fill(input: Input): Promise<void> {
    if (input === 'files' || this.#filled.has(input)) return;
    this.#filled.add(input);
    say(`filling the topics of ${input}`);
    const namespace = `${this.#namespace}-${input}`;
    const { broker, registry, logger } = this.#context;
    if (input === 'rows') {
      const prefix = `${namespace}.imdb.`;
      await fillRowTopics(broker, { data: this.#data, datasets: goldDatasets, prefix, partitions }, say);
      return;
    }
    const { state } = placesIn(this.#folder, namespace);
    const names = topicNamesIn(namespace);
    await replay({
      broker,
      registry,
      logger,
      names,
      inputs: [this.#data],
      state,
      shards: partitions,
      signal,
    });
  }

  async #check(results: string): Promise<string> {
    return this.#flags.check ? checkResults(this.#oracle, 'batch', results) : 'not checked';
  }

  #line(engine: string, reads: Input, runs: readonly Run[]): Line {
    const middle = (of: (run: Run) => number) => median(runs.map(of));
    const seconds = middle((run) => run.seconds);
    return {
      engine,
      reads,
      records: this.#records,
      seconds,
      'start s': middle((run) => run.secondsToStart),
      'records/s': Math.round(this.#records / seconds),
      '× reelflow': seconds / this.#reelflowSeconds,
      'CPU s': middle((run) => run.cpuSeconds),
      'CPU s broker': middle((run) => run.brokerCpuSeconds),
      'peak MiB': Math.round(middle((run) => run.peakBytes) / 2 ** 20),
      gold: runs.map(({ gold }) => gold).find((gold) => gold.includes('differences')) ?? runs[0]?.gold ?? '',
    };
  }

  get #namespace(): string {
    return this.#context.places.namespace;
  }
}

function placesIn(folder: string, namespace: string): CommonFlags {
  return { gold: join(folder, namespace, 'gold'), state: join(folder, namespace, 'state'), namespace };
}

function currentIn({ gold }: CommonFlags): string {
  return snapshotFolder(gold, currentSnapshot(gold) ?? '');
}

/** reelflow and these peers on the same rows. */
async function compare(flags: Flags, names: readonly string[]): Promise<Pick<Result, 'lines' | 'notes'>> {
  const lab = await Lab.open(flags);
  try {
    const lines = [await lab.reelflow(), await lab.reelflowFromTopics()];
    for (const peer of peers) if (names.includes(peer.name)) lines.push(await lab.peer(peer));
    return { lines, notes: lab.notes };
  } finally {
    await lab.close();
  }
}

await new Command('bench:peers')
  .description('the same gold tables by other engines, on the same rows')
  .option(
    '--titles <n>',
    'titles of the synthetic dataset; 811,000 give 12 M records',
    integerIn(100),
    811_000,
  )
  .option('--runs <n>', 'runs of each, of which the median counts', integerIn(1, 20), 1)
  .option('--only <names>', `only these, separated by commas: ${peerNames.join(', ')}`, nameList, peerNames)
  .option('--tenth <names>', 'these on a tenth of the titles, beside reelflow on as many', nameList, [])
  .option(
    '--limit <minutes>',
    'a run that takes longer is stopped, and its engine named so',
    integerIn(1, 600),
    20,
  )
  .option('--no-check', 'do not hold the results against the batch computation')
  .option('--json', 'one line of JSON')
  .option('--save', 'keep the result in docs/results/, for `npm run bench:docs`')
  .action(async (flags: Flags) => {
    const { only, tenth, titles } = flags;
    const parts = [
      await compare(
        flags,
        only.filter((name) => !tenth.includes(name)),
      ),
    ];
    if (tenth.length > 0) {
      parts.push(await compare({ ...flags, titles: Math.round(titles / 10) }, tenth));
      parts.push({ lines: [], notes: ['× reelflow: against the line of reelflow with as many records.'] });
    }
    const lines = parts.flatMap((part) => part.lines);
    report(resultOf('peers', lines, [...new Set(parts.flatMap(({ notes }) => notes))]), flags);
    // A result that differs is not a result; an engine that is not there is only named.
    if (lines.some(({ gold }) => /differences|^failed/.test(String(gold)))) process.exitCode = 1;
  })
  .parseAsync();
