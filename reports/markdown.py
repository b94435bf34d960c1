"""Markdown emitter: pages that read well on a forge and in a plain editor."""

import re
from collections.abc import Iterator, Sequence

from clever.reports.model import Judgement, Report
from clever.reports.words import Group, Sheet, claims_of, claims_title, notes, profile_words, sheets


def markdown(report: Report) -> str:
    lines: list[str] = []
    for table in report.tables:
        own = sheets(table)
        prefix = f"{table.reference}: " if table.reference else ""
        lines += [f"## {_md(prefix + table.title)}", "", *_md_sheet(own[0]), "", *_md_notes(notes(table))]
        for sheet in own[1:]:
            lines += [f"### {_md(sheet.title)}", "", *_md_sheet(sheet), ""]
        lines += _md_notes(profile_words(table))
        lines += _md_claims(report, claims_of(report, table))
    if not report.tables:
        lines += _md_notes(profile_words(report))
        lines += _md_claims(report, report.claims)
    return "\n".join(lines).rstrip("\n") + "\n"


def _md_sheet(sheet: Sheet) -> Iterator[str]:
    yield "| " + " | ".join(_md(text) for text in sheet.header) + " |"
    yield "|---" + "|---:" * (len(sheet.header) - 1) + "|"
    for group in sheet.groups:
        yield from _md_group(group, len(sheet.header))


def _md_group(group: Group, columns: int) -> Iterator[str]:
    if group.heading:
        yield f"| *{_md(group.heading)}* |" + " |" * (columns - 1)
    for label, entries in group.rows:
        cells = [f"**{_md(e.ours)}**" if e.bold else _md(e.ours) for e in entries]
        cells = [f"{cell} {_md(e.paper)}".strip() for cell, e in zip(cells, entries, strict=True)]
        yield "| " + " | ".join([_md(label), *cells]) + " |"


def _md_notes(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in (_md(note), "")]


def _md_claims(report: Report, claims: Sequence[Judgement]) -> list[str]:
    if not claims:
        return []
    lines = [f"### {_md(claims_title(report))}", ""]
    for claim in claims:
        lines.append(f"- **{claim.verdict.value}**: {_md(claim.text)} ({_md(claim.where)})  ")
        lines.append(f"  {_md(claim.evidence)}")
    return [*lines, ""]


def _md(text: str) -> str:
    """Text whose own characters mean nothing to Markdown."""
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", " ".join(text.split()))
