/** `skep completion SHELL`: scripts for the shells, written from the table of commands. */
import { CommandError } from "./errors.ts";
import { command, exactly, type Command, type Completes, type Entry } from "./grammar/command.ts";

/** One command or group as the scripts need it. Paths begin with "skep". */
interface Known {
  readonly path: string;
  readonly subcommands: readonly { readonly name: string; readonly summary: string }[];
  readonly flags: readonly KnownFlag[];
  readonly completes: Completes | undefined;
}

interface KnownFlag {
  readonly name: string;
  readonly short: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
  readonly help: string;
}

/** What prints the names that can stand as arguments; files are the shell's own affair. */
const namesOf: Readonly<Record<Exclude<Completes, "files">, string>> = {
  services: "skep service ls --format '{{.Name}}'",
  nodes: "skep node ls --format '{{.Hostname}}'",
  stacks: "skep stack ls --format '{{.Name}}'",
  secrets: "skep secret ls --format '{{.Name}}'",
  configs: "skep config ls --format '{{.Name}}'",
  containers: "skep container ls -a --format '{{.Names}}'",
  images: "skep image ls --format '{{.Repository}}:{{.Tag}}'",
  volumes: "skep volume ls -q",
  networks: "skep network ls --format '{{.Name}}'",
  contexts: "skep context ls -q",
};

const writers: Readonly<Record<string, (known: readonly Known[]) => string>> = { bash, zsh, fish };

/** @param groups with their summaries */
export const completionOf = (entries: readonly Entry[], groups: Readonly<Record<string, string>>): Command =>
  command({
    usage: "(bash|zsh|fish)",
    args: exactly(1),
    flags: {},
    async run(session, _flags, [shell = ""]) {
      const write = Object.hasOwn(writers, shell) ? writers[shell] : undefined;
      if (write === undefined)
        throw new CommandError(`unknown shell ${JSON.stringify(shell)}: bash, zsh and fish are known`);
      session.stdout.write(write(await knownCommands(entries, groups)));
    },
  });

async function knownCommands(entries: readonly Entry[], groups: Readonly<Record<string, string>>): Promise<Known[]> {
  const commands: Known[] = [];
  for (const entry of entries) {
    const { flags, completes } = await entry.load();
    for (const path of [entry.path, ...entry.aliases]) {
      commands.push({
        path: `skep ${path}`,
        subcommands: [],
        flags: [
          ...Object.entries(flags).map(([name, flag]) => ({
            name,
            short: flag.short,
            takesValue: flag.bare === undefined,
            choices: flag.choices,
            help: flag.help,
          })),
          { name: "help", short: "", takesValue: false, choices: [], help: "Show the help" },
        ],
        completes,
      });
    }
  }
  const named = entries.flatMap(({ path, aliases, summary }) => [path, ...aliases].map((name) => ({ name, summary })));
  const groupNames = Object.entries(groups).map(([name, summary]) => ({ name, summary }));
  const single = named.filter(({ name }) => !name.includes(" "));
  const members = (group: string): { name: string; summary: string }[] =>
    named
      .filter(({ name }) => name.startsWith(`${group} `))
      .map(({ name, summary }) => ({ name: name.slice(group.length + 1), summary }));
  return [
    { path: "skep", subcommands: [...groupNames, ...single], flags: [], completes: undefined },
    ...groupNames.map(({ name }) => ({
      path: `skep ${name}`,
      subcommands: members(name),
      flags: [],
      completes: undefined,
    })),
    ...commands,
  ];
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** The tables that bash and zsh share: both have associative arrays, and write them alike. */
function tables(known: readonly Known[], declare: string): string {
  const table = (name: string, rows: readonly (readonly [key: string, value: string])[]): string =>
    [`${declare} ${name}=(`, ...rows.map(([key, value]) => `  [${quoted(key)}]=${quoted(value)}`), ")"].join("\n");
  const spelled = ({ name, short }: KnownFlag): string[] => [`--${name}`, ...(short === "" ? [] : [`-${short}`])];
  return [
    table(
      "_skep_subcommands",
      known
        .filter(({ subcommands }) => subcommands.length > 0)
        .map(({ path, subcommands }) => [path, subcommands.map(({ name }) => name).join(" ")]),
    ),
    table(
      "_skep_flags",
      known
        .filter(({ flags }) => flags.length > 0)
        .map(({ path, flags }) => [path, flags.map(({ name }) => `--${name}`).join(" ")]),
    ),
    // What stands after such a flag is its value. An empty list of choices: anything.
    table(
      "_skep_values",
      known.flatMap(({ path, flags }) =>
        flags
          .filter(({ takesValue }) => takesValue)
          .flatMap((flag) => spelled(flag).map((word) => [`${path} ${word}`, flag.choices.join(" ")] as const)),
      ),
    ),
    table(
      "_skep_arguments",
      known.flatMap(({ path, completes }) =>
        completes === undefined ? [] : [[path, completes === "files" ? "files" : namesOf[completes]] as const],
      ),
    ),
  ].join("\n");
}

function bash(known: readonly Known[]): string {
  return `# bash completion of skep. Load it with: source <(skep completion bash)
${tables(known, "declare -A")}

_skep() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD - 1]}"
  local path="skep" word at
  for ((at = 1; at < COMP_CWORD; at++)); do
    word="\${COMP_WORDS[at]}"
    [[ "$word" == -* ]] && continue
    [[ " \${_skep_subcommands[$path]:-} " == *" $word "* ]] || break
    path="$path $word"
  done
  COMPREPLY=()
  if [[ -n "\${_skep_values[$path $previous]+set}" ]]; then
    COMPREPLY=($(compgen -W "\${_skep_values[$path $previous]}" -- "$current"))
  elif [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "\${_skep_flags[$path]:-}" -- "$current"))
  elif [[ -n "\${_skep_subcommands[$path]:-}" ]]; then
    COMPREPLY=($(compgen -W "\${_skep_subcommands[$path]}" -- "$current"))
  elif [[ "\${_skep_arguments[$path]:-}" == files ]]; then
    COMPREPLY=($(compgen -f -- "$current"))
  elif [[ -n "\${_skep_arguments[$path]:-}" ]]; then
    COMPREPLY=($(compgen -W "$(eval "\${_skep_arguments[$path]}" 2>/dev/null)" -- "$current"))
  fi
}
complete -F _skep skep
`;
}

function zsh(known: readonly Known[]): string {
  return `#compdef skep
# zsh completion of skep. Load it with: source <(skep completion zsh)
${tables(known, "typeset -gA")}

_skep() {
  local current="\${words[CURRENT]}" previous="\${words[CURRENT - 1]}"
  local path_of="skep" word
  for word in "\${(@)words[2,CURRENT - 1]}"; do
    [[ "$word" == -* ]] && continue
    [[ " \${_skep_subcommands[$path_of]} " == *" $word "* ]] || break
    path_of="$path_of $word"
  done
  if (( \${+_skep_values[$path_of $previous]} )); then
    compadd -- \${=_skep_values[$path_of $previous]}
  elif [[ "$current" == -* ]]; then
    compadd -- \${=_skep_flags[$path_of]}
  elif [[ -n "\${_skep_subcommands[$path_of]}" ]]; then
    compadd -- \${=_skep_subcommands[$path_of]}
  elif [[ "\${_skep_arguments[$path_of]}" == files ]]; then
    _files
  elif [[ -n "\${_skep_arguments[$path_of]}" ]]; then
    compadd -- \${(f)"$(eval "\${_skep_arguments[$path_of]}" 2>/dev/null)"}
  fi
}
compdef _skep skep
`;
}

function fish(known: readonly Known[]): string {
  const lines = known.flatMap(({ path, subcommands, flags, completes }) => {
    const at = `-n ${quoted(`__skep_at '${path}'`)}`;
    return [
      ...subcommands.map(({ name, summary }) => `complete -c skep -f ${at} -a ${quoted(name)} -d ${quoted(summary)}`),
      ...flags.map(({ name, short, takesValue, choices, help }) =>
        [
          `complete -c skep ${at} -l ${name}`,
          ...(short === "" ? [] : [`-s ${short}`]),
          ...(takesValue ? ["-x"] : []),
          ...(choices.length === 0 ? [] : [`-a ${quoted(choices.join(" "))}`]),
          `-d ${quoted(help)}`,
        ].join(" "),
      ),
      ...(completes === undefined || completes === "files"
        ? []
        : [`complete -c skep -f ${at} -a ${quoted(`(${namesOf[completes]} 2>/dev/null)`)}`]),
    ];
  });
  const paths = known.filter(({ subcommands }) => subcommands.length > 0);
  return `# fish completion of skep. Load it with: skep completion fish | source
function __skep_at
    set -l path skep
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; and continue
        switch "$path $word"
${paths.map(({ path, subcommands }) => `            case ${subcommands.map(({ name }) => quoted(`${path} ${name}`)).join(" ")}\n                set path "$path $word"`).join("\n")}
            case '*'
                break
        end
    end
    test "$path" = "$argv[1]"
end
${lines.join("\n")}
`;
}
