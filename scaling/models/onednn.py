"""Compiles the custom calls of `onednn_ops`, C++ in the folder cc.

Once for each version of oneDNN and JAX and each kind of CPU; what comes out is kept beside
the compiled programs.
"""

import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import tempfile

import jax

from scaling import files
from scaling.errors import UserError
from scaling.models import cpu_ops

_FOLDER = pathlib.Path(__file__).with_name('cc')
_PACKAGE = 'onednn-devel-cpu-gomp'


def build() -> pathlib.Path:
  """Returns the compiled library, from the cache when it has it.

  Raises:
    UserError: without oneDNN, without a compiler, and with what that says.
  """
  headers = [
    file.locate()
    for file in _files(_PACKAGE)
    if file.as_posix().endswith('include/dnnl.hpp')
  ]
  if not headers:
    raise UserError("model.ops=onednn needs oneDNN: pip install 'scaling[onednn]'")
  root = pathlib.Path(str(headers[0])).resolve().parents[1]
  compiler = os.environ.get('CXX') or shutil.which('g++') or shutil.which('c++')
  if not compiler:
    raise UserError(
      'model.ops=onednn needs a C++ compiler once: apt-get install g++, or CXX=PATH'
    )
  sources = sorted(_FOLDER.iterdir())
  command = [
    *compiler.split(), '-O3', '-march=native', '-fno-trapping-math', '-std=c++17', '-w',
    '-shared', '-fPIC', '-fopenmp', f'-I{jax.ffi.include_dir()}', f'-I{root}/include',
    *(str(path) for path in sources if path.suffix == '.cc'),
    f'-L{root}/lib', f'-Wl,-rpath,{root}/lib', '-ldnnl',
  ]  # fmt: skip
  about = [*command, *(path.read_text(encoding='utf-8') for path in sources)]
  about += [jax.__version__, importlib.metadata.version(_PACKAGE)]
  about += sorted(cpu_ops.cpu_flags())  # what "native" stands for
  digest = hashlib.sha256('\0'.join(about).encode()).hexdigest()[:16]
  library = files.cache_folder() / f'onednn-{digest}.so'
  if not library.exists():
    library.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: several workers may build it at once.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
      new = pathlib.Path(folder) / library.name
      done = subprocess.run(
        [*command, '-o', str(new)], capture_output=True, text=True, check=False
      )
      if done.returncode:
        said = (done.stderr.strip().splitlines() or ['no reason given'])[0]
        raise UserError(f'model.ops=onednn could not be compiled by {compiler}: {said}')
      os.replace(new, library)
  return library


def _files(package: str) -> list[importlib.metadata.PackagePath]:
  try:
    return importlib.metadata.files(package) or []
  except importlib.metadata.PackageNotFoundError:
    return []
