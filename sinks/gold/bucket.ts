/**
 * The objects of one prefix of a bucket with the S3 API, named like the files of a gold folder. Requests that replace an object
 * that readers follow are conditional: the store refuses them if the object has changed since it was read.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as S3 from '@aws-sdk/client-s3';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { fileSha256, makeFolder, syncPath } from '../../runtime/files.ts';
import { filesOf, type Manifest, parseManifest, snapshotFolder, snapshotIdIn } from './manifest.ts';
import { isPinned, type Keep, keptForAge } from './retention.ts';

/** Names of the files of a snapshot. */
const namePattern = /^(cubes\/)?\w+(\.\w+)*\.(parquet|json)$/;

interface BucketPlace {
  readonly url: string;
  readonly bucket: string;
  /** '' or ending in '/'. */
  readonly prefix: string;
}

/** @throws ReelflowError usage */
export function bucketPlaceOf(url: string): BucketPlace {
  const [, bucket, prefix = ''] =
    /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*?))?\/*$/.exec(url) ?? [];
  if (bucket === undefined) {
    throw new ReelflowError('usage', `${url} is not a bucket`, {
      hint: 'Write it as s3://bucket or s3://bucket/prefix.',
    });
  }
  return { url, bucket, prefix: prefix === '' ? '' : `${prefix}/` };
}

/** Called before snapshots leave the bucket. @param snapshots ids of those that stay. @returns one that stays too */
export type BeforeRemoval = (snapshots: readonly string[]) => Promise<string | undefined>;

/** A store that neither takes nor sends a byte for this time does not answer; the SDK then tries twice again. */
const silenceMs = 60_000;

/** One prefix of a bucket. */
export class Bucket {
  readonly url: string;
  readonly #place: BucketPlace;
  readonly #client: S3.S3Client;

  constructor(place: BucketPlace, socketTimeout = silenceMs) {
    this.url = place.url;
    this.#place = place;
    // Without it the SDK waits for an answer without a limit, and the sink with it.
    this.#client = new S3.S3Client({ ...clientConfig(process.env), requestHandler: { socketTimeout } });
  }

  close(): void {
    this.#client.destroy();
  }

  async current(): Promise<{ id: string; tag: string } | undefined> {
    return this.#readIfAny('CURRENT', async (body, tag) => {
      const text = await body.transformToString();
      return { id: snapshotIdIn(text, `${this.url}: CURRENT`), tag };
    });
  }

  async manifest(id: string): Promise<Manifest> {
    const key = `snapshots/${id}/manifest.json`;
    return parseManifest(
      id,
      `${this.url}: ${key}`,
      await this.#read(key, async (body) => body.transformToString()),
    );
  }

  /**
   * @param earlier a snapshot of the bucket, whose equal files the store copies itself
   * @returns bytes sent
   * @throws ReelflowError goldUnusable, for a file that differs from the manifest
   */
  async putSnapshot(gold: string, manifest: Manifest, earlier?: Manifest): Promise<number> {
    const { id } = manifest;
    const folder = snapshotFolder(gold, id);
    let bytes = 0;
    const hashes = new Map(filesOf(manifest).map(({ path, sha256 }) => [path, sha256]));
    const had = new Map((earlier ? filesOf(earlier) : []).map(({ path, sha256 }) => [path, sha256]));
    // Manifests of earlier versions do not list the cubes.
    const cubes = readdirSync(join(folder, 'cubes')).map((name) => `cubes/${name}`);
    for (const path of new Set([...hashes.keys(), ...cubes, 'manifest.json'])) {
      const file = join(folder, path);
      const sha256 = hashes.get(path);
      if (sha256 !== undefined && (await sha256OrNone(file)) !== sha256) throw altered(id, file);
      const isSame = sha256 !== undefined && had.get(path) === sha256;
      const same = isSame ? `snapshots/${earlier?.id}/${path}` : undefined;
      bytes += await this.#put(`snapshots/${id}/${path}`, file, same);
    }
    return bytes;
  }

  async getSnapshot(manifest: Manifest, into: string): Promise<void> {
    const { id } = manifest;
    const prefix = `snapshots/${id}/`;
    for (const key of await this.#list(prefix)) {
      const name = key.slice(prefix.length);
      // Anyone who may write to the bucket must not choose where we write.
      if (!namePattern.test(name)) continue;
      const file = join(into, name);
      makeFolder(dirname(file));
      await this.#read(key, (body) => pipeline(body as unknown as Readable, createWriteStream(file)));
      syncPath(file);
    }
    for (const { path, sha256 } of filesOf(manifest)) {
      if ((await sha256OrNone(join(into, path))) !== sha256)
        throw altered(id, `${this.url}: ${prefix}${path}`);
    }
    syncPath(into);
  }

  /** @param tag of the CURRENT that may be replaced; undefined if none may exist. @throws ReelflowError busy */
  async replaceCurrent(id: string, tag: string | undefined): Promise<void> {
    await this.#replace('CURRENT', `${id}\n`, tag);
  }

  /** Fetches an object. @returns its tag, or undefined if there is none */
  async getFile(name: string, into: string): Promise<string | undefined> {
    return this.#readIfAny(name, async (body, tag) => {
      await pipeline(body as unknown as Readable, createWriteStream(into));
      return tag;
    });
  }

  /** @param tag of the object that may be replaced; undefined if none may exist. @throws ReelflowError busy */
  async replaceFile(name: string, file: string, tag: string | undefined): Promise<void> {
    await this.#replace(name, readFileSync(file), tag);
  }

  async #replace(name: string, Body: string | Uint8Array, tag: string | undefined): Promise<void> {
    const condition = tag === undefined ? { IfNoneMatch: '*' } : { IfMatch: tag };
    try {
      await this.#client.send(new S3.PutObjectCommand({ ...this.#object(name), ...condition, Body }));
    } catch (thrown) {
      const { name: kind, $metadata } = thrown as S3.S3ServiceException;
      if (kind !== 'PreconditionFailed' && $metadata?.httpStatusCode !== 409) throw this.#error(thrown);
      throw new ReelflowError('busy', `Another push has replaced ${name} of the bucket meanwhile`, {
        detail: `${this.url}: ${name} has changed since this push read it.`,
        hint: 'One sink serves a prefix. End the other one, then push again.',
        cause: thrown,
      });
    }
  }

  /**
   * Removes what the rule of the folder removes, but not `current` and snapshots pinned in the folder.
   * @returns the removed ids
   */
  async retain(gold: string, keep: Keep, current: string, before: BeforeRemoval): Promise<string[]> {
    const all = [
      ...new Set((await this.#list('snapshots/')).map((key) => key.split('/')[1] as string)),
    ].sort();
    const forAge = keptForAge(all, keep);
    const old = all
      .slice(0, -keep.newest)
      .filter((id) => id < current && !forAge.has(id) && !isPinned(gold, id));
    const spared = await before(all.filter((id) => id <= current && !old.includes(id)));
    const removable = old.filter((id) => id !== spared);
    for (const id of removable) {
      const keys = await this.#list(`snapshots/${id}/`);
      // The manifest first: without it the rest is not a snapshot.
      keys.sort((a, b) => Number(b.endsWith('/manifest.json')) - Number(a.endsWith('/manifest.json')));
      for (const key of keys)
        await this.#asked(this.#client.send(new S3.DeleteObjectCommand(this.#object(key))));
    }
    return removable;
  }

  /** @param same an object that should have the same bytes. @returns bytes sent */
  async #put(key: string, file: string, same?: string): Promise<number> {
    const { size } = statSync(file);
    const md5 = createHash('md5');
    await pipeline(createReadStream(file), md5);
    const hash = md5.digest();
    if (same !== undefined && (await this.#copy(same, key, hash.toString('hex')))) return 0;
    // The store compares the received bytes with the hash.
    const ContentMD5 = hash.toString('base64');
    const body = { Body: createReadStream(file), ContentLength: size, ContentMD5 };
    await this.#asked(this.#client.send(new S3.PutObjectCommand({ ...this.#object(key), ...body })));
    return size;
  }

  /** @returns false if the store does not copy, or the object has not this hash: then the file is sent */
  async #copy(from: string, to: string, md5: string): Promise<boolean> {
    const { Bucket, Key } = this.#object(from);
    const CopySource = [Bucket, ...Key.split('/')].map(encodeURIComponent).join('/');
    try {
      const source = { CopySource, CopySourceIfMatch: `"${md5}"` };
      await this.#client.send(new S3.CopyObjectCommand({ ...this.#object(to), ...source }));
      return true;
    } catch (thrown) {
      if ((thrown as Partial<S3.S3ServiceException>).$metadata?.httpStatusCode === undefined)
        throw this.#error(thrown);
      return false;
    }
  }

  /** All keys below a prefix, relative to the prefix of the place. */
  async #list(below: string): Promise<string[]> {
    const { bucket, prefix } = this.#place;
    const keys: string[] = [];
    let ContinuationToken: string | undefined;
    do {
      const request = {
        Bucket: bucket,
        Prefix: `${prefix}${below}`,
        ...(ContinuationToken && { ContinuationToken }),
      };
      const page = await this.#asked(this.#client.send(new S3.ListObjectsV2Command(request)));
      keys.push(...(page.Contents ?? []).map(({ Key }) => String(Key).slice(prefix.length)));
      ContinuationToken = page.NextContinuationToken;
    } while (ContinuationToken !== undefined);
    return keys;
  }

  async #read<T>(key: string, use: (body: S3Body) => Promise<T>): Promise<T> {
    const { Body } = await this.#asked(this.#client.send(new S3.GetObjectCommand(this.#object(key))));
    return this.#asked(use(Body as S3Body));
  }

  /** Reads an object with its tag. @returns undefined if there is none */
  async #readIfAny<T>(key: string, use: (body: S3Body, tag: string) => Promise<T>): Promise<T | undefined> {
    try {
      const { Body, ETag } = await this.#client.send(new S3.GetObjectCommand(this.#object(key)));
      return await use(Body as S3Body, String(ETag));
    } catch (thrown) {
      if ((thrown as S3.S3ServiceException).name === 'NoSuchKey') return undefined;
      throw this.#error(thrown);
    }
  }

  #object(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#place.bucket, Key: `${this.#place.prefix}${key}` };
  }

  async #asked<T>(request: Promise<T>): Promise<T> {
    try {
      return await request;
    } catch (thrown) {
      throw this.#error(thrown);
    }
  }

  #error(thrown: unknown): unknown {
    if (thrown instanceof ReelflowError) return thrown;
    const { name = '', $metadata } = thrown as Partial<S3.S3ServiceException>;
    const status = $metadata?.httpStatusCode === undefined ? '' : ` (${$metadata.httpStatusCode})`;
    return new ReelflowError('bucketUnusable', 'The bucket cannot be used', {
      detail: `${this.url}: ${name}${status}: ${messageOf(thrown)}`,
      hint: 'Check AWS_ENDPOINT_URL_S3, AWS_REGION and the credentials; the next push continues where this one broke off.',
      cause: thrown,
    });
  }
}

type S3Body = NonNullable<S3.GetObjectCommandOutput['Body']>;

/**
 * The AWS SDK finds region, credentials and endpoint in the environment, a profile or the instance. Other stores than AWS are
 * addressed by path, and not all of them know checksums in trailers.
 */
function clientConfig(env: NodeJS.ProcessEnv): S3.S3ClientConfig {
  const isOther = (env.AWS_ENDPOINT_URL_S3 ?? env.AWS_ENDPOINT_URL) !== undefined;
  return {
    forcePathStyle: isOther,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    ...(isOther && env.AWS_REGION === undefined && { region: 'us-east-1' }),
  };
}

async function sha256OrNone(file: string): Promise<string | undefined> {
  try {
    return await fileSha256(file);
  } catch {
    return undefined;
  }
}

const altered = (id: string, file: string) =>
  new ReelflowError('goldUnusable', `A file of snapshot ${id} is missing or was altered`, {
    detail: file,
    hint: `Run \`reelflow verify ${id}\` to see everything that is wrong with it.`,
  });
