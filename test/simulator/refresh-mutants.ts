/**
 * The refresh simulator against the product with one clause of the protocol taken out at a time. Run as a program it
 * prints one JSON line a mutant: the schedules until it was noticed, or null.
 */
import { type Change, installMutants } from './mutation.ts';

interface RefreshMutant extends Change {
  readonly name: string;
}

const refresh = (name: string, from: string, to: string): RefreshMutant => ({
  name,
  file: 'producers/refresh/dataset-refresh.ts',
  from,
  to,
});
const entries = (name: string, from: string, to: string): RefreshMutant => ({
  name,
  file: 'producers/refresh/group-entries.ts',
  from,
  to,
});
const ownOffsets = (name: string, from: string, to: string): RefreshMutant => ({
  name,
  file: 'producers/refresh/own-offsets.ts',
  from,
  to,
});
const marks = (name: string, from: string, to: string): RefreshMutant => ({
  name,
  file: 'producers/refresh/log-marks.ts',
  from,
  to,
});

/** What the simulator does as `Appender` does it. */
const appender = (name: string, from: string, to: string): RefreshMutant => ({
  name,
  file: 'test/simulator/refresh-simulator.ts',
  from,
  to,
});

export const refreshMutants: readonly RefreshMutant[] = [
  refresh(
    'the log behind the marks is not read',
    'await log.scan(ranges, (touched) => this.#touch(touched));',
    '',
  ),
  entries(
    'touched groups are absent instead of unknown',
    'block.state[group % groupsOfBlock] = entryState.unknown;',
    'block.state[group % groupsOfBlock] = entryState.absent;',
  ),
  refresh(
    'the own range is not read again',
    'await log.scan(\n      ranges,',
    'await (async (..._: unknown[]) => {})(\n      ranges,',
  ),
  refresh('a group that others wrote to stays known', '        this.#touch({ ...touched, ids });', ''),
  refresh(
    'blocks need not match the directory',
    'value !== undefined && blockHash(value) === hash',
    'value !== undefined',
  ),
  refresh('a missing block has no groups', 'block.state.fill(entryState.unknown);', ''),
  marks(
    'a trimmed log is taken for whole',
    `(start === mark.start || start === mark.base) && mark.offset <= end;
    return isPossible ? [{ mark, partition, start, offset: mark.offset }] : [];
  });
  const held: (IndexMark | undefined)[] = bounds.map(() => undefined);
  for (const { mark, partition, hash, previous } of await withLastHashes(log, possible)) {
    if (hash !== mark.hash || (mark.previous !== undefined && previous !== mark.previous)) continue;`,
    `mark.offset <= end;
    return isPossible ? [{ mark, partition, start, offset: mark.offset }] : [];
  });
  const held: (IndexMark | undefined)[] = bounds.map(() => undefined);
  for (const { mark, partition, hash } of await withLastHashes(log, possible)) {
    if (hash !== mark.hash) continue;`,
  ),
  refresh(
    'a base holds only what changed',
    'await dump.send(emptied, this.#isBase);',
    'await dump.send(emptied, false);',
  ),
  refresh(
    'a base ends although others wrote before it what was not sent again',
    'if (this.#replaced.size > 0 || !this.#isSettled) {',
    'if (this.#replaced.size > 0) {',
  ),
  appender(
    'a base ends although the broker has lost a message before the end',
    "mark === 'end' && (isLost || renewals > 0)",
    "mark === 'end' && renewals > 0 && !isLost",
  ),
  appender(
    'a base ends under another producer identity than it began with',
    "mark === 'end' && (isLost || renewals > 0)",
    "mark === 'end' && isLost",
  ),
  refresh(
    'a base is due for an unchanged dump',
    'this.#isBaseDue && (findings.changed.blocks.length > 0 || plan.emptied.length > 0)',
    'this.#isBaseDue',
  ),
  refresh(
    'a base begins behind what it repeats',
    '    await dump.send(emptied, this.#isBase);\n    this.#records',
    "    await dump.send(emptied, this.#isBase);\n    if (this.#isBase) this.#bases = [...(await dump.mark('begin'))];\n    this.#records",
  ),
  marks(
    'the message before a mark may be another one',
    'if (hash !== mark.hash || (mark.previous !== undefined && previous !== mark.previous)) continue;',
    '',
  ),
  marks(
    'a base or a mark is trusted although one message of a recreated topic is an old one',
    '(mark.previous !== undefined && previous !== mark.previous)',
    'false',
  ),
  refresh(
    'entries of a log that is gone stay known',
    '        this.#entries.makeAllUnknown(\n',
    '        new GroupEntries().makeAllUnknown(\n',
  ),
  refresh(
    'a log that is replaced during the run is not noticed',
    '        this.#replaced.add(partition);\n      }\n    }\n    const foreign',
    '      }\n    }\n    const foreign',
  ),
  refresh(
    'own messages may be missing',
    'if (own.acknowledged(partition) > (this.#ownSeen[partition] ?? 0)) this.#replaced.add(partition);',
    '',
  ),
  refresh(
    'what consumers refused stays known',
    'await this.#distrustRefused(offsets.filter(({ offset }) => offset >= start && offset < mark.offset));',
    '',
  ),
  ownOffsets('the first own message may be another one', 'new Set([start, next - 1])', 'new Set([next - 1])'),
  ownOffsets('the last own message may be gone', 'new Set([start, next - 1])', 'new Set([start])'),
  ownOffsets(
    'a late copy passes for the message that the broker has lost at its offset',
    'chunks.get(offset) === chunk',
    'chunks.has(offset) === true',
  ),
  ownOffsets(
    'messages of two producer identities count as gapless',
    ' && this.#appender.renewals(this.#topic) === 0',
    '',
  ),
  refresh('dead letters count again in every run', 'this.#letters = refusals.end;', ''),
  refresh(
    'emptied groups stay in the index',
    'for (const group of emptied) this.#entries.remove(group);',
    '',
  ),
];

const dependents = new Set([
  'producers/refresh/dataset-refresh.ts',
  'producers/refresh/group-entries.ts',
  'producers/refresh/log-marks.ts',
  'producers/refresh/own-offsets.ts',
  'producers/refresh/plan.ts',
]);

if (import.meta.main) {
  installMutants(refreshMutants, dependents);
  const [seed = 1, schedulesMax = 20_000] = process.argv.slice(2).map(Number);
  for (const [number, { name }] of refreshMutants.entries()) {
    const url = `${new URL('./refresh-simulator.ts', import.meta.url).href}?mutant=${number}`;
    const { simulateRefresh } = (await import(url)) as typeof import('./refresh-simulator.ts');
    const failure = await simulateRefresh(seed, schedulesMax, name.startsWith('a base'));
    const schedules = failure === undefined ? null : failure.seed - seed + 1;
    process.stdout.write(`${JSON.stringify({ name, schedules, reason: failure?.reason ?? null })}\n`);
  }
}
