/**
 * Finds Java and fetches jars from Maven Central by a pinned pom, once per content of that pom. The folder of a pom is
 * complete or absent.
 */
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { run } from '../../runtime/child-process.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { makeFolder } from '../../runtime/files.ts';
import { packageFile } from '../../runtime/package.ts';
import { lastLines, type Probe } from './probe.ts';

/** Jars that one pom lays out under the folder that its property `services.out` names. */
export interface JarSet {
  /** The pom, relative to the package. */
  readonly pom: string;
  /** The programs in the jars, for messages. */
  readonly programs: string;
  readonly megabytes: number;
}

/** `kafka/` is the broker's class path, `registry/` the registry's application. */
const serviceJars: JarSet = {
  pom: 'kafka/local/pom.xml',
  programs: 'broker and registry',
  megabytes: 165,
};

/** The oldest Java that the broker runs on. */
const javaVersionMin = 17;

/** The `java` command, from JAVA_HOME or PATH, if it is new enough. */
export async function findJava(env: NodeJS.ProcessEnv): Promise<Probe<string>> {
  const java = env.JAVA_HOME ? join(env.JAVA_HOME, 'bin', 'java') : 'java';
  const { code, output, missing } = await run(java, ['-version'], { env, timeoutMs: 20_000 });
  if (missing) return { why: env.JAVA_HOME ? `there is no ${java}` : 'there is no java on the PATH' };
  const version = /version "(?:1\.)?(\d+)/.exec(output)?.[1];
  if (code !== 0 || version === undefined) return { why: `java -version failed: ${lastLines(output, 1)}` };
  if (Number(version) < javaVersionMin) return { why: `Java is ${version}, ${javaVersionMin} is needed` };
  return { found: java };
}

/**
 * Whether the jars can run here: requires Java, and Maven unless the jars are cached.
 * @returns the `java` command
 */
export async function findJvm(
  env: NodeJS.ProcessEnv,
  jars: string,
  set = serviceJars,
): Promise<Probe<string>> {
  const java = await findJava(env);
  if ('why' in java || existsSync(jarFolder(jars, set))) return java;
  const maven = await run('mvn', ['-version'], { env, timeoutMs: 20_000 });
  if (maven.missing) return { why: 'there is Java but no mvn on the PATH to fetch the jars' };
  if (maven.code !== 0) return { why: `mvn -version failed: ${lastLines(maven.output, 1)}` };
  return java;
}

/** The folder of the jars of exactly this pom; another pom has another folder. */
function jarFolder(jars: string, { pom }: JarSet): string {
  const content = readFileSync(packageFile(pom));
  return resolve(jars, createHash('sha256').update(content).digest('hex').slice(0, 16));
}

/**
 * Lays out the jars of a set, once.
 * @returns the folder
 * @throws ReelflowError services, with Maven's errors
 */
export async function resolveJars(options: {
  jars: string;
  env: NodeJS.ProcessEnv;
  set?: JarSet;
  onProgress?: (line: string) => void;
}): Promise<string> {
  const { jars, env, set = serviceJars, onProgress } = options;
  const folder = jarFolder(jars, set);
  if (existsSync(folder)) return folder;
  onProgress?.(`fetching the jars of ${set.programs} by Maven, up to ${set.megabytes} MB`);
  makeFolder(jars);
  const partial = `${folder}.${randomUUID()}`;
  const pom = packageFile(set.pom);
  try {
    const result = await run(
      'mvn',
      ['-f', pom, '-Dstyle.color=never', `-Dservices.out=${partial}`, 'generate-resources'],
      { env, onText: mavenProgress(set.programs, onProgress) },
    );
    if (result.code !== 0) {
      const errors = result.output.split(/[\r\n]+/).filter((line) => line.startsWith('[ERROR]'));
      throw new ReelflowError('services', `Maven could not fetch the jars of ${set.programs}`, {
        detail: errors.slice(0, 2).join('\n') || lastLines(result.output, 3),
        hint: `Check the network and Maven's settings, then try: mvn -f ${pom} dependency:resolve`,
      });
    }
    try {
      renameSync(partial, folder);
    } catch (error) {
      // Another process has fetched the same jars meanwhile.
      if (!existsSync(folder)) throw error;
    }
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return folder;
}

/** Turns Maven's transfer lines into a line of progress each second. */
function mavenProgress(programs: string, onProgress?: (line: string) => void): (text: string) => void {
  const unitBytes: Record<string, number> = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
  let doneBytes = 0;
  let shownAtMs = performance.now();
  return (text) => {
    for (const [, size, unit] of text.matchAll(/Downloaded from .*? \(([\d.]+) (k?M?G?B)/g)) {
      doneBytes += Number(size) * (unitBytes[unit as string] ?? 0);
    }
    if (performance.now() - shownAtMs < 1000) return;
    let underWay = 0;
    const progress = text.slice(text.lastIndexOf('Progress ('));
    for (const [, size, unit] of progress.matchAll(/([\d.]+)(?:\/[\d.]+)? (k?M?G?B)/g)) {
      underWay += Number(size) * (unitBytes[unit as string] ?? 0);
    }
    if (doneBytes + underWay < 1e6) return;
    shownAtMs = performance.now();
    onProgress?.(`fetching the jars of ${programs}, ${Math.round((doneBytes + underWay) / 1e6)} MB so far`);
  };
}
