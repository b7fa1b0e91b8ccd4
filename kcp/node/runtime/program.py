"""What a container's command would do, as far as a simulation needs it: how long it runs and how it ends.

    interpret(("sh", "-c", "echo hi; sleep 5; exit 3"))    Program(runs_s=5.0, exit_code=3, output=("hi",))
    interpret(("nginx", "-g", "daemon off;"))              Program(runs_s=None, known=False)

Understood are `exit`, `sleep`, `true`, `false`, `echo`, `printf`, `timeout`, `exec`, `[ … ]`, a shell with `-c` that
strings such commands together with `;`, `&&`, `||`, `if` and new lines, variables and `$((…))`, and a list of tools
that end at once with success. An endless loop runs for ever. Everything else is not known: whoever starts it decides
how long that runs. The files are those of mounts that are given, and what the script itself wrote: `cat`, `ls`, `stat -c %a`
and tests see them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import attrs

from kcp.base.values import frozen
from kcp.node.runtime.shell_words import expand, holds

SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh"})
QUICK_TOOLS = frozenset({
    ":", "basename", "cd", "chgrp", "chmod", "chown", "cp", "curl", "cut", "date", "df",
    "dirname", "du", "export", "expr", "find", "free", "getent", "grep", "gunzip", "gzip",
    "head", "hostname", "id", "ifconfig", "ip", "ln", "mkdir", "mktemp", "mv", "nproc",
    "nslookup", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "set", "sort",
    "sync", "tar", "tee", "touch", "tr", "trap", "ulimit", "umask", "uname", "uniq",
    "unset", "uptime", "wc", "wget", "which", "whoami",
})  # fmt: skip
_MAX_OUTPUT_LINES = 1000
_MAX_FILE = 65_536
_WRITES = (">", ">>", ">|")
_NULL = "/dev/null"
_INTO = "\0"
"""Begins the word that says where a command's output goes: no word of a script can."""
_MAX_SCRIPT = 16_384
"""Characters that are looked at; nobody's script may hold up the process."""
_PRINTS = re.compile(r"\b(?:print)?env\b")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)([smhd]?)", re.ASCII).fullmatch
_ENDLESS = re.compile(
    r"\s*(?:while\s+(?:true|:|\[\s*1\s*\]|sleep\s)|until\s+false|for\s*\(\(\s*;\s*;\s*\)\))"
)
_CONSTRUCTS = frozenset({"while", "until", "for", "case", "{", "(", "function", "select"})


@frozen
class Program:
    """`runs_s` None: for ever. `known` False: a guess, nothing was understood."""

    runs_s: float | None
    exit_code: int = 0
    output: tuple[str, ...] = ()
    known: bool = True
    open_line: bool = False
    """Whether the last line of the output has no end."""
    files: tuple[tuple[str, str], ...] = ()
    """(path, content) of what was written."""


UNKNOWN = Program(None, known=False)


@attrs.define(slots=True)
class _Run:
    """A script half-way: seconds passed, last status, lines written."""

    environment: tuple[tuple[str, str], ...] = ()
    mounted: Mapping[str, tuple[str, int]] = {}
    elapsed_s: float = 0.0
    status: int = 0
    output: list[str] = attrs.field(factory=list)
    background: bool = False
    open_line: bool = False
    files: dict[str, str] = attrs.field(factory=dict)


_Joined = tuple[str, list[str]]
"""What joins a command to the one before (`;`, `&&`, `||`), and its words."""


class _Ends(Exception):
    """Raised when the script is over: with a status, or never (`program` then says what it is instead)."""

    def __init__(self, program: Program | None = None) -> None:
        super().__init__()
        self.program = program


def interpret(
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, tuple[str, int]] | None = None,
) -> Program:
    """The program of command and args together; an empty one (the image's own entrypoint) is not known.

    `files` are (content, mode) by path.
    """
    if sum(map(len, argv)) > _MAX_SCRIPT:
        return UNKNOWN
    variables = environment or {}
    words = tuple(expand(word, variables) for word in argv)
    prints = any(_PRINTS.search(word) for word in words)
    told = tuple(sorted(variables.items())) if prints else ()
    return _result(words, _Run(told, files)) if files else _interpret(words, told)


@lru_cache(maxsize=4096)
def _interpret(argv: tuple[str, ...], environment: tuple[tuple[str, str], ...] = ()) -> Program:
    """`environment` is given to those who print it, so that the others are worked out once for all."""
    return _result(argv, _Run(environment))


def _result(argv: tuple[str, ...], run: _Run) -> Program:
    if not argv:
        return UNKNOWN
    try:
        _command(run, list(argv))
    except _Ends as end:
        if end.program is not None:
            return end.program
    return Program(
        run.elapsed_s,
        run.status,
        tuple(run.output[:_MAX_OUTPUT_LINES]),
        open_line=run.open_line,
        files=tuple(run.files.items()),
    )


def _script(run: _Run, text: str) -> None:
    """Commands in turn, each joined to the one before by `;`, `&&` or `||`."""
    if _ENDLESS.match(text):
        raise _Ends(Program(None, output=tuple(run.output)))
    _sequence(run, _commands(text), 0, True, ())


def _sequence(run: _Run, commands: list[_Joined], at: int, live: bool, ends: tuple[str, ...]) -> int:
    """Run (when `live`) up to a command that begins with one of `ends`; returns its place."""
    while at < len(commands) and commands[at][1][0] not in ends:
        joint, words = commands[at]
        does = live and not (joint == "&&" and run.status != 0) and not (joint == "||" and run.status == 0)
        if words[0] == "if":
            at = _branch(run, commands, at, does)
            continue
        if does:
            _construct(run, words)
            _command(run, words)
        at += 1
    return at


def _branch(run: _Run, commands: list[_Joined], at: int, live: bool) -> int:
    """`if …; then …; elif …; else …; fi`; returns the place after it."""
    at = _sequence(run, commands, _without_keyword(commands, at), live, ("then",))
    taken = live and run.status == 0
    at = _sequence(run, commands, _without_keyword(commands, at), taken, ("elif", "else", "fi"))
    if at >= len(commands):
        raise _Ends(UNKNOWN)
    if commands[at][1][0] == "elif":
        return _branch(run, commands, at, live and not taken)
    if commands[at][1][0] == "else":
        at = _sequence(run, commands, _without_keyword(commands, at), live and not taken, ("fi",))
    return at + 1


def _without_keyword(commands: list[_Joined], at: int) -> int:
    """Take the first word off a command; where that was all, go on to the next one."""
    if at >= len(commands):
        raise _Ends(UNKNOWN)
    words = commands[at][1][1:]
    if not words:
        return at + 1
    commands[at] = (";", words)
    return at


def _construct(run: _Run, words: list[str]) -> None:
    """Loops and the like: endless ones run for ever, the others are not understood."""
    if words[0] in _CONSTRUCTS:
        endless = _ENDLESS.match(" ".join([*words, ""])) is not None
        raise _Ends(Program(None, output=tuple(run.output), known=endless))


def _commands(text: str) -> list[_Joined]:
    """The simple commands of a script, each with what joins it to the one before."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    lexer = shlex.shlex(" ; ".join(lines), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = list(lexer)
    except ValueError:
        raise _Ends(UNKNOWN) from None
    found: list[_Joined] = []
    joint, words, into = ";", [], ""  # type: str, list[str], str
    for token in tokens:
        if token in (";", "&&", "||", "|", "&"):
            if words and token != "|":
                found.append((joint, [*words, "&"] if token == "&" else words))
            if words or token not in (";",):
                joint = ";" if token in ("|", "&") else token
            words = []
        elif into:
            _redirect(words, into, token)
            into = ""
        elif token and token[0] in "<>":
            into = token
        else:
            words.append(token)
    if words:
        found.append((joint, words))
    return found


def _redirect(words: list[str], into: str, target: str) -> None:
    """Note where a command's output goes. A number before `>` is a channel only in front of a device or a channel."""
    device = target in (_NULL, "/dev/stdout", "/dev/stderr")
    channel = words.pop() if (device or into == ">&") and words and words[-1] in ("1", "2") else "1"
    if into in _WRITES and channel == "1" and (target == _NULL or not device):
        words.append(f"{_INTO}{into}{target}")


def _command(run: _Run, words: list[str]) -> None:
    """One simple command, its output put where `>` says. Raises _Ends when nothing comes after it."""
    targets = [word.removeprefix(_INTO) for word in words if word.startswith(_INTO)]
    if not targets:
        _plain_command(run, words)
        return
    shown, shown_open = run.output, run.open_line
    run.output, run.open_line = [], False
    try:
        _plain_command(run, [word for word in words if not word.startswith(_INTO)] or [":"])
    except _Ends as end:
        raise end if end.program is None else _Ends(attrs.evolve(end.program, output=tuple(shown))) from None
    finally:
        written = "\n".join(run.output) + ("\n" if run.output and not run.open_line else "")
        run.output, run.open_line = shown, shown_open
    for target in targets:
        path = target.lstrip(">|")
        if path == _NULL:
            continue
        kept = run.files.get(path, "") if target.startswith(">>") else ""
        run.files[path] = (kept + written)[:_MAX_FILE]


def _plain_command(run: _Run, words: list[str]) -> None:
    if words[-1] == "&":
        run.background = True
        return
    while len(words) > 1 and ("=" in words[0] or words[0] in ("exec", "nohup", "command", "sudo")):
        words = words[1:]
    name, args = words[0].rpartition("/")[2], words[1:]
    if name in SHELLS:
        _shell(run, args)
        return
    action = _ACTIONS.get(name)
    if action is not None:
        action(run, args)
    elif name in QUICK_TOOLS or "=" in name:
        run.status = 0
    else:
        raise _Ends(attrs.evolve(UNKNOWN, output=tuple(run.output)))


def _shell(run: _Run, args: list[str]) -> None:
    for i, arg in enumerate(args):
        if arg.startswith("-") and arg.endswith("c") and i + 1 < len(args):
            _script(run, args[i + 1])
            return
    raise _Ends(UNKNOWN)


def _sleep(run: _Run, args: list[str]) -> None:
    total = 0.0
    for arg in args:
        if arg in ("infinity", "inf"):
            raise _Ends(Program(None, output=tuple(run.output)))
        match = _DURATION(arg)
        if match is None:
            run.status = 1
            return
        total += float(match.group(1)) * _UNITS[match.group(2)]
    run.elapsed_s += total
    run.status = 0


def _exit(run: _Run, args: list[str]) -> None:
    if args and args[0].isdecimal():
        run.status = int(args[0]) & 255
    raise _Ends


def _echo(run: _Run, args: list[str]) -> None:
    words = args[1:] if args[:1] in (["-n"], ["-e"]) else args
    _write(run, " ".join(words) + ("" if args[:1] == ["-n"] else "\n"))
    run.status = 0


def _printf(run: _Run, args: list[str]) -> None:
    text = args[0].replace("\\n", "\n") if args else ""
    for value in args[1:]:
        text = text.replace("%s", value, 1).replace("%d", value, 1)
    _write(run, text)
    run.status = 0


def _timeout(run: _Run, args: list[str]) -> None:
    limit = _DURATION(args[0]) if args else None
    if limit is None or len(args) < 2:
        run.status = 125
        return
    limit_s = float(limit.group(1)) * _UNITS[limit.group(2)]
    inner = _result(tuple(args[1:]), _Run(run.environment, run.mounted))
    if inner.runs_s is None or inner.runs_s > limit_s:
        run.elapsed_s += limit_s
        run.status = 124 if inner.known else 143
        return
    run.elapsed_s += inner.runs_s
    run.status = inner.exit_code
    run.output += inner.output


def _env(run: _Run, args: list[str]) -> None:
    """Prints, or runs what comes after options and assignments."""
    rest = list(args)
    while rest and (rest[0].startswith("-") or "=" in rest[0]):
        rest.pop(0)
    if rest:
        _plain_command(run, rest)
    else:
        _printenv(run, [])


def _printenv(run: _Run, args: list[str]) -> None:
    known = dict(run.environment)
    run.output += [known[name] for name in args if name in known]
    if not args:
        run.output += [f"{name}={value}" for name, value in run.environment]
    run.open_line = False
    run.status = 0 if all(name in known for name in args) else 1


def _content(run: _Run, path: str) -> str | None:
    """Of a file that was written, or that a mount has."""
    if path in run.files:
        return run.files[path]
    return run.mounted[path][0] if path in run.mounted else None


def _cat(run: _Run, args: list[str]) -> None:
    if not args:
        raise _Ends(Program(None, output=tuple(run.output)))
    run.status = 0
    for path in args:
        content = _content(run, path)
        if content is not None:
            _write(run, content)
        elif run.mounted and not path.startswith("-"):
            _write(run, f"cat: can't open '{path}': No such file or directory\n")
            run.status = 1


def _write(run: _Run, text: str) -> None:
    """Output as it is: what follows an open line goes on in it."""
    if not text:
        return
    lines = text.removesuffix("\n").split("\n")
    if run.open_line and run.output:
        run.output[-1] += lines.pop(0)
    run.output += lines
    run.open_line = not text.endswith("\n")


def _ls(run: _Run, args: list[str]) -> None:
    """Names alone, whatever the options."""
    run.status = 0
    for path in [arg for arg in args if not arg.startswith("-")]:
        if _content(run, path) is not None:
            names = [path]
        else:
            start = f"{path.rstrip('/')}/"
            below = [each[len(start) :] for each in (*run.mounted, *run.files) if each.startswith(start)]
            names = sorted({each.partition("/")[0] for each in below})
        _write(run, "".join(f"{name}\n" for name in names))


def _stat(run: _Run, args: list[str]) -> None:
    """`stat -c %a`: the mode of files in mounts."""
    run.status = 0
    if "%a" not in args:
        return
    for path in args[args.index("%a") + 1 :]:
        if path in run.mounted:
            _write(run, f"{run.mounted[path][1]:o}\n")
        elif run.mounted:
            _write(run, f"stat: can't stat '{path}': No such file or directory\n")
            run.status = 1


def _wait(run: _Run, args: list[str]) -> None:
    del args
    if run.background:
        raise _Ends(Program(None, output=tuple(run.output)))
    run.status = 0


def _set_status(status: int) -> Callable[[_Run, list[str]], None]:
    def action(run: _Run, args: list[str]) -> None:
        del args
        run.status = status

    return action


_FILE_TESTS = frozenset({"-e", "-f", "-r"})


def _test(run: _Run, args: list[str]) -> None:
    words = [arg for arg in args if arg not in ("]", "]]")]
    negated = words[:1] == ["!"]
    if len(words) - negated == 2 and words[-2] in (*_FILE_TESTS, "-s"):
        content = _content(run, words[-1])
        true = bool(content) if words[-2] == "-s" else content is not None
        run.status = int(true == negated)
        return
    run.status = 0 if holds(words) else 1


_ACTIONS: dict[str, Callable[[_Run, list[str]], None]] = {
    "true": _set_status(0),
    "false": _set_status(1),
    "sleep": _sleep,
    "exit": _exit,
    "echo": _echo,
    "printf": _printf,
    "timeout": _timeout,
    "cat": _cat,
    "ls": _ls,
    "stat": _stat,
    "env": _env,
    "printenv": _printenv,
    "wait": _wait,
    "[": _test,
    "[[": _test,
    "test": _test,
}
