/** Shows progress on standard error: bars on a terminal, elsewhere a log line every few seconds. */
import { terminalWidth } from '../runtime/terminal.ts';

interface Step {
  /** Name of the bar, such as a dataset; '' for a command with one bar. */
  readonly name: string;
  readonly done: number;
  readonly total: number;
  /** Shown behind the bar. */
  readonly text: string;
}

export interface Progress<T> {
  show(now: T): void;
  end(): void;
}

const logEveryMs = 5_000;
/** Columns that name, percentage and text take beside a bar. */
const besideBar = 50;

/**
 * @param stepOf what a bar shows
 * @param log writes the log line; absent, there is no progress without a terminal
 */
export async function openProgress<T>(
  stepOf: (now: T) => Step,
  log: (now: T) => void = () => {},
): Promise<Progress<T>> {
  return process.stderr.isTTY === true ? bars(stepOf) : lines(log);
}

async function bars<T>(stepOf: (now: T) => Step): Promise<Progress<T>> {
  const { default: cliProgress } = await import('cli-progress');
  const all = new cliProgress.MultiBar({
    format: '{name}{bar} {percentage}%  {text}',
    barsize: Math.max(8, Math.min(40, terminalWidth(process.stderr) - besideBar)),
    barCompleteChar: '█',
    barIncompleteChar: '░',
    hideCursor: true,
    stream: process.stderr,
  });
  const started = new Map<string, ReturnType<typeof all.create>>();
  return {
    show(now) {
      const { name, done, total, text } = stepOf(now);
      const payload = { name: name === '' ? '' : name.padEnd(17), text };
      const bar = started.get(name) ?? all.create(total, 0, payload);
      started.set(name, bar);
      bar.update(done, payload);
    },
    // Without a bar it would write an empty line.
    end: () => {
      if (started.size > 0) all.stop();
    },
  };
}

function lines<T>(log: (now: T) => void): Progress<T> {
  let last = performance.now();
  return {
    show(now) {
      if (performance.now() - last < logEveryMs) return;
      last = performance.now();
      log(now);
    },
    end: () => undefined,
  };
}
