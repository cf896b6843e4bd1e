"""Packaging: four rooms (scaling, configs, experiments, analysis) and one command."""

import pathlib
import re

from setuptools import setup

HERE = pathlib.Path(__file__).parent
INIT = (HERE / 'scaling' / '__init__.py').read_text(encoding='utf-8')

setup(
  name='scaling',
  version=re.findall(r"__version__ = '(.+)'", INIT)[0],
  description='What would more images, and more depth, buy on your data?',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=[
    'scaling',
    'scaling.data',
    'scaling.data.prepare',
    'scaling.dedup',
    'scaling.evals',
    'scaling.models',
    'configs',
    'experiments',
    'experiments.benchmarks',
    'experiments.launch',
    'experiments.paper',
    'analysis',
  ],
  package_data={'analysis': ['*.html', '*.mplstyle'], 'scaling.models': ['cc/*']},
  install_requires=[
    'absl-py>=2.1',
    'array-record>=0.7',  # the files behind a prepared TFDS set
    'clu>=0.0.12',
    'flax>=0.12',
    'fsspec>=2024.6',  # tar files in object stores; comes with TFDS
    'importlib_resources',  # imported by TFDS, which declares it only for old Pythons
    'jax>=0.10',
    'matplotlib>=3.8',
    'ml-collections>=1.1',
    'numpy>=1.26',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8,<1',  # the v1 API, which may still move before 1.0
    'pandas>=2.2',
    'opencv-python-headless>=4.11',  # decodes at twice the speed of Pillow
    'pillow>=10',
    'rich>=13',
    'safetensors>=0.4.5',  # weights in and out
    'scikit-learn>=1.4',  # carries the handwritten digits
    'scipy>=1.12',
    'simplejpeg>=1.8',  # JPEGs without the copy that OpenCV makes
    'tensorflow-datasets>=4.9.10',
    'tensorstore>=0.1.60',  # conditional writes behind the leases
  ],
  extras_require={
    # The peers of experiments.benchmarks.train_step and input, with their decoder of
    # JPEG files; tf.data is left to the user, for TensorFlow is heavy.
    'bench': ['grain>=0.2.12', 'torch>=2.4'],  # peers of experiments.benchmarks
    # What clu's writer needs, for event files with the config among hyper-parameters.
    'clu': ['tensorboard>=2.16', 'tensorflow>=2.16'],
    'dedup': ['faiss-cpu>=1.9'],  # nearest neighbours, for `scaling dedup`
    'gcs': ['gcsfs>=2024.6'],  # gs://
    # Convolutions on CPUs for model.ops=onednn; compiled with g++ when first used.
    'onednn': ['onednn-cpu-gomp>=2023.2', 'onednn-devel-cpu-gomp>=2023.2'],
    'ray': ['ray>=2.60'],  # sweeps on a cluster of Ray
    's3': ['s3fs>=2024.6'],  # s3://
    'skypilot': ['skypilot>=0.14'],  # sweeps on a cloud
    'tensorboard': ['tensorboardX>=2.6'],  # event files without TensorFlow
    'test': [
      'faiss-cpu>=1.9',
      'hypothesis>=6.100',
      'pytest>=8',
      'pytest-xdist>=3.6',
      'tensorboardX>=2.6',
    ],
    # Sweeps on GKE. xpk wants an older protobuf than the newest metadata of TFDS does.
    'xpk': ['tensorflow-metadata<1.18', 'xpk>=1.16'],
    'lint': ['pyright==1.1.414', 'ruff==0.17.6'],
  },
  entry_points={'console_scripts': ['scaling=experiments.cli:program']},
)
