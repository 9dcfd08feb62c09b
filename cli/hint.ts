/** Hints come from modules that several commands share, so one may name an option that the command at hand lacks. */
import type { Command } from 'commander';

/**
 * Adds to each option that `command` lacks which commands have it. Command lines in backticks stay as they are: they name their
 * command, or are of another program.
 * @param program knows all commands
 */
export function qualifiedHint(hint: string, program: Command, command: Command): string {
  const noted = new Set<string>();
  return hint
    .split(/(`[^`]*`|npx reelflow [a-z -]*)/)
    .map((part, at) =>
      at % 2 === 1
        ? part
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

const hasOption = (command: Command, long: string): boolean =>
  long === '--help' || command.options.some((option) => option.long === long);

function commandsWith(command: Command, long: string, path = ''): string[] {
  const own = path !== '' && hasOption(command, long) ? [path] : [];
  return [
    ...own,
    ...command.commands.flatMap((one) => commandsWith(one, long, `${path} ${one.name()}`.trim())),
  ];
}
