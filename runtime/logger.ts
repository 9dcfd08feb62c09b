/**
 * Writes structured logs to standard error, so that standard output stays free for results: JSON lines for programs,
 * readable lines on a terminal.
 */
import { type DestinationStream, type Logger, pino } from 'pino';
import { filled, terminalWidth } from './terminal.ts';

export type { Logger };

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/**
 * A logger that redacts keys that may hold secrets.
 * @param about what every JSON line names: the component, the process, the version
 * @param isReadable whether a person reads the lines. Default on a terminal
 */
export function createLogger(
  level: LogLevel,
  about: Readonly<Record<string, unknown>> = {},
  isReadable = process.stderr.isTTY === true,
): Logger {
  const lines = pino.destination({ dest: 2, sync: true });
  return pino(
    {
      level,
      base: isReadable ? null : about,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: ['password', '*.password', 'sasl', '*.sasl', 'auth', '*.auth'],
    },
    isReadable ? readable(lines) : lines,
  );
}

function readable(lines: DestinationStream): DestinationStream {
  const width = () => terminalWidth(process.stderr);
  return { write: (json) => lines.write(`${filled(readableLine(json), width(), messageIndent)}\n`) };
}

/** Where the message of a readable line begins. */
const messageIndent = '00:00:00  '.length;

/** A log line for people: local time, level unless `info` or `debug`, message, values. */
export function readableLine(json: string): string {
  const { level, time, msg, ...values } = JSON.parse(json) as Record<string, unknown>;
  const mark = level === 'info' || level === 'debug' ? '' : `${String(level).toUpperCase()} `;
  const texts = Object.entries(values).map(
    ([name, value]) => `${name}=${typeof value === 'object' ? objectText(value) : value}`,
  );
  return [new Date(String(time)).toTimeString().slice(0, 8), `${mark}${msg}`, ...texts].join('  ');
}

/** Counts that are all zero become one word. A narrow terminal breaks the line at the blanks between entries. */
function objectText(value: object | null): string {
  const counts = Object.values(value ?? {});
  const isIdle = counts.length > 0 && counts.every((count) => count === 0);
  if (isIdle) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return `[${value.map((one) => JSON.stringify(one)).join(', ')}]`;
  const entries = Object.entries(value).map(([name, one]) => `"${name}":${JSON.stringify(one)}`);
  return `{${entries.join(', ')}}`;
}

const minuteMs = 60_000;

/**
 * Logs totals once a minute at `info`; single steps belong to `debug`.
 * @param totals counts since the start; the log line adds the growth of the last minute
 * @param now current values
 * @returns a function that stops the logging
 */
export function logEveryMinute(
  logger: Pick<Logger, 'info'>,
  what: string,
  totals: () => Readonly<Record<string, number>>,
  now: () => Readonly<Record<string, number>>,
): () => void {
  let before = { ...totals() };
  const timer = setInterval(() => {
    const all = totals();
    const lastMinute = Object.fromEntries(
      Object.entries(all).map(([name, value]) => [name, value - (before[name] ?? 0)]),
    );
    before = { ...all };
    logger.info({ ...now(), lastMinute, ...all }, what);
  }, minuteMs);
  timer.unref();
  return () => clearInterval(timer);
}
