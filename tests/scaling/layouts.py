"""One update of a config in each layout, both from the command line, compared with the first.

Runs in a process of its own, on eight devices where the tests have four, and in float64,
so that the order of sums, which is all that may differ, is far below what a mistake would
do. The head is random, for one of zeros passes no gradient on.
"""

import json
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from scaling import collectives, optim, sharding, step

jax.config.update('jax_enable_x64', True)

orders = json.loads(sys.argv[1])
config = ConfigDict(orders['config'])
size, channels = config.data.image_size, config.data.channels
rng = np.random.default_rng(0)
batch = {
  'image': rng.integers(0, 256, (16, size, size, channels), dtype=np.uint8),
  'labels': np.stack([rng.permutation(300)[:3] for _ in range(16)]).astype(np.int32),
  'id': np.zeros((16, 2), np.uint32),
  'epoch': np.zeros(16, np.uint32),
}
batch['labels'][::3, 1:] = -1
schedule = optim.make_schedule(config, 10)
found, gathered, kernels = [], [], []
for num, model_devices, fsdp in orders['layouts']:
  mesh = sharding.make_mesh(num, model_devices)
  program = step.compile_program(config, mesh, fsdp=fsdp)
  init_key, key = sharding.put_keys(0, 2, mesh)
  state = program.init(init_key)
  kernel = state.params['head']['kernel']
  drawn = jax.random.normal(jax.random.key(1), kernel.shape, kernel.dtype)
  state.params['head']['kernel'] = jax.device_put(drawn, kernel.sharding)
  state, metrics = program.train_step(
    state, sharding.put_batch(batch, mesh), key, schedule
  )
  found.append(jax.device_get((state, metrics)))
  kernels.append(state.params['head']['kernel'].addressable_shards[0].data.size)
  gathered.append(
    max(
      (
        c.operand_bytes
        for c in collectives.find(program.train_step.as_text())
        if c.kind in ('all-gather', 'all-to-all')
      ),
      default=0,
    )
  )


def apart(mine, theirs):
  return float(np.abs(mine - theirs).max() / np.maximum(np.abs(theirs).max(), 1e-12))


print(
  json.dumps(
    {
      'apart': [
        max(jax.tree.leaves(jax.tree.map(apart, each, found[0]))) for each in found
      ],
      'gathered': gathered,
      'kernels': kernels,
    }
  )
)
