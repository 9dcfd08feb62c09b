/**
 * The Schema Registry as the stages use it: register the schema of a topic, look a writer's schema up by its id. A
 * registry that is away or busy is waited out, and so is an answer that is not the registry's own: only an id that the
 * registry itself does not know is an answer.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SchemaRegistry } from '@kafkajs/confluent-schema-registry';
import type { Type } from 'avsc';
import { isCertificateAlert, isCertificateError, messageOf, ReelflowError } from '../runtime/errors.ts';
import { type Answer, connectionFailure, exchange, isAbsent, obstacleOf } from '../runtime/registry-http.ts';
import { type RegistryAccess, registryAccess } from '../runtime/registry-security.ts';

/** The text of `topics/schemas/<name>.avsc`; names are topics without their namespace. */
export function schemaText(name: string): string {
  return readFileSync(new URL(`./schemas/${name}.avsc`, import.meta.url), 'utf8');
}

/** The registry has a schema under an id, and it is not an Avro schema that can be read. */
export class UnusableSchema extends Error {
  override readonly name = 'UnusableSchema';
}

export interface RegistryOptions {
  readonly url: string;
  /** How this client identifies itself; absent: not at all. */
  readonly access?: RegistryAccess;
  /** Whether it belongs to the local services. */
  readonly isLocal?: boolean;
  /** Receives every wait; the outage monitor of the process. */
  readonly outages?: {
    waits(activity: string, reason: string): void;
    resumes(activity: string, isServed: boolean): void;
    readonly current: { readonly seconds: number; readonly reason: string } | undefined;
  };
  /** How long `register` and `latest` wait for a registry that does not answer at all, in milliseconds. Default 5,000. */
  readonly patienceMs?: number;
  /** The same for answers of another program, in milliseconds: its ingress may be faster. Default 60,000. */
  readonly foreignPatienceMs?: number;
  /** Ends every wait. */
  readonly signal?: AbortSignal;
}

/** An id that no message has. */
export const unregistered = -1;

/** Compatibility of all subjects. */
const compatibility = 'BACKWARD';
/** How often a refusal is repeated before it counts. */
const refusalsMax = 4;
const retryMs = { first: 500, most: 5_000 };
/** One failure may be due to this process: its machine was suspended, or had no processor to spare. */
const attemptsMin = 2;
/** A registry cannot send a member to sleep for longer than this. */
const retryAfterMaxMs = 60_000;

/** Fields that the package reads without a check, by its name of the request. */
const requiredFields: Readonly<Record<string, readonly [name: string, type: string]>> = {
  config: ['compatibilityLevel', 'string'],
  register: ['id', 'number'],
  latestVersion: ['id', 'number'],
};

type Middleware = NonNullable<ConstructorParameters<typeof SchemaRegistry>[0]['middlewares']>[number];
type Respond = NonNullable<ReturnType<Middleware>['response']>;

/** A request, apart from what identifies this client. */
interface Asked {
  readonly method: 'GET' | 'POST' | 'PUT';
  /** Behind the URL of the registry. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

type Response = Awaited<ReturnType<Respond>>;

/** The registry itself does not give what was asked for. */
class Refusal extends Error {
  readonly asked: Asked;
  readonly answer: Answer;
  /** The package takes any 404 for a subject without a compatibility: only the registry's own code may reach it as one. */
  readonly status: 404 | undefined;

  constructor(asked: Asked, answer: Answer, isMissing = isAbsent(answer)) {
    super(answer.text);
    this.asked = asked;
    this.answer = answer;
    this.status = isMissing ? 404 : undefined;
  }
}

export class Registry {
  readonly #options: RegistryOptions;
  readonly #writers = new Map<number, Promise<Type | undefined>>();

  constructor(options: RegistryOptions) {
    this.#options = { ...options, url: options.url.replace(/\/+$/, '') };
  }

  /** The present outage of the registry, once it is long enough to be one. */
  get outage(): { readonly seconds: number; readonly reason: string } | undefined {
    return this.#options.outages?.current;
  }

  /**
   * Registers the schema of a topic under `<topic>-value` with BACKWARD compatibility; idempotent.
   * @param schema its text, unless it is a file of ours
   * @returns the id that goes before every value
   * @throws ReelflowError registryUnreachable, after `patienceMs`; accessRefused, untrusted; topicMismatch, when the
   *   registry refuses the schema; the abort reason of `signal`
   */
  async register(topic: string, schemaName: string, schema = schemaText(schemaName)): Promise<number> {
    const known = await this.#registered(topic, schema);
    if (known !== undefined) return known;
    const { SchemaType, COMPATIBILITY } = await import('@kafkajs/confluent-schema-registry');
    const client = await this.#client(`schema of ${topic}`, true);
    const subject = { subject: `${topic}-value`, compatibility: COMPATIBILITY[compatibility] };
    for (let refusals = 1; ; refusals++) {
      try {
        return (await client.register({ type: SchemaType.AVRO, schema }, subject)).id;
      } catch (thrown) {
        const level = otherLevelOf(thrown);
        if (level !== undefined) throw this.#otherLevel(topic, level);
        if (!(thrown instanceof Refusal)) throw thrown;
        // Clients that create a subject at the same moment overtake each other between the package's requests: a
        // refusal counts when it persists.
        if (refusals === refusalsMax) throw this.#refused(topic, thrown.answer);
      }
      await this.#sleep(100 * refusals);
    }
  }

  /**
   * The id under which the registry holds our schema of a topic, or `unregistered`. Changes nothing.
   * @throws ReelflowError registryUnreachable, accessRefused, untrusted; the abort reason of `signal`
   */
  async registered(topic: string, schemaName: string): Promise<number> {
    return (await this.#registered(topic, schemaText(schemaName))) ?? unregistered;
  }

  /**
   * The id of a schema that its subject holds already, with our compatibility: the usual case, for which two requests at once
   * suffice, without the package.
   */
  async #registered(topic: string, schema: string): Promise<number | undefined> {
    const subject = encodeURIComponent(`${topic}-value`);
    const activity = `schema of ${topic}`;
    const headers = { 'content-type': 'application/vnd.schemaregistry.v1+json' };
    const body = JSON.stringify({ schema });
    const [level, found] = await Promise.all([
      this.#ask(
        `compatibility of ${topic}`,
        { method: 'GET', path: `/config/${subject}`, headers: {} },
        true,
      ),
      this.#ask(activity, { method: 'POST', path: `/subjects/${subject}`, headers, body }, true),
    ]);
    const id = found.body?.id;
    const isOurs = isOk(level) && level.body?.compatibilityLevel === compatibility;
    return isOurs && isOk(found) && typeof id === 'number' ? id : undefined;
  }

  /**
   * The id of the newest schema of a topic, or undefined when the registry has none.
   * @throws ReelflowError registryUnreachable, accessRefused, untrusted; the abort reason of `signal`
   */
  async latest(topic: string): Promise<number | undefined> {
    const client = await this.#client(`newest schema of ${topic}`, true);
    try {
      return await client.getLatestSchemaId(`${topic}-value`);
    } catch (thrown) {
      if (!(thrown instanceof Refusal)) throw thrown;
      if (thrown.status === 404) return undefined;
      throw this.#refusesToAnswer(thrown);
    }
  }

  /**
   * The writer's schema of an id, or undefined when the registry does not know it. Waits while the registry is away.
   * @throws UnusableSchema; ReelflowError registryUnreachable for a refusal, accessRefused, untrusted; the abort reason
   *   of `signal`
   */
  writer(id: number): Promise<Type | undefined> {
    const known = this.#writers.get(id);
    if (known !== undefined) return known;
    const found = this.#findWriter(id);
    this.#writers.set(id, found);
    // An id that is unknown now may be registered later.
    const forget = () => this.#writers.delete(id);
    found.then((type) => type ?? forget(), forget);
    return found;
  }

  async #findWriter(id: number): Promise<Type | undefined> {
    const client = await this.#client(`schema ${id}`, false);
    try {
      const schema: unknown = await client.getSchema(id);
      const { default: avsc } = await import('avsc');
      if (avsc.Type.isType(schema)) return schema as Type;
    } catch (thrown) {
      if (thrown instanceof Refusal) {
        const { path } = thrown.asked;
        if (!path.startsWith('/schemas/ids/')) {
          throw new UnusableSchema(`refers to ${path}: ${thrown.answer.text}`);
        }
        if (thrown.status === 404) return undefined;
        throw this.#refusesToAnswer(thrown);
      }
      if (thrown instanceof ReelflowError || this.#options.signal?.aborted) throw thrown;
      throw new UnusableSchema(messageOf(thrown));
    }
    throw new UnusableSchema('is not of type Avro');
  }

  /**
   * The package, which knows the requests, references and schema types, over our own exchange. Its own exchange never
   * settles when an answer ends early, and a middleware would see neither headers nor the registry's error code, because
   * the package's error middleware is nearer to the connection.
   */
  async #client(activity: string, isAtStart: boolean): Promise<SchemaRegistry> {
    // Loading it takes a tenth of a second, and most commands need no registry.
    const { SchemaRegistry } = await import('@kafkajs/confluent-schema-registry');
    const middleware: Middleware = ({ resourceMethod }) => ({
      response: async (_next, _renew, request) => {
        const body = request.body();
        const asked: Asked = {
          method: request.method().toUpperCase() as Asked['method'],
          path: request.path(),
          headers: request.headers() as Record<string, string>,
          ...(typeof body === 'string' && { body }),
        };
        const answer = await this.#ask(activity, asked, isAtStart);
        const required = requiredFields[resourceMethod];
        const value = required && answer.body?.[required[0]];
        if (!isOk(answer) || (required && typeof value !== required[1])) throw new Refusal(asked, answer);
        // A client may have been killed between creating a subject and setting its level: then the package sets it.
        if (resourceMethod === 'config' && String(value).toUpperCase() === 'NONE') {
          throw new Refusal(asked, answer, true);
        }
        // The package reads nothing else of a response.
        return { data: () => answer.body } as Response;
      },
    });
    return new SchemaRegistry({ host: this.#options.url, retry: { retries: 0 }, middlewares: [middleware] });
  }

  /**
   * Asks until the registry itself answers.
   * @param activity names what waits, for the outage monitor
   * @param isAtStart whether the command may end with an error that a person waits for
   * @throws ReelflowError accessRefused, untrusted, registryUnreachable; the abort reason of `signal`
   */
  async #ask(activity: string, asked: Asked, isAtStart: boolean): Promise<Answer> {
    const { outages, patienceMs = 5_000, foreignPatienceMs = 60_000 } = this.#options;
    const startedMs = performance.now();
    let isServed = false;
    try {
      for (let [attempt, pauseMs] = [1, retryMs.first]; ; attempt++) {
        const reply = await this.#try(asked);
        isServed = reply.obstacle === undefined;
        if (reply.obstacle === undefined) return reply.answer;
        const limitMs = { absent: patienceMs, foreign: foreignPatienceMs, busy: Number.POSITIVE_INFINITY };
        const waitedMs = performance.now() - startedMs;
        if (isAtStart && attempt >= attemptsMin && waitedMs > limitMs[reply.obstacle]) {
          throw this.#unreachable(reply.obstacle, reply.reason);
        }
        outages?.waits(activity, `${this.#options.url}: ${reply.reason}`);
        await this.#sleep(Math.max(pauseMs, Math.min(reply.retryAfterMs ?? 0, retryAfterMaxMs)));
        pauseMs = Math.min(2 * pauseMs, retryMs.most);
      }
    } finally {
      outages?.resumes(activity, isServed);
    }
  }

  async #try({ method, path, headers: own, body }: Asked): Promise<Reply> {
    const { url, access = registryAccess(), signal } = this.#options;
    try {
      const { headers, tls } = access.request();
      const answer = await exchange(`${url}${path}`, {
        method,
        headers: { ...own, ...headers },
        ...(tls !== undefined && { tls }),
        ...(body !== undefined && { body }),
        ...(signal !== undefined && { signal }),
      });
      if (answer.status === 401 || answer.status === 403) throw this.#accessRefused(answer.text);
      const obstacle = obstacleOf(answer);
      if (obstacle === undefined) return { obstacle, answer };
      const reason = `${method} ${path}: ${answer.text}`;
      return { obstacle, reason, retryAfterMs: answer.retryAfterMs };
    } catch (thrown) {
      signal?.throwIfAborted();
      if (thrown instanceof ReelflowError) throw thrown;
      if (isCertificateError(thrown)) throw this.#untrusted(thrown);
      if (isCertificateAlert(thrown)) throw this.#accessRefused(messageOf(thrown));
      return { obstacle: 'absent', reason: connectionFailure(thrown), retryAfterMs: undefined };
    }
  }

  async #sleep(ms: number): Promise<void> {
    const { signal } = this.#options;
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
  }

  #otherLevel(topic: string, level: string): ReelflowError {
    return new ReelflowError('topicMismatch', `The subject of ${topic} has another compatibility`, {
      detail: `${this.#options.url}, ${topic}-value: ${level}, not ${compatibility}`,
      hint: `Set the compatibility of the subject to ${compatibility}, or use another --namespace.`,
    });
  }

  #refused(topic: string, answer: Answer): ReelflowError {
    return new ReelflowError('topicMismatch', `The Schema Registry refuses the schema of ${topic}`, {
      detail: `${this.#options.url}, ${topic}-value: ${answer.text}`,
      hint:
        answer.status === 409
          ? 'Compare the schemas under this subject with ours: correct the subject, or use another --namespace.'
          : 'Check what the detail names in the registry, for this subject and this user.',
    });
  }

  #refusesToAnswer({ asked, answer }: Refusal): ReelflowError {
    return new ReelflowError('registryUnreachable', 'The Schema Registry refuses to answer', {
      detail: `${this.#options.url}${asked.path}: ${answer.text}`,
      hint: 'Check what the detail names in the registry.',
    });
  }

  #accessRefused(text: string): ReelflowError {
    const { url, access = registryAccess() } = this.#options;
    return new ReelflowError('accessRefused', 'The Schema Registry denies access', {
      detail: `${url}: ${text} (${access.login})`,
      hint: 'Check SCHEMA_REGISTRY_USERNAME and its password, SCHEMA_REGISTRY_BEARER_TOKEN_FILE or SCHEMA_REGISTRY_SSL_CERTIFICATE_FILE, and the rights there.',
    });
  }

  #untrusted(thrown: unknown): ReelflowError {
    return new ReelflowError('untrusted', "The Schema Registry's certificate is not trusted", {
      detail: `${this.#options.url}: ${messageOf(thrown)}`,
      hint: 'Name the certificate of its authority (PEM) in SCHEMA_REGISTRY_SSL_CA_FILE, and the registry as its certificate does.',
      cause: thrown,
    });
  }

  #unreachable(obstacle: 'absent' | 'foreign' | 'busy', reason: string): ReelflowError {
    const detail = `${this.#options.url}: ${reason}`;
    return obstacle === 'foreign'
      ? new ReelflowError('registryUnreachable', 'Another program than a Schema Registry answers', {
          detail,
          hint: 'Check host and path of SCHEMA_REGISTRY_URL, and what the proxies before the registry do.',
        })
      : new ReelflowError('registryUnreachable', 'The Schema Registry does not answer', {
          detail,
          hint: this.#options.isLocal
            ? 'Start local services with `reelflow services up`.'
            : 'Check SCHEMA_REGISTRY_URL, or unset it and KAFKA_BROKERS and start local services with `reelflow services up`.',
        });
  }
}

type Reply =
  | { readonly obstacle: undefined; readonly answer: Answer }
  | {
      /** `absent`: no answer at all. */
      readonly obstacle: 'absent' | 'foreign' | 'busy';
      readonly reason: string;
      readonly retryAfterMs: number | undefined;
    };

const isOk = ({ status }: Answer): boolean => status >= 200 && status < 300;

/** The level of a subject that the package refuses; it exports no class for this error. */
const otherLevelOf = (thrown: unknown): string | undefined =>
  (thrown as Error).name === 'ConfluentSchemaRegistryCompatibilityError'
    ? (/!= (\w+)\)$/.exec(messageOf(thrown))?.[1] ?? messageOf(thrown))
    : undefined;
