/** Runs broker and registry as containers of docker-compose.yml, where a Docker engine answers. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../runtime/child-process.ts';
import { packageFile } from '../../runtime/package.ts';
import { lastLines, type Probe } from './probe.ts';

export interface Ports {
  readonly broker: number;
  readonly registry: number;
}

/** Whether a Docker engine answers and its client has compose. @returns the engine's version */
export async function findDocker(env: NodeJS.ProcessEnv): Promise<Probe<string>> {
  const engine = await run('docker', ['version', '--format', '{{.Server.Version}}'], {
    env,
    timeoutMs: 10_000,
  });
  if (engine.missing) return { why: 'there is no docker on the PATH' };
  if (engine.code !== 0) return { why: `no engine answers (${lastLines(engine.output, 1).trim()})` };
  const compose = await run('docker', ['compose', 'version', '--short'], { env, timeoutMs: 10_000 });
  if (compose.code !== 0) return { why: 'the docker client has no compose plugin' };
  return { found: engine.output.trim() };
}

/** The ports of the containers that `composeUp` started in this folder; undefined after `composeDown`. */
export function composeRecord(folder: string): Ports | undefined {
  try {
    return JSON.parse(readFileSync(recordFile(folder), 'utf8')) as Ports;
  } catch {
    return undefined;
  }
}

/** Starts broker and registry, or finds them running, and waits until both are healthy. @returns an error's text */
export async function composeUp(
  env: NodeJS.ProcessEnv,
  folder: string,
  ports: Ports,
  onProgress?: (line: string) => void,
): Promise<string | undefined> {
  onProgress?.(
    'starting broker and registry with docker compose, which fetches their images first if needed',
  );
  const args = [...compose, 'up', '--detach', '--wait', 'broker', 'registry'];
  const result = await run('docker', args, { env: withPorts(env, ports), onText: linesTo(onProgress) });
  if (result.code !== 0) return lastLines(result.output, 5);
  writeFileSync(recordFile(folder), `${JSON.stringify(ports)}\n`);
  return undefined;
}

/** Stops and removes the containers that `composeUp` started; volumes stay. @returns an error's text */
export async function composeDown(
  env: NodeJS.ProcessEnv,
  folder: string,
  ports: Ports,
): Promise<string | undefined> {
  const result = await run('docker', [...compose, 'down'], { env: withPorts(env, ports) });
  if (result.code !== 0) return lastLines(result.output, 5);
  rmSync(recordFile(folder), { force: true });
  return undefined;
}

const compose = ['compose', '--file', packageFile('docker-compose.yml'), '--progress', 'plain'];

function recordFile(folder: string): string {
  return join(folder, 'docker.json');
}

function withPorts(env: NodeJS.ProcessEnv, ports: Ports): NodeJS.ProcessEnv {
  return {
    ...env,
    REELFLOW_BROKER_PORT: String(ports.broker),
    REELFLOW_REGISTRY_PORT: String(ports.registry),
  };
}

function linesTo(onProgress?: (line: string) => void): (text: string) => void {
  return (text) => {
    for (const line of text.split('\n')) if (line.trim() !== '') onProgress?.(line.trim());
  };
}
