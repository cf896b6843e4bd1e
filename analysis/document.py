"""A report as a list of blocks, rendered as HTML, Markdown or terminal text.

The three renderings say the same because they come from the same blocks. HTML is one
file with its styles and figures inside: it opens without a network, on a phone and on
paper.
"""

import dataclasses
import html
import importlib.resources
import pathlib
import re
import string
import textwrap
from collections.abc import Sequence

_COLUMNS = 100  # of terminal text


@dataclasses.dataclass(frozen=True)
class Heading:
  """Title of a section."""

  text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
  """Plain text; `lead` marks the answer at the top."""

  text: str
  lead: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells as text. The first column names the row.

  Attributes:
    header: [C].
    rows: [R][C].
    note: under the table.
    brief: also shown in the terminal.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str = ''
  brief: bool = True


@dataclasses.dataclass(frozen=True)
class Item:
  """A statement with a mark in front and lines below it, each (name or '', text)."""

  mark: str
  text: str
  lines: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Items:
  """Statements one below the other, and a note under them."""

  items: Sequence[Item]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure: name of its files without suffix, its SVG, and its caption."""

  stem: str
  svg: str
  caption: str


@dataclasses.dataclass(frozen=True)
class Code:
  """Preformatted text; `brief` also shows it in the terminal."""

  text: str
  brief: bool = False


@dataclasses.dataclass(frozen=True)
class Report:
  """What was written.

  Attributes:
    folder: holds the files.
    paths: every file written.
    text: summary for the terminal, at most 100 columns.
  """

  folder: pathlib.Path
  paths: tuple[pathlib.Path, ...]
  text: str


Block = Heading | Paragraph | Table | Items | Picture | Code


def to_html(title: str, blocks: Sequence[Block]) -> str:
  """One self-contained page."""
  template = importlib.resources.files('analysis').joinpath('report.html')
  parts: list[str] = []
  pictures: list[str] = []
  for block in [*blocks, None]:
    if isinstance(block, Picture):
      pictures.append(_html_picture(block))
      continue
    if pictures:
      parts.append(f'<div class="figures">{"".join(pictures)}</div>')
      pictures = []
    if block is not None:
      parts.append(_html_block(block))
  return string.Template(template.read_text(encoding='utf-8')).substitute(
    title=html.escape(title), body='\n'.join(parts)
  )


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
  """GitHub-flavoured Markdown; figures are links to the SVG files beside it."""
  parts = [f'# {_escape(title)}']
  for block in blocks:
    match block:
      case Heading(text):
        parts.append(f'## {_escape(text)}')
      case Paragraph(text, lead):
        parts.append(f'**{_escape(text)}**' if lead else _escape(text))
      case Code(text):
        parts.append(f'```\n{text}\n```')
      case Picture(stem, _, caption):
        parts.append(f'![{_escape(caption)}]({stem}.svg)\n\n*{_escape(caption)}*')
      case Items(items, note):
        parts += [_markdown_item(item) for item in items]
        if note:
          parts.append(_escape(note))
      case Table(header, rows, note):
        lines = [_markdown_row(header), '|' + '---|' * len(header)]
        parts.append('\n'.join(lines + [_markdown_row(row) for row in rows]))
        if note:
          parts.append(_escape(note))
  return '\n\n'.join(parts) + '\n'


def to_text(title: str, blocks: Sequence[Block]) -> str:
  """Plain text of at most 100 columns, with the brief blocks only."""
  parts = [title + '\n' + '=' * min(len(title), _COLUMNS)]
  heading = ''
  for block in blocks:
    match block:
      case Heading(text):
        heading = text
        continue
      case Paragraph(text, lead) if lead:
        shown = textwrap.fill(text, _COLUMNS)
      case Code(text, brief) if brief:
        shown = text
      case Items(items, note):
        shown = '\n\n'.join(_text_item(item) for item in items)
        shown += '\n\n' + textwrap.fill(note, _COLUMNS) if note else ''
      case Table(header, rows, note, brief) if brief:
        shown = _text_table(header, rows)
        shown += '\n' + textwrap.fill(note, _COLUMNS) if note else ''
      case _:
        continue
    if heading:
      parts.append(f'{heading}\n{"-" * len(heading)}\n{shown}')
    else:
      parts.append(shown)
    heading = ''
  return '\n\n'.join(parts) + '\n'


def _html_block(block: Block) -> str:
  match block:
    case Heading(text):
      return f'<h2>{html.escape(text)}</h2>'
    case Paragraph(text, lead):
      return f'<p{" class=lead" if lead else ""}>{html.escape(text)}</p>'
    case Code(text):
      return f'<pre>{html.escape(text)}</pre>'
    case Items(items, note):
      note = f'<p class="note">{html.escape(note)}</p>' if note else ''
      return f'<dl>{"".join(_html_item(item) for item in items)}</dl>{note}'
    case Table(header, rows, note):
      head = ''.join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
      body = ''.join(
        '<tr>'
        + f'<th scope="row">{html.escape(row[0])}</th>'
        + ''.join(_html_cell(cell) for cell in row[1:])
        + '</tr>'
        for row in rows
      )
      table = f'<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
      note = f'<p class="note">{html.escape(note)}</p>' if note else ''
      # The focusable frame scrolls on a phone, by keyboard too.
      return f'<div class="wide" tabindex="0">{table}</div>{note}'
    case Picture():
      return _html_picture(block)


def _html_item(item: Item) -> str:
  lines = ''.join(
    f'<dd>{f"<i>{html.escape(name)}</i> " if name else ""}{html.escape(text)}</dd>'
    for name, text in item.lines
  )
  mark, text = html.escape(item.mark), html.escape(item.text)
  return f'<div><dt><b>{mark}</b> {text}</dt>{lines}</div>'


def _html_cell(cell: str) -> str:
  # Numbers stay on one line and sentences get room, also where the table scrolls.
  return f'<td class={"long" if len(cell) > 30 else "short"}>{html.escape(cell)}</td>'


def _html_picture(picture: Picture) -> str:
  caption = html.escape(picture.caption)
  svg = _inline(picture.svg, picture.stem, caption)
  return f'<figure>{svg}<figcaption>{caption}</figcaption></figure>'


def _inline(svg: str, stem: str, label: str) -> str:
  """An SVG file as an element: no prolog, no addresses, its own space of ids."""
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', '', svg)
  svg = re.sub(r'\bid="', f'id="{stem}-', svg)
  svg = re.sub(r'(href="#|url\(#)', rf'\g<1>{stem}-', svg)
  svg = svg.replace('xlink:href', 'href')
  opening, rest = svg.split('>', 1)
  opening = re.sub(r'\s(width|height)="[^"]*"', '', opening)
  return f'{opening} role="img" aria-label="{label}">{rest}'


def _escape(text: str) -> str:
  return re.sub(r'([\\`*_\[\]<>|#])', r'\\\1', text)


def _markdown_item(item: Item) -> str:
  lines = [f'**{_escape(item.mark)}** {_escape(item.text)}', '']
  lines += [f'- {_named(name, _escape(text))}' for name, text in item.lines]
  return '\n'.join(lines)


def _text_item(item: Item) -> str:
  indent = ' ' * 15
  lines = [f'{item.mark.upper():<14} {item.text}']
  lines += [indent + _named(name, text) for name, text in item.lines]
  return '\n'.join(
    textwrap.fill(line, _COLUMNS, subsequent_indent=indent) for line in lines
  )


def _named(name: str, text: str) -> str:
  return f'{name}: {text}' if name else text


def _markdown_row(cells: Sequence[str]) -> str:
  return '| ' + ' | '.join(_escape(cell) for cell in cells) + ' |'


def _text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Aligned columns; too many columns continue in a second table below."""
  lines = [list(row) for row in (header, *rows)]
  widths = []
  for i in range(len(header)):
    # No cell may be wider than the page, whatever a reason or a flag says; the last
    # column, where sentences are, may have all that is left.
    room = _COLUMNS - sum(widths) - 2 * i if i == len(header) - 1 else 0
    for row in lines:
      row[i] = textwrap.shorten(row[i], max(room, 44), placeholder='…')
    widths.append(max(len(row[i]) for row in lines))
  blocks, start = [], 1
  while start < len(header) or not blocks:
    end, total = start, widths[0]
    while end < len(header) and (total + 2 + widths[end] <= _COLUMNS or end == start):
      total += 2 + widths[end]
      end += 1
    shown = [0, *range(start, end)]
    blocks.append(
      '\n'.join(
        '  '.join(row[i].ljust(widths[i]) for i in shown).rstrip() for row in lines
      )
    )
    start = max(end, start + 1)
  return '\n\n'.join(blocks)
