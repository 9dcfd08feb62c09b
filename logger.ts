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
