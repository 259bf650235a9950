"""Docstrings of Python source files, found statically and cleaned to prose.

This file is a worker: `corpus` runs it by path in fresh interpreters (so that no caller's `__main__` is run again
and no thread is forked). It therefore imports the standard library alone and never imports what it reads.

Protocol: one file path a line on standard input; one JSON line a file on standard output, `[lines, [documents]]`.
"""

from __future__ import annotations

import ast
import gc
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

MIN_WORDS = 20
"""A document has at least this many words."""

_DOC_CALLS = frozenset({"add_newdoc", "add_docstr", "add_docstr_all", "_add_docstr"})


def docstrings(source: bytes) -> list[str]:
    """Returns the raw documentation strings of one Python file, in source order.

    These are the docstrings of modules, classes and functions, bare strings in class and module bodies (attribute
    documentation), and the text given to numpy's `add_newdoc` and torch's `add_docstr`.

    Args:
        source: the file's bytes; an unreadable or syntactically invalid file has no docstrings.
    """
    if b'"""' not in source and b"'''" not in source:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return list(_strings(tree.body, strings_anywhere=True))


def _strings(body: Iterable[ast.stmt], *, strings_anywhere: bool) -> Iterator[str]:
    for position, node in enumerate(body):
        if isinstance(node, ast.Expr):
            value = node.value
            if isinstance(value, ast.Constant):
                if isinstance(value.value, str) and (strings_anywhere or position == 0):
                    yield value.value
            elif isinstance(value, ast.Call):
                yield from _called(value)
        elif isinstance(node, ast.Assign):
            if isinstance(node.value, ast.Call):
                yield from _called(node.value)  # norm = _add_docstr(_linalg.norm, r"""...""")
        elif isinstance(node, ast.ClassDef):
            yield from _strings(node.body, strings_anywhere=True)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _strings(node.body, strings_anywhere=False)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _strings(node.body, strings_anywhere=False)
            yield from _strings(getattr(node, "orelse", []), strings_anywhere=False)


def _called(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in _DOC_CALLS:
        return
    for argument in call.args:
        if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Attribute):
            argument = argument.func.value  # r"""...""".format(**common)
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and "\n" in argument.value:
            yield argument.value


_UNDERLINE = re.compile(r"^\s*([=\-~^\"'`#*+_.:])\1{2,}\s*$")
_TABLE = re.compile(r"^\s*(?:[|+].*[|+]\s*$|[=\-]{2,}(?:\s+[=\-]{2,})+\s*$)")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_DIRECTIVE = re.compile(r"^\s*\.\.\s*(?:([\w:\-+]+)::|\[|_|\|)?\s*(.*)$")
_KEPT_DIRECTIVES = frozenset(
    (
        "note",
        "warning",
        "warnings",
        "tip",
        "hint",
        "important",
        "caution",
        "attention",
        "danger",
        "seealso",
        "admonition",
        "topic",
        "rubric",
    )
)
_FIELD = re.compile(
    r"^:(?:param|parameter|arg|argument|keyword|kwarg|return|returns|raise|raises|yield|yields)\b[^:]*:"
)
_OTHER_FIELD = re.compile(r"^[:@]\w[^:]*:?")
_NUMPY_ENTRY = re.compile(r"^\**[\w.`\"'\[\]{}*, ]{1,60} : \S")
_GOOGLE_ENTRY = re.compile(r"^[`*\"']*\w[\w.]*[`*\"']*(?:\s*\([^()]*(?:\([^()]*\)[^()]*)*\))?\s*:\s+(?=\S)")
_BULLET = re.compile(r"^(?:[-*+•]|\(?(?:\d{1,2}|[a-z])[.)])\s+")
_SECTION = re.compile(
    r"^(?:Args|Arguments|Parameters?|Other Parameters|Returns?|Yields?|Raises|Warns|Examples?|Usage|See Also|"
    r"References|Attributes|Methods|Keyword Args|Keyword Arguments|Kwargs|Inputs?|Outputs?|Shape|Notes?|Warning|"
    r"Warnings|Todo|Receives|Keywords)\s*:{0,2}$",
    re.IGNORECASE,
)
_REFERENCES = re.compile(r"^(?:See Also|References|Examples?|Usage|Methods|Shape)\b", re.IGNORECASE)

_INLINE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r":[\w:+\-]+:`([^`<]+?)\s*<[^`>]*>`"), r"\1"),  # :role:`title <target>`
    (re.compile(r":math:`([^`]*)`"), r"\1"),
    (re.compile(r":[\w:+\-]+:`[~!.]?(?:[\w]+\.)*([^`]+)`"), r"\1"),  # :class:`~a.b.C` -> C
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # markdown links
    (re.compile(r"\[`~?(?:\w+\.)*([^`\]]+)`\]"), r"\1"),  # [`~a.b.C`] -> C
    (re.compile(r"``([^`]*)``"), r"\1"),
    (re.compile(r"`([^`]*)`_{0,2}"), r"\1"),
    (re.compile(r":(?:py:)?(?:attr|class|func|meth|mod|obj|ref|exc|data|term|doc|math):"), ""),
    (re.compile(r"\s*\[[^\]\s]{1,20}\]_"), ""),  # footnote marks
    (re.compile(r"(?<![\w*])\*{1,2}([^*\s](?:[^*]*[^*\s])?)\*{1,2}(?![\w*])"), r"\1"),
    (re.compile(r"\s*\(?<?https?://\S+"), ""),
    (re.compile(r"\\([`*_|<>])"), r"\1"),
    (re.compile(r"::\s*$"), ":"),
    (re.compile(r"\s+"), " "),
)
_WORD = re.compile(r"^[(\"'“‘]*[A-Za-z][A-Za-z]*(?:['’\-/][A-Za-z]+)*[)\"'”’]*[.,;:!?]*[)\"'”’]*$")
_SURROGATE = re.compile("[\ud800-\udfff]")  # an escape in a source file that no UTF-8 text can hold
_MARKUP = re.compile(r"[`*:\[\\]|https?:|::")


def to_prose(docstring: str) -> str:
    """Returns the prose of one docstring: paragraphs of real sentences, a blank line between; "" if there are none.

    Doctests, code, tables, headings, type lines of parameter lists, directives that hold no text and bare addresses are
    dropped; inline markup is reduced to its text; paragraphs are unwrapped.
    """
    paragraphs = [_inline(p) for p in _paragraphs(_without_margin(docstring))]
    kept = list(dict.fromkeys(p for p in paragraphs if _is_prose(p)))
    while kept and kept[-1].endswith(":"):
        kept.pop()  # it announced something that was dropped
    return "\n\n".join(kept)


def _without_margin(docstring: str) -> list[str]:
    """The lines without their common indentation.

    `inspect.cleandoc` will not do: which blanks it takes for indentation depends on the version of Python, and the
        corpus must not.
    """
    first, *others = docstring.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip(" ")) for line in others if line.strip()), default=0)
    return "\n".join([first.lstrip(), *(line[margin:] for line in others)]).splitlines()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Yields the unwrapped paragraphs outside of code, tables and lists of names."""
    current: list[str] = []
    level = 0  # indentation of the paragraph being read
    hidden_above: int | None = None  # inside a block to drop: lines indented deeper than this
    fenced = doctest = names_only = False
    for number, line in enumerate(lines):
        text = line.strip()
        if _FENCE.match(line):
            fenced = not fenced
            text = ""
        elif fenced:
            continue
        if not text:
            doctest = False
            yield from _flush(current)
            continue
        indent = _indent(line)
        if hidden_above is not None:
            if indent > hidden_above:
                continue
            hidden_above = None
        if doctest or text.startswith((">>>", "In [", "$ ")):
            doctest = True
            yield from _flush(current)
            continue
        following = lines[number + 1] if number + 1 < len(lines) else ""
        headed = bool(_UNDERLINE.match(following)) and indent == _indent(following)
        if headed or _SECTION.match(text):
            yield from _flush(current)
            names_only = bool(_REFERENCES.match(text))
            if names_only and not headed:
                hidden_above = indent
                names_only = False
            continue
        if _UNDERLINE.match(line) or _TABLE.match(line):
            yield from _flush(current)
            continue
        if names_only:
            continue
        if text.startswith(".."):
            yield from _flush(current)
            directive = _DIRECTIVE.match(line)
            name, rest = (directive.group(1) or "", directive.group(2)) if directive else ("", "")
            if name in _KEPT_DIRECTIVES:
                if rest:
                    current, level = [rest], indent + 1
            else:
                hidden_above = indent
            continue
        starts_entry = _starts_entry(text)
        if current and (starts_entry or indent < level or (indent > level and len(current) > 1)):
            yield from _flush(current)
        if starts_entry:
            text = _strip_entry(text)
        if not text:
            continue
        if not current:
            level = indent
        elif len(current) == 1:
            level = max(level, indent) if starts_entry or indent > level else level
        current.append(text)
        if text.endswith("::"):
            hidden_above = _indent(line)
            yield from _flush(current)
    yield from _flush(current)


def _flush(current: list[str]) -> Iterator[str]:
    if current:
        yield " ".join(current)
        current.clear()


def _starts_entry(text: str) -> bool:
    return bool(
        _BULLET.match(text)
        or text[0] in ":@"
        or _NUMPY_ENTRY.match(text)
        or (": " in text and _GOOGLE_ENTRY.match(text))
    )


def _strip_entry(text: str) -> str:
    """Removes a list item's mark, or the name and type of a parameter."""
    for pattern in (_BULLET, _FIELD):
        if match := pattern.match(text):
            return text[match.end() :].strip()
    if text[0] in ":@" and not text.startswith((":class:", ":func:", ":meth:", ":mod:", ":attr:", ":math:", ":obj:")):
        return text[match.end() :].strip() if (match := _OTHER_FIELD.match(text)) and " " not in match.group() else ""
    if _NUMPY_ENTRY.match(text):
        return ""
    match = _GOOGLE_ENTRY.match(text)
    return text[match.end() :].strip() if match else text


def _inline(paragraph: str) -> str:
    if _MARKUP.search(paragraph):
        for pattern, replacement in _INLINE:
            paragraph = pattern.sub(replacement, paragraph)
    return " ".join(paragraph.split())


def _is_prose(paragraph: str) -> bool:
    """True for real sentences: enough words, mostly plain ones, with a start and an end."""
    words = paragraph.split()
    if len(words) < 6 or paragraph[-1] not in ".!?:" or "{" in paragraph:
        return False
    if not (paragraph[0].isalnum() or paragraph[0] in "\"'(“‘"):
        return False
    plain = sum(1 for word in words if _WORD.match(word))
    return plain >= 0.75 * len(words)


def documents(source: bytes) -> list[str]:
    """Returns the cleaned documents of one file: docstrings with at least `MIN_WORDS` words of prose."""
    found = []
    for text in docstrings(source):
        prose = to_prose(text) if len(text) >= 4 * MIN_WORDS and not text.isspace() else ""
        if len(prose.split()) >= MIN_WORDS and not _SURROGATE.search(prose):
            found.append(prose)
    return found


def main() -> None:
    """Reads file paths from standard input and writes one JSON line for each."""
    gc.disable()  # syntax trees hold no cycles, and collecting them doubles the time
    for path in sys.stdin.read().splitlines():
        try:
            source = Path(path).read_bytes()
        except OSError:
            source = b""
        sys.stdout.write(json.dumps([source.count(b"\n"), documents(source)]) + "\n")


if __name__ == "__main__":
    main()
