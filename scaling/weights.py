"""Weights of networks in files that others read and write. The only home of safetensors.

A leaf is an array of our variables, called by its path, such as `params/head/kernel`. In
files a head has the classes alone, not the outputs that fill it up.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import safetensors.numpy
from ml_collections import ConfigDict

from scaling import config as config_lib
from scaling import files, manifest, models, weight_names
from scaling.errors import UserError


def read_weights(
  path: str | pathlib.Path, config: ConfigDict, head: Literal['file', 'new'] = 'file'
) -> Any:
  """Returns the variables of a config's network from a public file or one of ours.

  Args:
    path: a .npz or .safetensors file: a BiT as published, an imagenet ResNet in the names
      of torchvision and timm, or any network as `write_weights` writes it.
    config: of the network that the weights are for.
    head: 'file': the classifier is the file's | 'new': a new one, of zeros.

  Returns:
    `{'params', 'batch_stats'}` in float32 numpy arrays. Blocks lie one by one; with
    `model.scan` the network takes `models.stack` of them.

  Raises:
    UserError: if the file cannot be read or holds another network, naming the first
      array that differs.
  """
  path = pathlib.Path(path)
  arrays = _read(path)
  tree = jax.eval_shape(
    lambda key: models.unstack(models.build(config).init(key)), jax.random.key(0)
  )
  leaves = _by_path(tree)
  ours = any(name.startswith('params/') for name in arrays)
  naming = weight_names.own if ours else weight_names.public(config.model)
  places = {leaf: naming(leaf, like.ndim) for leaf, like in leaves.items()}
  if head == 'new':
    for leaf in filter(_is_head, leaves):
      shape = _in_file(leaf, leaves[leaf].shape, config)
      arrays[places[leaf].name] = places[leaf].put(_new_head(leaf, shape, config))
  _check_same(path, arrays, places, leaves, config)

  def take(keys: Any, like: jax.ShapeDtypeStruct) -> np.ndarray:
    leaf = _path(keys)
    found = places[leaf].take(arrays[places[leaf].name])
    if found.shape == like.shape:
      return found
    whole = _new_head(leaf, like.shape, config)
    whole[..., : config.data.num_classes] = found
    return whole

  return jax.tree_util.tree_map_with_path(take, tree)


def write_weights(
  path: str | pathlib.Path, config: ConfigDict, variables: Any
) -> list[str]:
  """Writes variables under the names that the network is published in, or else our own.

  A .safetensors file also carries the config, the network and the versions of packages,
  as JSON.

  Args:
    path: to write, ending in .safetensors or .npz; what is there is replaced.
    config: of the network.
    variables: `{'params', 'batch_stats'}`, blocks one by one or stacked.

  Returns:
    The names in the file.

  Raises:
    UserError: for another ending.
  """
  path = pathlib.Path(path)
  if path.suffix not in ('.safetensors', '.npz'):
    raise UserError(f'{path} must end in .safetensors or .npz')
  naming = weight_names.public(config.model)
  arrays = {}
  for leaf, array in _by_path(models.unstack(variables)).items():
    array = np.asarray(array)
    place = naming(leaf, array.ndim)
    shape = _in_file(leaf, array.shape, config)
    arrays[place.name] = place.put(array[..., : shape[-1]])
  about = {
    'network': f'{config.model.name}{config.model.depth}',
    'names': naming.__name__,
    'config': json.dumps(config_lib.plain(config)),
    'versions': json.dumps(manifest.versions()),
  }
  with files.replacing(path) as temporary:
    if path.suffix == '.npz':
      with temporary.open('wb') as file:
        np.savez(file, **arrays)
    else:
      safetensors.numpy.save_file(arrays, temporary, about)
  return list(arrays)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a file in float32, by the names that others use for them."""
  try:
    if path.suffix == '.npz':
      with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
        found = dict(arrays)
    else:
      found = safetensors.numpy.load_file(path)
  except FileNotFoundError:
    raise UserError(f'there is no {path}') from None
  except Exception as error:  # each format has many ways to say it
    reason = (str(error).splitlines() or [''])[0] or type(error).__name__
    raise UserError(
      f'{path} cannot be read as {path.suffix[1:] or "safetensors"} ({reason}); is it '
      'whole?'
    ) from error
  names = {name: weight_names.canonical(name) for name in found}
  return {to: found[name].astype(np.float32) for name, to in names.items() if to}


def _check_same(
  path: pathlib.Path,
  arrays: Mapping[str, np.ndarray],
  places: Mapping[str, weight_names.Place],
  leaves: Mapping[str, Any],
  config: ConfigDict,
) -> None:
  """Checks that a file has all places of a network and no other, each of its shape."""
  here, called = {}, {}
  for leaf, place in places.items():
    shape = place.shape(_in_file(leaf, leaves[leaf].shape, config))
    here[place.name], called[place.name] = list(shape), leaf
  there = {name: list(array.shape) for name, array in arrays.items()}

  def is_head(name: str) -> bool:
    return _is_head(called.get(name, ''))

  # Kernels first, which tell most. The head last: if it differs, all else is equal.
  def rank(name: str) -> tuple[bool, bool]:
    return is_head(name), not called.get(name, '').endswith('kernel')

  for name in sorted({**here, **there}, key=rank):
    old, new = (shapes.get(name, 'absent') for shapes in (there, here))
    if old != new:
      leaf = f' ({called[name]})' if called.get(name, name) != name else ''
      raise UserError(
        f'{path} holds another network: {name}{leaf} is {old} there and {new} here; '
        + (
          'all but the head fits, and a new one could take its place'
          if is_head(name)
          else 'set the fields of model to those of the file'
        )
      )


def _by_path(tree: Any) -> dict[str, Any]:
  return {_path(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _path(keys: Any) -> str:
  return jax.tree_util.keystr(keys, simple=True, separator='/')


def _in_file(leaf: str, shape: tuple[int, ...], config: ConfigDict) -> tuple[int, ...]:
  return (*shape[:-1], config.data.num_classes) if _is_head(leaf) else shape


def _new_head(leaf: str, shape: tuple[int, ...], config: ConfigDict) -> np.ndarray:
  value = config.model.head_bias if leaf.endswith('bias') else 0.0
  return np.full(shape, value, np.float32)


def _is_head(leaf: str) -> bool:
  return leaf.startswith('params/head/')
