/**
 * Structured logs go to standard error as JSON lines, so that standard output stays for results.
 * On a terminal the level is `warn` unless asked: there people watch progress bars and tables.
 */
import { type Logger, pino } from 'pino';

export type { Logger };

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** A logger that writes JSON lines to standard error; keys that may hold secrets are redacted. */
export function createLogger(level: LogLevel): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: ['password', '*.password', 'sasl', '*.sasl', 'auth', '*.auth'],
    },
    pino.destination({ dest: 2, sync: true }),
  );
}

const minuteMs = 60_000;

/**
 * Logs what has been done, once a minute at `info`; what each step did is for `debug`.
 * @param totals since the start; by how much each has grown in the last minute is added
 * @param now what is so at this moment
 * @returns ends it
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
