/** What a peer is, and what all of them are given. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { localFolder } from '../../cli/options.ts';
import type { Broker } from '../../kafka/client.ts';
import { findJava } from '../../kafka/local/jars.ts';
import type { Endpoints } from '../../runtime/config.ts';
import { messageOf } from '../../runtime/errors.ts';
import type { Say } from '../data.ts';
import type { Program } from '../measure.ts';

/**
 * files: the TSV files themselves. chunks: our own topics, one message an array of rows. rows: topics of the same rows,
 * a message each, keyed by the id, Avro as well.
 */
export type Input = 'files' | 'chunks' | 'rows';

/** What a peer may use. Folders are absolute. */
export interface Workshop {
  readonly broker: Broker;
  readonly endpoints: Endpoints;
  /** Folder of the files. */
  readonly data: string;
  /** Empty; takes `<table>.parquet`, a file or a folder of files, or `<table>.json`, a row each line. */
  readonly out: string;
  /** Before the dataset in the names of the topics of an input: `<prefix>title.basics`. */
  readonly prefix: (input: 'chunks' | 'rows') => string;
  /** Namespace for topics and groups of the peer's own. */
  readonly namespace: string;
  readonly say: Say;
}

export interface Peer {
  readonly name: string;
  readonly input: Input;
  /** How it was set up. */
  readonly setup: string;
  /** What it leaves out of what reelflow does. */
  readonly without: string;
  /** Fetches what it needs. @throws Absent when this machine cannot run it */
  prepare(workshop: Workshop): Promise<Program>;
  /** After the program has ended, and outside of the measured time: brings its results into `out`. */
  collect?(workshop: Workshop): Promise<void>;
}

/** The peer cannot run here, and why. */
export class Absent extends Error {}

const exec = promisify(execFile);
const cache = resolve(localFolder, 'peers');

/** The path of a file, relative to this one's folder. */
export const here = (path: string) => resolve(import.meta.dirname, path);

/** The queries of a text of SQL, each after a line with the name of its table. */
export function goldQueries(text: string): [table: string, query: string][] {
  return [...text.matchAll(/^-- (\w+)\n([^;]+);/gm)].map(([, table = '', query = '']) => [table, query]);
}

/** Java, for engines that run on it. */
export async function java(): Promise<string> {
  const found = await findJava(process.env);
  if ('why' in found) throw new Absent(found.why);
  return found.found;
}

/** The folder with the jars of a pom beside this file, fetched from Maven Central once. */
export async function jarsOf(pom: string, say: Say): Promise<string> {
  return fetchedOnce(here(pom), say, (folder) =>
    exec(
      'mvn',
      [
        ...[
          '-q',
          '-B',
          '-f',
          here(pom),
          'org.apache.maven.plugins:maven-dependency-plugin:2.10:copy-dependencies',
        ],
        ...['-DincludeScope=runtime', `-DoutputDirectory=${folder}`],
      ],
      { maxBuffer: 64e6 },
    ),
  );
}

/** The Python of a virtual environment with the packages of a requirements file beside this one. */
export async function pythonOf(requirements: string, say: Say): Promise<string> {
  const folder = await fetchedOnce(here(requirements), say, async (folder) => {
    await exec('python3', ['-m', 'venv', folder]);
    await exec(join(folder, 'bin', 'python'), ['-m', 'pip', 'install', '-q', '-r', here(requirements)], {
      maxBuffer: 64e6,
    });
  });
  return join(folder, 'bin', 'python');
}

/** A folder for each content of a file. It is complete or absent. */
async function fetchedOnce(
  file: string,
  say: Say,
  fetch: (folder: string) => Promise<unknown>,
): Promise<string> {
  const folder = join(cache, createHash('sha256').update(readFileSync(file)).digest('hex').slice(0, 16));
  const mark = `${folder}.whole`;
  if (existsSync(mark)) return folder;
  say(`fetching what ${file} names`);
  mkdirSync(cache, { recursive: true });
  // Not renamed at the end: a virtual environment knows where it lies.
  rmSync(folder, { recursive: true, force: true });
  try {
    await fetch(folder);
  } catch (thrown) {
    const { stderr = '', stdout = '' } = thrown as { stderr?: string; stdout?: string };
    const said = `${stdout}${stderr}`.split('\n').find((line) => /error/i.test(line)) ?? messageOf(thrown);
    throw new Absent(said.slice(0, 300));
  }
  mkdirSync(`${mark}.new`);
  renameSync(`${mark}.new`, mark);
  return folder;
}
