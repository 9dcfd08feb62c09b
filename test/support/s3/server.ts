/** A real S3 server on this machine, of jars that Maven lays out once per content of `pom.xml`. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { findJava } from '../../../kafka/local/jars.ts';

const run = promisify(execFile);
const pom = join(import.meta.dirname, 'pom.xml');
const cache = join(import.meta.dirname, '..', '..', '..', '.reelflow', 'test-s3');
const startMs = 120_000;

export interface S3Server {
  /** What a client's environment holds: endpoint, region and credentials. */
  readonly env: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

/** The jars' folder. @returns undefined without Java or Maven, when nothing is cached either */
async function jars(): Promise<string | undefined> {
  const hash = createHash('sha256').update(readFileSync(pom)).digest('hex').slice(0, 16);
  const folder = join(cache, hash);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const partial = join(cache, randomBytes(6).toString('hex'));
  const args = ['-q', '-B', '-f', pom, 'dependency:copy-dependencies', `-DoutputDirectory=${partial}`];
  try {
    await run('mvn', args);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw thrown;
  }
  writeFileSync(join(partial, 'logback.xml'), '<configuration><root level="OFF"/></configuration>');
  try {
    renameSync(partial, folder);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return folder;
}

/**
 * Starts a server that keeps its objects in `folder`.
 * @returns undefined where there is no Java or no Maven
 */
export async function startS3(folder: string, port: number): Promise<S3Server | undefined> {
  const java = await findJava(process.env);
  const lib = 'found' in java ? await jars() : undefined;
  if (!('found' in java) || lib === undefined) return undefined;
  const [key, secret] = [randomBytes(8).toString('hex'), randomBytes(16).toString('hex')];
  const endpoint = `http://127.0.0.1:${port}`;
  const objects = join(folder, 'objects');
  mkdirSync(objects, { recursive: true });
  const properties = join(folder, 's3proxy.properties');
  const lines = [
    's3proxy.authorization=aws-v2-or-v4',
    `s3proxy.endpoint=${endpoint}`,
    `s3proxy.identity=${key}`,
    `s3proxy.credential=${secret}`,
    'jclouds.provider=filesystem-nio2',
    `jclouds.filesystem.basedir=${objects}`,
  ];
  writeFileSync(properties, lines.join('\n'));
  const small = ['-Xmx256m', '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC'];
  const main = ['-cp', `${lib}:${join(lib, '*')}`, 'org.gaul.s3proxy.Main', '--properties', properties];
  const child = spawn(java.found, [...small, ...main], { stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  await untilUp(endpoint, child);
  return {
    env: {
      AWS_ENDPOINT_URL_S3: endpoint,
      AWS_ACCESS_KEY_ID: key,
      AWS_SECRET_ACCESS_KEY: secret,
      AWS_REGION: 'us-east-1',
    },
    stop: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function untilUp(endpoint: string, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + startMs;
  for (;;) {
    try {
      await fetch(endpoint);
      return;
    } catch (thrown) {
      if (child.exitCode !== null) throw new Error(`the S3 server ended with ${child.exitCode}`);
      if (Date.now() > deadline) throw thrown;
      await delay(100);
    }
  }
}
