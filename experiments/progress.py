"""The line that tells people how far a sweep is: a bar, or plain lines in a log."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from experiments.duration import duration
from experiments.status import Progress as Cell

T = TypeVar('T')

WINDOW_SECONDS = 30.0  # over which speed is measured
SHOWN_SECONDS = 0.1  # between looks at a bar, which may be told of every image
PLAIN_SECONDS = 10.0  # between lines where there is no terminal


class Display:
  """Shows cells done, images a second and the time left."""

  def __init__(self, console: Console, bar: Progress):
    self._console, self._bar = console, bar
    self._task = bar.add_task('', total=None, text='starting workers')
    self._seen: collections.deque = collections.deque()
    self._printed = float('-inf')

  def show(self, cells: Sequence[Cell]) -> None:
    """Shows the state of all cells of the sweep."""
    now = time.monotonic()
    ended = sum(cell.ended for cell in cells)
    failed = sum(cell.state == 'failed' for cell in cells)
    images = sum(cell.images for cell in cells)
    work = sum(cell.work * cell.images for cell in cells)
    left = sum(
      cell.work * (cell.total_images - cell.images) for cell in cells if not cell.ended
    )
    self._seen.append((now, images, work))
    while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW_SECONDS:
      self._seen.popleft()
    then, images_then, work_then = self._seen[0]
    seconds = max(now - then, 1e-9)
    text = f'{ended}/{len(cells)} cells'
    if failed:
      text += f', {failed} failed'
    if work > work_then:
      text += f' · {(images - images_then) / seconds:,.0f} images/s'
      text += f' · {duration(left * seconds / (work - work_then))} left'
    elif ended < len(cells):
      text += ' · starting: importing and compiling'
    total = work + left
    self._bar.update(self._task, completed=work, total=total or 1, text=text)
    if not self._console.is_terminal and now - self._printed >= PLAIN_SECONDS:
      self._printed = now
      self._console.print(text, highlight=False)


@contextlib.contextmanager
def display() -> Iterator[Display]:
  """Shows progress on standard error while the block runs."""
  console = Console(stderr=True)
  with _bar(console) as bar:
    yield Display(console, bar)


def _bar(console: Console) -> Progress:
  return Progress(
    TextColumn('{task.percentage:>3.0f}%'),
    BarColumn(),
    TextColumn('{task.fields[text]}'),
    TimeElapsedColumn(),
    console=console,
    disable=not console.is_terminal,
  )


@contextlib.contextmanager
def working(doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
  """A bar on standard error with speed and time left.

  Args:
    doing: what is done, such as 'preparing'.
    unit: of what is counted, such as 'images'.

  Yields:
    What to call with the units done and the units in all.
  """
  console = Console(stderr=True)
  seen: collections.deque = collections.deque()
  said = time.monotonic()  # the last line in a log
  with _bar(console) as bar:
    task = bar.add_task('', total=None, text=f'{doing}: starting')

    def count(done: int, total: int) -> None:
      nonlocal said
      now = time.monotonic()
      if seen and done < total and now - seen[-1][0] < SHOWN_SECONDS:
        return
      if len(seen) == 1 and done == seen[0][1]:
        seen.clear()  # nothing done yet: workers starting are no measure of speed
      seen.append((now, done))
      while len(seen) > 2 and now - seen[1][0] > WINDOW_SECONDS:
        seen.popleft()
      then, before = seen[0]
      text = f'{doing}: {done:,}/{total:,} {unit}'
      if done > before:
        speed = (done - before) / max(now - then, 1e-9)
        text += f' · {speed:,.0f}/s · {duration((total - done) / speed)} left'
      bar.update(task, completed=done, total=total, text=text)
      if not console.is_terminal and now - said >= PLAIN_SECONDS:
        said = now
        console.print(text, highlight=False)

    yield count


@contextlib.contextmanager
def counting(text: str) -> Iterator[Callable[[int, int], None]]:
  """A bar on standard error for work of many equal parts, such as curves to fit.

  Yields:
    What to call with the parts done and the parts in all.
  """
  console = Console(stderr=True)
  bar = Progress(
    BarColumn(),
    TextColumn('{task.description}'),
    TimeElapsedColumn(),
    console=console,
    transient=True,
    disable=not console.is_terminal,
  )
  task = bar.add_task(text, total=None)
  said = time.monotonic()

  def count(done: int, total: int) -> None:
    nonlocal said
    bar.update(task, completed=done, total=total, description=f'{text}: {done}/{total}')
    if not console.is_terminal and time.monotonic() - said >= PLAIN_SECONDS:
      said = time.monotonic()
      console.print(f'{text}: {done}/{total}', highlight=False)

  with bar:
    yield count


def watch(look: Callable[[], tuple[str, bool]], every_seconds: float = 2.0) -> None:
  """Shows a text on standard output as it changes, until it says it is the last one.

  Args:
    look: returns the text, and whether there is more to come.
    every_seconds: between looks; off a terminal the text is printed when it changed.
  """
  console = Console()
  text, more = look()
  if not console.is_terminal:
    print(text, flush=True)
    while more:
      time.sleep(every_seconds)
      before = text
      text, more = look()
      if text != before:
        print(f'\n{text}', flush=True)
    return
  with Live(Text(text), console=console, vertical_overflow='visible') as live:
    while more:
      time.sleep(every_seconds)
      text, more = look()
      live.update(Text(text))


def now_and_then(ask: Callable[[], T], every_seconds: float) -> Callable[[], T]:
  """Returns a function that asks at most so often, and else says what it was told."""
  told: list[T] = []
  asked = 0.0

  def answer() -> T:
    nonlocal asked
    if not told or time.monotonic() - asked >= every_seconds:
      told[:] = [ask()]
      asked = time.monotonic()
    return told[0]

  return answer
