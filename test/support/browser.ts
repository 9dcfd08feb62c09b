/** The page in a real Chromium: where one is found, and the command that serves the page. */
import { execFileSync } from 'node:child_process';
import { type Browser, chromium } from 'playwright-core';
import { expect } from 'vitest';
import { freePorts } from '../../kafka/local/probe.ts';
import { type Place, type Running, until } from './harness.ts';

/** Debian's and others' names; Chromium's own variable first. */
const executablePath = [
  process.env.CHROMIUM_PATH ?? '',
  'chromium',
  'chromium-browser',
  'google-chrome',
].flatMap((name) => {
  try {
    return name === '' ? [] : [execFileSync('which', [name], { encoding: 'utf8' }).trim()];
  } catch {
    return [];
  }
})[0];

export const hasBrowser = executablePath !== undefined;

/** For the name of what is skipped without a browser. */
export const whyNoBrowser = hasBrowser ? '' : ' (skipped: there is no Chromium on the PATH)';

export const openBrowser = (): Promise<Browser> =>
  chromium.launch({ executablePath: executablePath as string, args: ['--no-sandbox'] });

/** Serves the page of a place's pipeline. */
export async function startMonitor(
  place: Place,
  ...more: string[]
): Promise<{ url: string; running: Running }> {
  const common = ['--namespace', place.namespace, '--gold', place.gold, '--state', place.state];
  const [port] = await freePorts(1);
  const running = place.start(['monitor', ...common, '--listen', String(port), '--json', ...more]);
  await until('the monitor listens', () => running.isDone || running.stdout.includes('\n'), 120_000);
  expect(running.stdout, 'the address').toContain('http');
  return { url: (JSON.parse(running.stdout) as { url: string }).url, running };
}
