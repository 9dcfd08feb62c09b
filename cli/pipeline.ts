/**
 * Runs the whole pipeline over one input, for `demo` and the benchmarks: processor and sink as child processes, the replay
 * in this one, all at the same time. After the last row, the processor applies its messages without waiting for its window to
 * end, while the replay writes its index. After the replay the children finish their backlog and end.
 */
import type { ChildProcess } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessorReport } from '../processors/processor-options.ts';
import type { ReplayProgress } from '../producers/file-replay.ts';
import type { ReplayReport } from '../producers/replay-report.ts';
import { failureKindOf, ReelflowError } from '../runtime/errors.ts';
import { makeFolder } from '../runtime/files.ts';
import type { SinkReport } from '../sinks/sink.ts';
import type { Context } from './context.ts';
import { forkCommand } from './member.ts';
import { caughtUpMessage, finishMessage, flushMessage, publishedMessage, readyMessage } from './stage.ts';

interface PipelineOptions {
  readonly context: Context;
  /** Directory of the datasets. */
  readonly data: string;
  /** Folder for the logs of the two stages. */
  readonly logs: string;
  readonly shards?: number;
  /** Limit of records per second. */
  readonly rate?: number;
  /** More arguments for the stages. */
  readonly processArguments?: readonly string[];
  readonly sinkArguments?: readonly string[];
  /** Delays the replay until both stages are ready, and is called then. Default: the replay begins while they start. */
  readonly onReady?: () => void;
  readonly onProgress?: (progress: ReplayProgress) => void;
  readonly onStage?: (stage: 'process' | 'sink') => void;
  readonly signal: AbortSignal;
}

export interface PipelineReport {
  readonly replay: ReplayReport;
  readonly process: ProcessorReport;
  readonly sink: SinkReport;
  /** From the first byte read to the swap of CURRENT. */
  readonly seconds: number;
  /** From the start of the run to the end of each stage's work. */
  readonly secondsUntil: { readonly replay: number; readonly process: number; readonly sink: number };
}

/** @throws ReelflowError of the stage that failed, after ending the others */
export async function runPipeline(options: PipelineOptions): Promise<PipelineReport> {
  const { context, data, signal } = options;
  const [{ replay }, { checkRejections }] = await Promise.all([
    import('../producers/replay.ts'),
    import('../producers/rejection-limit.ts'),
  ]);
  const processor = startStage<ProcessorReport>('process', options, options.processArguments);
  const sink = startStage<SinkReport>('sink', options, [
    '--interval',
    '1h',
    ...(options.sinkArguments ?? []),
  ]);
  const broken = new AbortController();
  for (const { report } of [processor, sink]) report.catch((thrown) => broken.abort(thrown));
  try {
    if (options.onReady !== undefined) {
      await Promise.all([processor.hasSaid(readyMessage), sink.hasSaid(readyMessage)]);
      options.onReady();
    }
    const startedMs = performance.now();
    const since = () => (performance.now() - startedMs) / 1000;
    const replayed = await replay({
      broker: context.broker,
      registry: context.registry,
      names: context.names,
      inputs: [data],
      state: context.places.state,
      logger: context.logger,
      signal: AbortSignal.any([signal, broken.signal]),
      onSent: () => processor.child.send(flushMessage),
      ...(options.shards !== undefined && { shards: options.shards }),
      ...(options.rate !== undefined && { rate: options.rate }),
      ...(options.onProgress !== undefined && { onProgress: options.onProgress }),
    });
    broken.signal.throwIfAborted();
    signal.throwIfAborted();
    checkRejections(replayed.datasets);
    const replaySeconds = since();
    options.onStage?.('process');
    processor.child.send(finishMessage);
    await processor.hasSaid(caughtUpMessage);
    const processSeconds = since();
    options.onStage?.('sink');
    // The sink reads the last deltas while the processor closes its stores.
    sink.child.send(finishMessage);
    await sink.hasSaid(publishedMessage);
    const seconds = since();
    const [processed, sunk] = await Promise.all([processor.report, sink.report]);
    return {
      replay: replayed,
      process: processed,
      sink: sunk,
      seconds,
      secondsUntil: { replay: replaySeconds, process: processSeconds, sink: seconds },
    };
  } finally {
    processor.end();
    sink.end();
  }
}

interface StageProcess<T> {
  readonly child: ChildProcess;
  /** The last line of its output. */
  readonly report: Promise<T>;
  /** Resolves when the stage sends this message, or with its report. */
  hasSaid(message: string): Promise<unknown>;
  end(): void;
}

function startStage<T>(
  command: 'process' | 'sink',
  { context, logs }: PipelineOptions,
  more: readonly string[] = [],
): StageProcess<T> {
  const { endpoints, places } = context;
  makeFolder(logs);
  const log = join(logs, `${command}.log`);
  const common = ['--gold', places.gold, '--state', places.state, '--namespace', places.namespace, '--json'];
  const child = forkCommand([command, ...common, ...more], endpoints, {
    stdio: ['ignore', 'pipe', openSync(log, 'w'), 'ipc'],
  });
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-64 * 1024);
  });
  const report = new Promise<T>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, killedBy) => {
      const line = output.trim().split('\n').at(-1) ?? '';
      if (code === 0 && line !== '') resolve(JSON.parse(line) as T);
      else reject(stageFailed(command, code, killedBy, log));
    });
  });
  // A failure is thrown where the report is awaited; until then it must not count as unhandled.
  report.catch(() => undefined);
  const hasSaid = (awaited: string) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    child.on('message', (message) => {
      if (message === awaited) resolve();
    });
    return Promise.race([promise, report]);
  };
  return {
    child,
    report,
    hasSaid,
    end: () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    },
  };
}

function stageFailed(
  command: string,
  code: number | null,
  signal: string | null,
  log: string,
): ReelflowError {
  const tail = readFileSync(log, 'utf8').trim().split('\n').slice(-12);
  const text = tail.filter((line) => !line.startsWith('{'));
  return new ReelflowError(
    failureKindOf(code),
    `reelflow ${command} ended ${signal === null ? `with exit code ${code}` : `by ${signal}`}`,
    {
      detail: text.join('\n'),
      hint: `Its log is ${log}.`,
    },
  );
}
