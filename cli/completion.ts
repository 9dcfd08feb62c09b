/**
 * `reelflow completion SHELL`: a completion script for bash, zsh or fish, generated from the definitions of the commands, so it
 * knows every command and option.
 */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables are those of the shells
import { Argument, Command, type Option } from 'commander';
import { print } from './output.ts';

const shells = { bash, zsh, fish } as const;

export function completionCommand(): Command {
  return new Command('completion')
    .description('print a completion script: `source <(reelflow completion bash)`')
    .addArgument(new Argument('<shell>', 'shell to complete in').choices(Object.keys(shells)))
    .action((shell: keyof typeof shells, _: object, command: Command) =>
      print(shells[shell](nodesOf(command.parent as Command))),
    );
}

/** The words that may follow one command. */
interface Node {
  /** Names of the commands so far, such as `gold show`; '' at the start. */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly about: string }[];
  readonly options: readonly {
    readonly long: string;
    readonly about: string;
    /** The kind or the choices of its value; undefined for an option without a value. */
    readonly value: readonly string[] | 'folder' | 'file' | 'text' | undefined;
  }[];
}

function nodesOf(command: Command, path = ''): Node[] {
  const commands = command.commands.map((one) => ({ name: one.name(), about: one.description() }));
  const shown = command.options.filter(({ hidden }) => !hidden);
  const options = shown.map((option) => ({
    long: option.long ?? '',
    about: option.description,
    value: valueKind(option),
  }));
  const help = { long: '--help', about: 'display help for command', value: undefined };
  return [
    { path, commands, options: [...options, help] },
    ...command.commands.flatMap((one) => nodesOf(one, `${path} ${one.name()}`.trim())),
  ];
}

function valueKind({ required, argChoices, flags }: Option): Node['options'][number]['value'] {
  if (!required) return undefined;
  if (argChoices !== undefined) return argChoices;
  if (/<dir>/.test(flags)) return 'folder';
  return /<(?:file|path)>/.test(flags) ? 'file' : 'text';
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
const wordsOf = ({ commands, options }: Node) =>
  [...commands.map(({ name }) => name), ...options.map(({ long }) => long)].join(' ');

/** The options of a node whose value is of a kind, as a pattern of `case`. */
function pattern({ options }: Node, kind: 'folder' | 'file' | 'text'): string {
  return options
    .filter(({ value }) => value === kind)
    .map(({ long }) => long)
    .join('|');
}

/** A `case` over the option before the cursor. @param does the shell's commands, by kind of value */
function valueCases(node: Node, does: Readonly<Record<'folder' | 'file' | 'text', string>>): string[] {
  const lines: string[] = [];
  for (const kind of ['folder', 'file', 'text'] as const) {
    const options = pattern(node, kind);
    if (options !== '') lines.push(`        ${options}) ${does[kind]}; return ;;`);
  }
  return lines;
}

/** The paths of all nodes below the start, each quoted. */
const quotedPaths = (nodes: readonly Node[]) =>
  nodes.flatMap(({ path }) => (path === '' ? [] : [quoted(path)]));

/** Finds the node of the commands before the cursor, without options. */
const pathLoop = (nodes: readonly Node[], words: string, cursor: string, first: number) => [
  // Not `path`: to zsh that is PATH.
  '  local place="" word i',
  `  for ((i = ${first}; i < ${cursor}; i++)); do`,
  `    word=\${${words}[i]}`,
  '    case "${place:+$place }$word" in',
  `      ${quotedPaths(nodes).join('|')}) place="\${place:+$place }$word" ;;`,
  '    esac',
  '  done',
];

function bash(nodes: readonly Node[]): string {
  const cases = nodes.flatMap((node) => [
    `    ${quoted(node.path)})`,
    '      case "$before" in',
    ...valueCases(node, {
      folder: 'COMPREPLY=($(compgen -d -- "$current"))',
      file: 'COMPREPLY=($(compgen -f -- "$current"))',
      text: 'COMPREPLY=()',
    }),
    ...node.options.flatMap(({ long, value }) =>
      Array.isArray(value)
        ? [`        ${long}) COMPREPLY=($(compgen -W ${quoted(value.join(' '))} -- "$current")); return ;;`]
        : [],
    ),
    '      esac',
    `      words=${quoted(wordsOf(node))} ;;`,
  ]);
  return [
    '# bash completion of reelflow',
    '_reelflow() {',
    '  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words=""',
    ...pathLoop(nodes, 'COMP_WORDS', 'COMP_CWORD', 1),
    '  case "$place" in',
    ...cases,
    '  esac',
    '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
    '  # Arguments that are not commands or options are files and folders.',
    '  [[ ${#COMPREPLY[@]} -gt 0 || $current == -* ]] || COMPREPLY=($(compgen -f -- "$current"))',
    '}',
    'complete -o filenames -F _reelflow reelflow',
    '# Where reelflow is not installed globally it is called as `npx reelflow`; another completion of npx stays.',
    '_reelflow_npx() {',
    '  [[ ${COMP_WORDS[1]} == reelflow && $COMP_CWORD -gt 1 ]] || return',
    '  COMP_WORDS=("${COMP_WORDS[@]:1}")',
    '  ((COMP_CWORD--))',
    '  _reelflow',
    '}',
    'complete -p npx > /dev/null 2>&1 || complete -o default -o filenames -F _reelflow_npx npx',
  ].join('\n');
}

function zsh(nodes: readonly Node[]): string {
  const described = (pairs: readonly (readonly [string, string])[]) =>
    pairs.map(([name, about]) => quoted(`${name}:${about.replaceAll(':', '\\:')}`)).join(' ');
  const cases = nodes.flatMap((node) => [
    `    ${quoted(node.path)})`,
    '      case "$before" in',
    ...valueCases(node, { folder: '_files -/', file: '_files', text: '_message value' }),
    ...node.options.flatMap(({ long, value }) =>
      Array.isArray(value) ? [`        ${long}) compadd -- ${value.map(quoted).join(' ')}; return ;;`] : [],
    ),
    '      esac',
    `      names=(${described(node.commands.map(({ name, about }) => [name, about]))})`,
    `      options=(${described(node.options.map(({ long, about }) => [long, about]))}) ;;`,
  ]);
  return [
    '#compdef reelflow',
    '_reelflow() {',
    '  local before=${words[CURRENT-1]}',
    '  local -a names options',
    ...pathLoop(nodes, 'words', 'CURRENT', 2),
    '  case "$place" in',
    ...cases,
    '  esac',
    '  if [[ ${words[CURRENT]} == -* ]]; then _describe option options; return; fi',
    '  (( ${#names} )) && _describe command names || _files',
    '}',
    '_reelflow_npx() {',
    '  if [[ ${words[2]} == reelflow && $CURRENT -gt 2 ]]; then shift words; (( CURRENT-- )); _reelflow; else _files; fi',
    '}',
    'if [[ $funcstack[1] == _reelflow ]]; then',
    '  _reelflow "$@"',
    'else',
    '  compdef _reelflow reelflow',
    '  (( ${+_comps[npx]} )) || compdef _reelflow_npx npx',
    'fi',
  ].join('\n');
}

function fish(nodes: readonly Node[]): string {
  const lines = nodes.flatMap((node) => {
    const at = `-n ${quoted(`__reelflow_at ${quoted(node.path).replaceAll("'", '"')}`)}`;
    return [
      ...node.commands.map(
        ({ name, about }) => `complete -c reelflow -f ${at} -a ${name} -d ${fishText(about)}`,
      ),
      ...node.options.map(({ long, about, value }) => {
        const takes = value === undefined ? '' : value === 'folder' || value === 'file' ? ' -r' : ' -x';
        const choices = Array.isArray(value) ? ` -a ${fishText(value.join(' '))}` : '';
        return `complete -c reelflow ${at} -l ${long.slice(2)}${takes}${choices} -d ${fishText(about)}`;
      }),
    ];
  });
  return [
    '# fish completion of reelflow',
    'function __reelflow_at --description "whether the commands before the cursor are these"',
    '  set -l path',
    '  for word in (commandline -opc)[2..-1]',
    '    set -l longer (string trim "$path $word")',
    `    contains -- "$longer" ${quotedPaths(nodes).join(' ')}; and set path "$longer"`,
    '  end',
    '  test "$path" = "$argv[1]"',
    'end',
    ...lines,
    'function __reelflow_of_npx --description "the same behind npx"',
    "  complete -C (string replace -r '^\\s*npx\\s+' '' -- (commandline -cp))",
    'end',
    `complete -c npx -n 'test (commandline -opc)[2] = reelflow 2> /dev/null' -f -a '(__reelflow_of_npx)'`,
  ].join('\n');
}

const fishText = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
