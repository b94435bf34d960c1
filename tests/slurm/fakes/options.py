"""Reads the command lines of Slurm's programs, and refuses with their words what they do not know."""


class Refusal(Exception):
    """What the program says on its standard error before it ends with `code`."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


# letter, name, and whether a value follows: "=" must, "?" may (only as --name=value), "" never
SBATCH = """\
A account=  a array=  b begin=  D chdir=  - comment=  C constraint=  - cpus-per-gpu=  c cpus-per-task=
- deadline=  d dependency=  m distribution=  e error=  x exclude=  - exclusive?  - export=  - export-file=
- get-user-env?  - gpu-bind=  G gpus=  - gpus-per-node=  - gpus-per-task=  - gres=  - gres-flags=  - hint=
H hold  i input=  J job-name=  - kill-on-invalid-dep=  L licenses=  - mail-type=  - mail-user=  - mem=
- mem-bind=  - mem-per-cpu=  - mem-per-gpu=  - mincpus=  M clusters=  - network=  - nice?  k no-kill?
- no-requeue  F nodefile=  w nodelist=  N nodes=  n ntasks=  - ntasks-per-core=  - ntasks-per-gpu=
- ntasks-per-node=  - ntasks-per-socket=  - open-mode=  o output=  O overcommit  s oversubscribe  - parsable
p partition=  - prefer=  - priority=  - profile=  - propagate?  q qos=  Q quiet  - reboot  - requeue
- reservation=  - signal=  - spread-job  - switches=  - test-only  - thread-spec=  - threads-per-core=  t time=
- time-min=  - tmp=  v verbose  - wait-all-nodes=  - wckey=  - wrap="""
SQUEUE = """\
a all  h noheader  r array  j jobs=  n name=  o format=  t states=  u user=  - me  p partition=
S sort=  M clusters="""
SACCT = """\
n noheader  P parsable2  X allocations  D duplicates  j jobs=  - name=  S starttime=  E endtime=  o format=
u user=  s state=  a allusers  - delimiter=  M clusters="""
SCANCEL = "s signal=  n name=  u user=  t state=  - me  v verbose  Q quiet  b batch  f full  p partition="
SINFO = "h noheader  N Node  o format=  p partition=  n nodes=  a all"
SCONTROL = "o oneliner"


def parse(program: str, table: str, words: list[str], stop_early: bool = False) -> tuple[dict[str, str], list[str]]:
    """Option name -> value ("" for a flag), and the other words; with `stop_early` all from the first of those on."""
    letters, kinds = _read(table)
    options: dict[str, str] = {}
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if stop_early:
                return options, rest + queue
            continue
        name, value = _split(program, word, letters, kinds, queue)
        if kinds[name] == "=" and value is None:
            if not queue:
                raise _unknown(program, f"option '{word}' requires an argument")
            value = queue.pop(0)
        options[name] = value or ""
    return options, rest


def _read(table: str) -> tuple[dict[str, str], dict[str, str]]:
    letters, kinds = {}, {}
    words = table.split()
    for letter, text in zip(words[::2], words[1::2], strict=True):
        name = text.rstrip("=?")
        letters[letter], kinds[name] = name, text[len(name) :]
    return letters, kinds


def _split(
    program: str, word: str, letters: dict[str, str], kinds: dict[str, str], queue: list[str]
) -> tuple[str, str | None]:
    """The option's name and the value inside the same word; "-hr" becomes "-h" with "-r" put back into the queue."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        if name not in kinds:
            raise _unknown(program, f"unrecognized option '{word}'")
        return name, value if equals else None
    if word[1] not in letters:
        raise _unknown(program, f"invalid option -- '{word[1]}'")
    name = letters[word[1]]
    if kinds[name] == "=":
        return name, word[2:] or None
    if word[2:]:
        queue.insert(0, f"-{word[2:]}")
    return name, None


def _unknown(program: str, text: str) -> Refusal:
    return Refusal(f'{program}: {text}\nTry "{program} --help" for more information', 255 if program == "sbatch" else 1)
