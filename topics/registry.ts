/**
 * The Schema Registry as the stages use it: register the schema of a topic, look a writer's schema up by its id. A
 * registry that is away or busy is waited out, and so is an answer that is not the registry's own: only an id that the
 * registry itself does not know is an answer.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import avsc, { type Type } from 'avsc';
import { isCertificateAlert, isCertificateError, messageOf, ReelflowError } from '../runtime/errors.ts';
import {
  type Answer,
  connectionFailure,
  type Exchange,
  exchange,
  isAbsent,
  obstacleOf,
} from '../runtime/registry-http.ts';
import { type RegistryAccess, registryAccess } from '../runtime/registry-security.ts';

/** The text of `topics/schemas/<name>.avsc`; names are topics without their namespace. */
export function schemaText(name: string): string {
  return readFileSync(new URL(`./schemas/${name}.avsc`, import.meta.url), 'utf8');
}

/** The registry has a schema under an id, and it is no Avro schema that can be read. */
export class UnusableSchema extends Error {
  override readonly name = 'UnusableSchema';
}

export interface RegistryOptions {
  readonly url: string;
  /** How this client identifies itself; absent: not at all. */
  readonly access?: RegistryAccess;
  /** Receives every wait; the outage monitor of the process. */
  readonly outages?: {
    waits(activity: string, reason: string): void;
    resumes(activity: string): void;
    readonly current: { readonly seconds: number; readonly reason: string } | undefined;
  };
  /** How long `register` and `latest` wait for a registry that does not answer at all, in milliseconds. Default 5,000. */
  readonly patienceMs?: number;
  /** The same for answers of another program, in milliseconds: its ingress may be faster. Default 60,000. */
  readonly foreignPatienceMs?: number;
  /** Ends every wait. */
  readonly signal?: AbortSignal;
}

/** Compatibility of all subjects. */
const compatibility = 'BACKWARD';
/** How often a refusal is repeated before it counts. */
const refusalsMax = 4;
const retryMs = { first: 500, most: 5_000 };
/** A registry cannot send a member to sleep for longer than this. */
const retryAfterMaxMs = 60_000;

type Request = Pick<Exchange, 'method' | 'body'> & { readonly path: string };

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
    const subject = encodeURIComponent(`${topic}-value`);
    const ask = (request: Request) => this.#ask(`schema of ${topic}`, request, true);
    for (let refusals = 1; ; refusals++) {
      const found = await ask({ method: 'GET', path: `config/${subject}` });
      const level = isOk(found) ? String(found.body?.compatibilityLevel).toUpperCase() : undefined;
      // Clients that create a subject at the same moment overtake each other between these requests, and a client may
      // have been killed there: a subject without a level gets one, and a refusal counts when it persists.
      const isUnset = level === 'NONE' || isAbsent(found);
      if (level !== compatibility && !isUnset) {
        throw isOk(found) ? this.#otherLevel(topic, level) : this.#refused(topic, found);
      }
      const registered = await ask({
        method: 'POST',
        path: `subjects/${subject}/versions`,
        body: { schema },
      });
      const last =
        isOk(registered) && isUnset
          ? await ask({ method: 'PUT', path: `config/${subject}`, body: { compatibility } })
          : registered;
      if (isOk(last)) {
        const id = registered.body?.id;
        if (typeof id === 'number') return id;
      }
      if (refusals === refusalsMax) throw this.#refused(topic, last);
      await this.#sleep(100 * refusals);
    }
  }

  /**
   * The id of the newest schema of a topic, or undefined when the registry has none.
   * @throws ReelflowError registryUnreachable, accessRefused, untrusted; the abort reason of `signal`
   */
  async latest(topic: string): Promise<number | undefined> {
    const path = `subjects/${encodeURIComponent(`${topic}-value`)}/versions/latest`;
    const answer = await this.#ask(`newest schema of ${topic}`, { method: 'GET', path }, true);
    if (isAbsent(answer)) return undefined;
    if (!isOk(answer)) throw this.#refusesToAnswer(path, answer);
    return Number(answer.body?.id);
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
    const path = `schemas/ids/${id}`;
    const answer = await this.#ask(`schema ${id}`, { method: 'GET', path }, false);
    if (isAbsent(answer)) return undefined;
    if (!isOk(answer)) throw this.#refusesToAnswer(path, answer);
    return this.#typeOf(id, answer, {});
  }

  /** @param types of named schemas, which it extends */
  async #typeOf(id: number, { body }: Answer, types: Record<string, Type>): Promise<Type> {
    const { schema, schemaType = 'AVRO', references } = body ?? {};
    if (schemaType !== 'AVRO') throw new UnusableSchema(`is of type ${schemaType}, not Avro`);
    for (const { subject, version } of Array.isArray(references) ? references : []) {
      const path = `subjects/${encodeURIComponent(subject)}/versions/${version}`;
      const answer = await this.#ask(`schema ${id}`, { method: 'GET', path }, false);
      if (!isOk(answer)) throw new UnusableSchema(`refers to ${subject}, version ${version}: ${answer.text}`);
      await this.#typeOf(id, answer, types);
    }
    try {
      return avsc.Type.forSchema(JSON.parse(String(schema)), { registry: types });
    } catch (thrown) {
      throw new UnusableSchema(messageOf(thrown));
    }
  }

  /**
   * Asks until the registry itself answers.
   * @param activity names what waits, for the outage monitor
   * @param isAtStart whether the command may end with an error that a person waits for
   * @throws ReelflowError accessRefused, untrusted, registryUnreachable; the abort reason of `signal`
   */
  async #ask(activity: string, request: Request, isAtStart: boolean): Promise<Answer> {
    const { outages, patienceMs = 5_000, foreignPatienceMs = 60_000 } = this.#options;
    const startedMs = performance.now();
    try {
      for (let pauseMs = retryMs.first; ; pauseMs = Math.min(2 * pauseMs, retryMs.most)) {
        const reply = await this.#try(request);
        if (reply.obstacle === undefined) return reply.answer;
        const limitMs = { absent: patienceMs, foreign: foreignPatienceMs, busy: Number.POSITIVE_INFINITY };
        if (isAtStart && performance.now() - startedMs > limitMs[reply.obstacle]) {
          throw this.#unreachable(reply.obstacle, reply.reason);
        }
        outages?.waits(activity, `${this.#options.url}: ${reply.reason}`);
        await this.#sleep(Math.max(pauseMs, Math.min(reply.retryAfterMs ?? 0, retryAfterMaxMs)));
      }
    } finally {
      outages?.resumes(activity);
    }
  }

  async #try({ method, path, body }: Request): Promise<Reply> {
    const { url, access = registryAccess(), signal } = this.#options;
    try {
      const answer = await exchange(`${url}/${path}`, {
        method,
        ...access.request(),
        ...(body !== undefined && { body }),
        ...(signal !== undefined && { signal }),
      });
      if (answer.status === 401 || answer.status === 403) throw this.#accessRefused(answer.text);
      const obstacle = obstacleOf(answer);
      if (obstacle === undefined) return { obstacle, answer };
      const asked = `${method} ${path}: ${answer.text}`;
      return { obstacle, reason: asked, retryAfterMs: answer.retryAfterMs };
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

  #otherLevel(topic: string, level: string | undefined): ReelflowError {
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

  #refusesToAnswer(path: string, answer: Answer): ReelflowError {
    return new ReelflowError('registryUnreachable', 'The Schema Registry refuses to answer', {
      detail: `${this.#options.url}/${path}: ${answer.text}`,
      hint: 'Check what the detail names in the registry.',
    });
  }

  #accessRefused(text: string): ReelflowError {
    const { url, access = registryAccess() } = this.#options;
    return new ReelflowError('accessRefused', 'The Schema Registry does not let us in', {
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
          hint: 'Start local services with `reelflow services up`, or check SCHEMA_REGISTRY_URL.',
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
