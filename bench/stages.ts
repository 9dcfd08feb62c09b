/** The pipeline and its stages as things to be measured. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../cli/context.ts';
import { stageFlags } from '../cli/member.ts';
import type { CommonFlags } from '../cli/options.ts';
import { type PipelineReport, runPipeline } from '../cli/pipeline.ts';
import { environmentOf } from '../runtime/config.ts';
import { brokerCpuSeconds, type Measured, measure, Watch } from './measure.ts';
import type { Workload } from './workload.ts';

/** The command line, for Node. */
export const program = join(import.meta.dirname, '..', 'cli', 'reelflow.js');

/** One command of the command line as a process of its own, with `--json`. */
export function stage(
  command: 'replay' | 'process' | 'sink',
  { endpoints }: Context,
  { gold, state, namespace }: CommonFlags,
  more: readonly string[],
  { logs, signal, onOneCore = false }: { logs: string; signal: AbortSignal; onOneCore?: boolean },
): Promise<Measured> {
  const places = ['--gold', gold, '--state', state, '--namespace', namespace, '--json'];
  const [own, ...args] = [
    ...(onOneCore ? ['taskset', '-c', '0'] : []),
    process.execPath,
    ...[...stageFlags, program, command, ...places, ...more],
  ];
  return measure(
    { command: own as string, args, env: environmentOf(endpoints) },
    { log: join(logs, `${command}.log`), broker: endpoints.brokers[0] as string, signal },
  );
}

export interface WholeRun {
  readonly report: PipelineReport;
  readonly records: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly cpuSecondsOf: { readonly replay: number; readonly process: number; readonly sink: number };
  readonly brokerCpuSeconds: number;
  /** All our processes together, without the broker. */
  readonly peakBytes: number;
}

/** Replay, processor and sink at the same time, over one folder of files. Replay runs in this process. */
export async function wholePipeline(options: {
  context: Context;
  data: string;
  folder: string;
  shards?: number;
  /** Arguments of process and sink that select the tables. */
  only?: readonly string[];
  processArguments?: readonly string[];
  rate?: number;
  /** Begin and measure when processor and sink are ready. Default: while they start. */
  whenReady?: boolean;
  signal: AbortSignal;
}): Promise<WholeRun> {
  const {
    context,
    data,
    folder,
    shards,
    only = [],
    processArguments = [],
    rate,
    whenReady = false,
    signal,
  } = options;
  const broker = context.endpoints.brokers[0] as string;
  let brokerBefore = brokerCpuSeconds(broker);
  let watch = new Watch(process.pid);
  const begin = () => {
    watch.stop();
    brokerBefore = brokerCpuSeconds(broker);
    watch = new Watch(process.pid);
  };
  let report: PipelineReport;
  try {
    report = await runPipeline({
      context,
      data,
      logs: join(folder, 'logs'),
      signal,
      ...(shards !== undefined && { shards }),
      ...(rate !== undefined && { rate }),
      ...(whenReady && { onReady: begin }),
      processArguments: [...only, ...processArguments],
      sinkArguments: only,
    });
  } finally {
    watch.stop();
  }
  const [all, inProcess, inSink] = ['', 'reelflow.js\0process', 'reelflow.js\0sink'].map((of) =>
    watch.cpuSeconds(of),
  );
  const [whole, processor, sink] = [all ?? 0, inProcess ?? 0, inSink ?? 0];
  return {
    report,
    records: report.replay.read,
    seconds: report.seconds,
    cpuSeconds: whole,
    cpuSecondsOf: { replay: whole - processor - sink, process: processor, sink },
    brokerCpuSeconds: brokerCpuSeconds(broker) - brokerBefore,
    peakBytes: watch.peakBytes,
  };
}

/** DuckDB computes the tables of a workload from files, in a process of its own. */
export async function duckdbRun(options: {
  context: Context;
  folder: string;
  data: string;
  workload: Workload;
  signal: AbortSignal;
}): Promise<Measured> {
  const { context, folder, data, workload, signal } = options;
  const results = join(folder, 'duckdb');
  mkdirSync(results, { recursive: true });
  const args = [join(import.meta.dirname, 'peers', workload.duckdb), data, results];
  const broker = context.endpoints.brokers[0] as string;
  return measure({ command: process.execPath, args }, { log: join(folder, 'duckdb.log'), broker, signal });
}
