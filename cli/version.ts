import { existsSync, readFileSync } from 'node:fs';

/** The version in package.json, which lies beside the sources and one folder above the built files. */
export function packageVersion(): string {
  const [path] = ['../package.json', '../../package.json']
    .map((relative) => new URL(relative, import.meta.url))
    .filter((url) => existsSync(url));
  if (path === undefined) return 'unknown';
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version;
}
