/**
 * A client of the REST interface of Flink's SQL gateway. A session runs statements one after the other. Flink repeats
 * statements in its errors, so error texts are truncated and cleared of secrets before they are shown.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { Secret } from '../runtime/credentials.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';

const requestMs = 60_000;
const pollMs = 250;
const causeLengthMax = 800;

const failure = z.object({ errors: z.array(z.string()).min(1) });
const status = z.object({ status: z.string() });
const result = z.object({
  jobID: z.string().optional(),
  results: z.object({ data: z.array(z.object({ fields: z.array(z.unknown()) })) }).optional(),
});

interface SqlGatewayOptions {
  /** http://host:port */
  readonly url: string;
  /** Flink settings of the session. */
  readonly properties?: Readonly<Record<string, string>>;
  readonly secrets?: readonly Secret[];
  /** Ends all waiting. */
  readonly signal?: AbortSignal;
}

export class SqlGateway {
  readonly #options: SqlGatewayOptions;
  readonly #session: string;

  private constructor(options: SqlGatewayOptions, session: string) {
    this.#options = options;
    this.#session = session;
  }

  /** @throws ReelflowError flinkUnreachable, when no SQL gateway answers at the address; the abort reason */
  static async open(options: SqlGatewayOptions): Promise<SqlGateway> {
    const { properties = {} } = options;
    const answer = await ask(options, 'POST', '/v1/sessions', { sessionName: 'reelflow', properties });
    const opened = z.object({ sessionHandle: z.string() }).safeParse(answer);
    if (!opened.success) throw unreachable(options.url, 'The answer is not that of a SQL gateway.');
    return new SqlGateway(options, opened.data.sessionHandle);
  }

  /**
   * Runs a statement until it finishes. With `table.dml-sync`, the statement of a job finishes with the job.
   * @returns the id of the job, if the statement started one
   * @throws ReelflowError flinkFailed, with Flink's cause; flinkUnreachable; the abort reason
   */
  async execute(statement: string): Promise<string | undefined> {
    return (await this.#resultOf(statement)).jobID;
  }

  /** The jobs of the cluster. @throws as `execute` */
  async jobs(): Promise<{ id: string; name: string; status: string }[]> {
    const { results } = await this.#resultOf('SHOW JOBS');
    return (results?.data ?? []).map(({ fields: [id, name, status] }) => ({
      id: String(id),
      name: String(name),
      status: String(status),
    }));
  }

  async #resultOf(statement: string): Promise<z.infer<typeof result>> {
    const { signal } = this.#options;
    const path = `/v1/sessions/${this.#session}`;
    const begun = await ask(this.#options, 'POST', `${path}/statements`, { statement: `${statement};` });
    const operation = z.object({ operationHandle: z.string() }).safeParse(begun);
    if (!operation.success) throw this.#failed(begun, statement);
    const operationPath = `${path}/operations/${operation.data.operationHandle}`;
    for (;;) {
      const answer = status.safeParse(await ask(this.#options, 'GET', `${operationPath}/status`));
      if (answer.data?.status === 'FINISHED') break;
      if (!['INITIALIZED', 'PENDING', 'RUNNING'].includes(answer.data?.status ?? '')) {
        throw this.#failed(await ask(this.#options, 'GET', `${operationPath}/result/0`), statement);
      }
      await delay(pollMs, undefined, { signal });
    }
    const answer = await ask(this.#options, 'GET', `${operationPath}/result/0`);
    const found = result.safeParse(answer);
    if (!found.success) throw this.#failed(answer, statement);
    return found.data;
  }

  async close(): Promise<void> {
    const { signal: _, ...options } = this.#options;
    await ask(options, 'DELETE', `/v1/sessions/${this.#session}`).catch(() => undefined);
  }

  #failed(answer: unknown, statement: string): ReelflowError {
    const texts = failure.safeParse(answer).data?.errors ?? [JSON.stringify(answer)];
    const what = /^(?:CREATE TEMPORARY )?\w+(?: `\w+`)?/.exec(statement)?.[0] ?? 'a statement';
    const cause = causeIn(texts.join('\n'));
    return new ReelflowError('flinkFailed', `Flink failed to run ${what}`, {
      detail: this.#clean(cause),
      hint: /^(ClassNotFound|NoClassDefFound)/.test(cause)
        ? 'The cluster lacks a jar. Add the jars that deploy/flink/Dockerfile names.'
        : 'Read the whole error in the log of Flink. `reelflow flink sql` prints the statements.',
    });
  }

  #clean(message: string): string {
    let text = message;
    for (const secret of this.#options.secrets ?? []) text = text.replaceAll(secret.reveal(), '[secret]');
    return text.slice(0, causeLengthMax);
  }
}

/** The message of the innermost cause in a Java stack trace, with the class of the exception if the message is one word. */
export function causeIn(trace: string): string {
  const causes = [
    ...trace.matchAll(
      /^Caused by: (?:(?:[\w$]+\.)*([\w$]+(?:Exception|Error)): )?(.+(?:\n(?!\s+at |\s*\.\.\. |Caused by).+)*)/gm,
    ),
  ];
  const [, kind, message = trace] = causes.at(-1) ?? [];
  const text = message.trim();
  return kind === undefined || /\s/.test(text) ? text : `${kind}: ${text}`;
}

function unreachable(url: string, detail: string, cause?: unknown): ReelflowError {
  return new ReelflowError('flinkUnreachable', 'Flink cannot be reached', {
    detail: `${url}: ${detail}`,
    hint: 'Check --gateway or --rest, and whether the cluster is running.',
    cause,
  });
}

/** Sends a request. @returns the JSON of the answer, also of an error */
async function ask(
  { url, signal }: Pick<SqlGatewayOptions, 'url' | 'signal'>,
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
): Promise<unknown> {
  const bounds = [AbortSignal.timeout(requestMs), ...(signal === undefined ? [] : [signal])];
  try {
    const response = await fetch(`${url.replace(/\/$/, '')}${path}`, {
      method,
      signal: AbortSignal.any(bounds),
      headers: { 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    return await response.json();
  } catch (thrown) {
    signal?.throwIfAborted();
    throw unreachable(url, messageOf((thrown as Error).cause ?? thrown), thrown);
  }
}

/**
 * The version of the cluster at a REST address.
 * @throws ReelflowError flinkUnreachable
 */
export async function clusterVersion(url: string, signal?: AbortSignal): Promise<string> {
  const answer = await ask({ url, ...(signal && { signal }) }, 'GET', '/v1/config');
  const config = z.object({ 'flink-version': z.string() }).safeParse(answer);
  if (!config.success) throw unreachable(url, 'The answer is not that of a Flink cluster.');
  return config.data['flink-version'];
}
