/**
 * The import rules: which folder may know which. Run as a script it checks the whole project and names every import
 * that breaks a rule, every cycle of modules that import each other's values (types may refer back), and every export that
 * no other file imports.
 */
import { globSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A room is a folder, or a file beside package.json. */
interface Rule {
  /** Rooms that it may import, besides itself; also single folders and files of a room. */
  readonly rooms: readonly string[];
  /** Packages that it must not import. */
  readonly not?: RegExp;
}

const stage: Rule = { rooms: ['topics', 'tables', 'kafka', 'database', 'runtime'] };
const everything: Rule = { rooms: [...stage.rooms, 'producers', 'processors', 'sinks', 'monitor', 'flink'] };

const rules: Readonly<Record<string, Rule>> = {
  runtime: { rooms: [] },
  kafka: { rooms: ['runtime'], not: /^@duckdb\/|^avsc$|schema-registry$/ },
  topics: {
    rooms: ['runtime/errors.ts', 'runtime/registry-http.ts', 'runtime/registry-security.ts'],
    not: /^kafkajs(\/|$)|^@duckdb\//,
  },
  database: { rooms: ['runtime', 'topics'], not: /^kafkajs(\/|$)/ },
  tables: { rooms: ['topics', 'database', 'runtime'], not: /^kafkajs(\/|$)/ },
  producers: stage,
  processors: stage,
  sinks: stage,
  monitor: stage,
  flink: stage,
  cli: everything,
  bench: { rooms: [...everything.rooms, 'cli'] },
  deploy: { rooms: [] },
  test: { rooms: [...everything.rooms, 'cli', 'bench', 'deploy'] },
};

const importPattern =
  /^\s*(?:import|export)\b[^'";]*?\bfrom\s*'([^']+)'|^\s*import\s*'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm;

const namedImport = /^\s*(?:import|export) (?:type )?\{([^}]*)\} from '(\.[^']+)'/gm;
const moduleImport = /\* as \w+ from '(\.[^']+)'|\bimport\(\s*'(\.[^']+)'\s*\)/g;

function importsIn(code: string): string[] {
  return [...code.matchAll(importPattern)].map(([, from, bare, dynamic]) => from ?? bare ?? dynamic ?? '');
}

const roomOf = (path: string) =>
  path.includes('/') ? path.slice(0, path.indexOf('/')) : path.replace(/\.ts$/, '');
const isRelative = (specifier: string) => specifier.startsWith('.');
const target = (path: string, specifier: string) => normalize(join(dirname(path), specifier));

/**
 * @param sources text by path relative to the project's folder, with `/`
 * @returns one line per broken rule
 */
export function brokenImportRules(sources: ReadonlyMap<string, string>): string[] {
  const broken: string[] = [];
  const values = new Map<string, string[]>();
  for (const [path, code] of sources) {
    const rule = rules[roomOf(path)];
    if (rule === undefined) {
      broken.push(`${path}: there is no import rule for ${roomOf(path)}`);
      continue;
    }
    for (const specifier of new Set(importsIn(code))) {
      if (!isRelative(specifier)) {
        if (rule.not?.test(specifier) === true) broken.push(`${path} must not import ${specifier}`);
        continue;
      }
      const to = target(path, specifier);
      const room = roomOf(to);
      const isOpen = rule.rooms.some((open) => room === open || to === open || to.startsWith(`${open}/`));
      if (room !== roomOf(path) && !isOpen) {
        broken.push(`${path} must not import ${target(path, specifier)}`);
      }
    }
    const runs = path.endsWith('.d.ts') ? '' : stripTypeScriptTypes(code);
    values.set(
      path,
      importsIn(runs).flatMap((specifier) => (isRelative(specifier) ? [target(path, specifier)] : [])),
    );
  }
  return [...broken, ...cycles(values)];
}

function cycles(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path);
    if (start >= 0) found.push(`cycle: ${[...trail.slice(start), path].join(' → ')}`);
    if (start >= 0 || done.has(path)) return;
    for (const next of imports.get(path) ?? []) visit(next, [...trail, path]);
    done.add(path);
  };
  for (const path of imports.keys()) visit(path, []);
  return found;
}

/** What a source takes from others, by their path: the names, or every word of it where it takes a whole module. */
function importedNames(path: string, code: string): Map<string, Set<string>> {
  const names = new Map<string, Set<string>>();
  const add = (specifier: string, some: readonly string[]) => {
    const from = target(path, specifier);
    names.set(from, new Set([...(names.get(from) ?? []), ...some]));
  };
  for (const [, clause = '', specifier = ''] of code.matchAll(namedImport)) {
    add(
      specifier,
      clause.split(',').map((name) => name.replace(/^\s*(?:type )?|\s.*$/g, '')),
    );
  }
  for (const [, whole, dynamic] of code.matchAll(moduleImport)) {
    add((whole ?? dynamic) as string, code.match(/\w+/g) ?? []);
  }
  return names;
}

/** Sources whose exports are for a file that is no TypeScript: the starter of the command line, and WebAssembly's host. */
const takenElsewhere = /^(?:cli\/main\.ts|producers\/kernels\/)/;

/** Exports of sources that no other file imports. @returns one line for each */
export function unusedExports(sources: ReadonlyMap<string, string>): string[] {
  const imported = [...sources].map(([path, code]) => importedNames(path, code));
  const exported = /^export (?:async |abstract )*(?:const|let|function\*?|class|interface|type) (\w+)/gm;
  return [...sources].flatMap(([path, code]) => {
    if (roomOf(path) === 'test' || takenElsewhere.test(path)) return [];
    const names = [...code.matchAll(exported)].map(([, name]) => name as string);
    const unused = names.filter((name) => !imported.some((by) => by.get(path)?.has(name)));
    return unused.map((name) => `${path} exports ${name}, which no other file imports`);
  });
}

/** The project's own TypeScript files. */
export function projectSources(): Map<string, string> {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const paths = globSync('**/*.ts', {
    cwd: root,
    exclude: ['node_modules', 'dist', '.reelflow', '*.config.ts'],
  });
  return new Map(paths.sort().map((path) => [path, readFileSync(join(root, path), 'utf8')]));
}

if (import.meta.main) {
  const sources = projectSources();
  const broken = [...brokenImportRules(sources), ...unusedExports(sources)];
  for (const line of broken) process.stderr.write(`${line}\n`);
  process.stdout.write(`import rules: ${sources.size} files, ${broken.length} broken\n`);
  process.exitCode = broken.length === 0 ? 0 : 1;
}
