/** Runs a command and collects its output. */
import { spawn } from 'node:child_process';

interface CommandResult {
  /** Exit code; null when the command could not start, was killed or took too long. */
  readonly code: number | null;
  /** Standard output and error, interleaved. */
  readonly output: string;
  /** Whether the command does not exist. */
  readonly missing: boolean;
}

/** Runs a command without a shell and without input, and waits for its end; never throws. */
export function run(
  command: string,
  args: readonly string[],
  options: { env: NodeJS.ProcessEnv; cwd?: string; timeoutMs?: number; onText?: (text: string) => void },
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = spawn(command, [...args], {
      env: options.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: 'SIGKILL' }),
    });
    let output = '';
    const take = (text: string) => {
      output += text;
      options.onText?.(text);
    };
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    child.on('error', (error: NodeJS.ErrnoException) =>
      resolve({ code: null, output: error.message, missing: error.code === 'ENOENT' }),
    );
    child.on('close', (code) => resolve({ code, output, missing: false }));
  });
}
