/**
 * Writes structured logs to standard error as JSON lines, so that standard output stays free for results. On a terminal
 * the default level is `warn`, because people watch progress bars and tables there.
 */
import { type Logger, pino } from 'pino';

export type { Logger };

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** A logger that writes JSON lines to standard error and redacts keys that may hold secrets. */
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
