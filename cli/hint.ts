/**
 * Completes hints of modules that several commands share. A hint may name an option that the running command lacks, or another
 * command, which needs the options that name the same pipeline.
 */
import { Command } from 'commander';
import { shellWord } from '../runtime/terminal.ts';
import { commonOptions } from './options.ts';

const placeOptions = ['gold', 'state', 'namespace'] as const;
/** The values of the options that name the pipeline of a command. */
type PlaceFlags = { readonly [name in (typeof placeOptions)[number]]?: string };

/** The options that `command` needs to work on this pipeline: those whose values differ from its defaults, a blank before each. */
export function placesText(flags: PlaceFlags, command = commonOptions(new Command())): string {
  return placeOptions
    .flatMap((name) => {
      const option = command.options.find(({ long }) => long === `--${name}`);
      const usual = process.env[option?.envVar ?? ''] ?? option?.defaultValue;
      const value = flags[name];
      return option === undefined || value === undefined || value === usual
        ? []
        : [` --${name} ${shellWord(value)}`];
    })
    .join('');
}

/**
 * Names the commands that have an option, where `command` lacks it, and adds the places of `command` to each command line of
 * reelflow in backticks. Other text in backticks stays the same.
 * @param program contains all commands
 */
export function qualifiedHint(hint: string, program: Command, command: Command): string {
  const noted = new Set<string>();
  return hint
    .split(/(`[^`]*`|npx reelflow [a-z -]*)/)
    .map((part, at) =>
      at % 2 === 1
        ? inSamePlaces(part, program, command.opts())
        : part.replaceAll(/--[a-z][a-z-]*[a-z](?: [A-Z]+)?/g, (shown) => {
            const [long = ''] = shown.split(' ');
            if (noted.has(long) || hasOption(command, long)) return shown;
            noted.add(long);
            const owners = commandsWith(program, long);
            return owners.length === 0
              ? shown
              : `${shown} (of \`reelflow ${owners.slice(0, 3).join('`, `')}\`)`;
          }),
    )
    .join('');
}

/** @param part a command line, with its backticks */
function inSamePlaces(part: string, program: Command, flags: PlaceFlags): string {
  const [, line, names = ''] = /^`(reelflow ([a-z ]+)[^`]*)`$/.exec(part) ?? [];
  if (line === undefined) return part;
  let named = program;
  for (const name of names.trim().split(' ')) {
    named = named.commands.find((one) => one.name() === name) ?? named;
  }
  const missing = Object.entries(flags).filter(([name]) => !line.includes(` --${name}`));
  return `\`${line}${placesText(Object.fromEntries(missing), named)}\``;
}

const hasOption = (command: Command, long: string): boolean =>
  long === '--help' || command.options.some((option) => option.long === long);

function commandsWith(command: Command, long: string, path = ''): string[] {
  const own = path !== '' && hasOption(command, long) ? [path] : [];
  return [
    ...own,
    ...command.commands.flatMap((one) => commandsWith(one, long, `${path} ${one.name()}`.trim())),
  ];
}
