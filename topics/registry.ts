/**
 * The Schema Registry as the stages use it: register the schema of a topic, look a writer's schema up by its id.
 * An unreachable registry is waited out; only an id that the registry does not know is an answer.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { COMPATIBILITY, SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry';
import type { Type } from 'avsc';
import { isCertificateError, messageOf, ReelflowError } from '../runtime/errors.ts';

/** The text of `topics/schemas/<name>.avsc`; names are topics without their namespace. */
export function schemaText(name: string): string {
  return readFileSync(new URL(`./schemas/${name}.avsc`, import.meta.url), 'utf8');
}

const refusalsMax = 4;

export interface RegistryOptions {
  readonly url: string;
  /** Basic authentication. */
  readonly credentials?: { readonly username: string; readonly password: { reveal(): string } };
  /** Receives every failed attempt that will be repeated. */
  readonly onWaiting?: (detail: string) => void;
  /** How long `register` waits for the registry, in milliseconds. Default 5,000. */
  readonly patienceMs?: number;
  /** Ends every wait. */
  readonly signal?: AbortSignal;
}

export class Registry {
  readonly #client: SchemaRegistry;
  readonly #options: RegistryOptions;
  /** For requests that the client does not know. */
  readonly #headers: Readonly<Record<string, string>>;
  readonly #writers = new Map<number, Type | undefined>();

  constructor(options: RegistryOptions) {
    this.#options = options;
    const { url, credentials } = options;
    const auth = credentials && { username: credentials.username, password: credentials.password.reveal() };
    this.#client = new SchemaRegistry({ host: url, retry: { retries: 0 }, ...(auth && { auth }) });
    this.#headers =
      auth === undefined
        ? {}
        : { authorization: `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString('base64')}` };
  }

  /**
   * Registers the schema of a topic under `<topic>-value` with BACKWARD compatibility; idempotent.
   * @param schema its text, unless it is a file of ours
   * @returns the id that goes before every value
   * @throws ReelflowError registryUnreachable, after `patienceMs`; accessRefused, untrusted; topicMismatch, when the
   *   registry refuses the schema
   */
  async register(topic: string, schemaName: string, schema = schemaText(schemaName)): Promise<number> {
    const patienceMs = this.#options.patienceMs ?? 5_000;
    const started = Date.now();
    for (let refusals = 0; ; ) {
      try {
        const { id } = await this.#client.register(
          { type: SchemaType.AVRO, schema },
          { subject: `${topic}-value`, compatibility: COMPATIBILITY.BACKWARD },
        );
        return id;
      } catch (thrown) {
        if (isAccessRefusal(thrown)) throw this.#accessRefused(thrown);
        if (isWithoutCompatibility(thrown) && (await this.#setCompatibility(`${topic}-value`))) continue;
        // When clients create a subject at the same moment, the registry refuses the later ones, because the subject
        // already has their setting: only a refusal that persists counts.
        if (isRefusal(thrown) && ++refusals < refusalsMax) {
          await sleep(100 * refusals);
          continue;
        }
        if (isRefusal(thrown) && (await this.#answers())) {
          throw new ReelflowError('topicMismatch', `The Schema Registry refuses the schema of ${topic}`, {
            detail: messageOf(thrown),
            hint: 'An incompatible schema is registered under this subject: use another --namespace, or correct the subject.',
            cause: thrown,
          });
        }
        if (Date.now() - started > patienceMs) throw this.#unreachable(thrown);
        await this.#wait(thrown);
      }
    }
  }

  /**
   * The id of the newest schema of a topic, or undefined when the registry has none.
   * @throws ReelflowError registryUnreachable, accessRefused
   */
  async latest(topic: string): Promise<number | undefined> {
    try {
      return await this.#client.getLatestSchemaId(`${topic}-value`);
    } catch (thrown) {
      if (isAccessRefusal(thrown)) throw this.#accessRefused(thrown);
      if (statusOf(thrown) === 404) return undefined;
      throw this.#unreachable(thrown);
    }
  }

  /**
   * The writer's schema of an id, or undefined when the registry does not know it. Waits while the registry is away.
   * @throws the abort reason of `signal`; ReelflowError accessRefused, untrusted
   */
  async writer(id: number): Promise<Type | undefined> {
    if (this.#writers.has(id)) return this.#writers.get(id);
    for (;;) {
      try {
        const schema = (await this.#client.getSchema(id)) as unknown as Type;
        this.#writers.set(id, schema);
        return schema;
      } catch (thrown) {
        const status = statusOf(thrown);
        if (status === 404) return undefined;
        if (isAccessRefusal(thrown)) throw this.#accessRefused(thrown);
        if (isRefusal(thrown) && (await this.#answers())) {
          throw new ReelflowError('registryUnreachable', 'The Schema Registry refuses to answer', {
            detail: `${this.#options.url}, schema ${id}: ${messageOf(thrown)}`,
            hint: 'Check SCHEMA_REGISTRY_URL and its access rights.',
            cause: thrown,
          });
        }
        await this.#wait(thrown);
      }
    }
  }

  /**
   * The client registers a subject first and sets its compatibility after: in between, or permanently if that process was
   * killed there, the subject has none.
   */
  async #setCompatibility(subject: string): Promise<boolean> {
    const response = await fetch(`${this.#options.url}/config/${encodeURIComponent(subject)}`, {
      method: 'PUT',
      headers: { ...this.#headers, 'content-type': 'application/vnd.schemaregistry.v1+json' },
      body: JSON.stringify({ compatibility: COMPATIBILITY.BACKWARD }),
    });
    return response.ok;
  }

  /** The client reports a refused connection as a status 400, too: only an answer is a refusal. */
  async #answers(): Promise<boolean> {
    try {
      const response = await fetch(`${this.#options.url}/subjects`, {
        headers: this.#headers,
        signal: AbortSignal.timeout(2_000),
      });
      return response.status < 500;
    } catch (thrown) {
      if (!isCertificateError(thrown)) return false;
      throw new ReelflowError('untrusted', "The Schema Registry's certificate is not trusted", {
        detail: `${this.#options.url}: ${messageOf((thrown as Error).cause)}`,
        hint: 'Name the certificate of its authority (PEM) in NODE_EXTRA_CA_CERTS, and the registry as its certificate does.',
        cause: thrown,
      });
    }
  }

  #accessRefused(thrown: unknown): ReelflowError {
    const { url, credentials } = this.#options;
    return new ReelflowError('accessRefused', 'The Schema Registry does not let us in', {
      detail: `${url}: ${messageOf(thrown)} (${credentials === undefined ? 'without a user' : `as ${credentials.username}`})`,
      hint: 'Check SCHEMA_REGISTRY_USERNAME, its password, and the rights of this user.',
      cause: thrown,
    });
  }

  #unreachable(thrown: unknown): ReelflowError {
    return new ReelflowError('registryUnreachable', 'The Schema Registry does not answer', {
      detail: `${this.#options.url}: ${messageOf(thrown)}`,
      hint: 'Start local services with `reelflow services up`, or check SCHEMA_REGISTRY_URL.',
      cause: thrown,
    });
  }

  async #wait(thrown: unknown): Promise<void> {
    const { onWaiting, signal } = this.#options;
    onWaiting?.(messageOf(thrown));
    await sleep(500, undefined, signal === undefined ? {} : { signal });
  }
}

function statusOf(thrown: unknown): number | undefined {
  const status = (thrown as { status?: unknown }).status;
  return typeof status === 'number' && status > 0 ? status : undefined;
}

const isAccessRefusal = (thrown: unknown) => statusOf(thrown) === 401 || statusOf(thrown) === 403;

const isWithoutCompatibility = (thrown: unknown) =>
  (thrown as Error).name === 'ConfluentSchemaRegistryCompatibilityError' &&
  messageOf(thrown).includes('!= NONE');

function isRefusal(thrown: unknown): boolean {
  const status = statusOf(thrown);
  if (status !== undefined) return status >= 400 && status < 500;
  return (thrown as Error).name === 'ConfluentSchemaRegistryCompatibilityError';
}
