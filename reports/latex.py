"""LaTeX emitter: booktabs tables that can be pasted into a paper."""

import re
from collections.abc import Iterator, Sequence

from clever.reports.model import Judgement, Report, Table
from clever.reports.words import Entry, Group, Sheet, claims_of, claims_title, notes, profile_words, sheets

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    # directly after a line's end, `\\`, LaTeX would read these two as its arguments
    "[": "{[}",
    "*": "{*}",
}


def latex(report: Report) -> str:
    """Every table of ``report`` as a floating table, notes and claims below it. It needs the package booktabs."""
    source = f"% Profile {_comment(report.profile)}: {_comment(report.profile_title)}"
    lines = [source, r"% needs \usepackage{booktabs}"]
    for table in report.tables:
        lines += ["", *_float(table)]
        lines += _claims(report, claims_of(report, table))
    if not report.tables:
        lines += ["", *(rf"{escape(words)}\par" for words in profile_words(report)), *_claims(report, report.claims)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text in which no character means anything to LaTeX, and the minus of a number is no hyphen."""
    plain = "".join(SPECIAL.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"(?<![\w-])-(?=[0-9])", "$-$", plain)


def _float(table: Table) -> Iterator[str]:
    own = sheets(table)
    label = re.sub(r"[^A-Za-z0-9-]", "-", f"{table.name}-{table.profile}")
    yield r"\begin{table}[t]"
    yield r"\centering\small"
    yield rf"\caption{{{escape(table.title)} (profile {escape(table.profile)}).}}"
    yield rf"\label{{tab:{label}}}"
    yield from _tabular(own[0])
    for sheet in own[1:]:
        yield rf"\par\medskip {escape(sheet.title)}\par\smallskip"
        yield from _tabular(sheet)
    yield r"\par\smallskip\raggedright\footnotesize"
    for note in (*notes(table), *profile_words(table)):
        yield rf"{escape(note)}\par"
    yield r"\end{table}"


def _tabular(sheet: Sheet) -> Iterator[str]:
    columns = len(sheet.header)
    yield rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}"
    yield r"\toprule"
    yield " & ".join(escape(text) for text in sheet.header) + r" \\"
    for group in sheet.groups:
        yield r"\midrule"
        yield from _group(group, columns)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _group(group: Group, columns: int) -> Iterator[str]:
    if group.heading:
        yield rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{escape(group.heading)}}}}} \\"
    for label, entries in group.rows:
        yield " & ".join([escape(label), *(_entry(entry) for entry in entries)]) + r" \\"


def _entry(entry: Entry) -> str:
    ours = rf"\textbf{{{escape(entry.ours)}}}" if entry.bold else escape(entry.ours)
    return rf"{ours} {{\scriptsize {escape(entry.paper)}}}" if entry.paper else ours


def _claims(report: Report, claims: Sequence[Judgement]) -> Iterator[str]:
    if not claims:
        return
    yield ""
    yield rf"\paragraph{{{escape(claims_title(report))}.}}"
    yield r"\begin{itemize}"
    for claim in claims:
        yield rf"\item \textbf{{{claim.verdict.value}}}: {escape(claim.text)} ({escape(claim.where)})"
        yield rf"{{\footnotesize {escape(claim.evidence)}}}"
    yield r"\end{itemize}"


def _comment(text: str) -> str:
    """Text that stays within one comment line."""
    return " ".join(text.split())
