"""Every field of a study, with its meaning. The other configs start from this one.

A config says what a cell *is*: two cells with equal configs are the same cell. What
depends on the machine (folders, worker counts) is a command-line flag instead.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the base config: a ResNet-8 on made-up images."""
  config = ml_collections.ConfigDict()
  config.name = 'base'  # of the study, for titles
  config.smoke = False  # shrink to a few tiny cells, to try the machinery in seconds

  # One replicate: initial weights, augmentation and, by the two references below, the
  # drawn subset and the order of its images.
  config.seed = 0

  data = config.data = ml_collections.ConfigDict()
  # digits | tfds | array_record | tar | folder | csv | idx | made_up | procedural
  data.source = 'made_up'
  data.name = 'made_up'  # of the set; a TFDS set is found by it
  # TFDS split; sub-folder (folder); CSV file without its ending; file prefix (others)
  data.train_split = 'train'
  data.test_split = 'test'  # the same for the test images
  data.test_fraction = 0.2  # held back, by class, where the source has no test part
  data.image_key = 'image'  # features of a record
  data.label_key = 'label'  # a class label or a sequence of them
  data.num_classes = 10  # outputs of the head; checked against the set
  data.max_labels = 1  # labels an image may have
  # So many classes in a row count as one, for a smaller label space of the same images;
  # data.num_classes is how many are left.
  data.merge_classes = 1
  # CSV file of child,parent class names, in --data_dir or by its whole path: an image
  # then has all classes above its own, within max_labels. Empty: its own alone.
  data.hierarchy = ''
  # CSV file of class,weight, likewise: tests then also write test/weighted_map100 and
  # test/weighted_precision1; classes that it does not name weigh nothing. Needs sigmoid.
  data.class_weights = ''
  data.image_size = 32  # pixels, height and width at the network's input
  data.channels = 3  # 1: grey, 3: colour
  data.adapt = False  # resize sets of another size, and turn grey to colour or back
  data.num_images = 0  # size of the training subset; 0 takes the whole set
  data.subset = 'uniform'  # uniform | balanced (the same number from each class)
  # Which images, nested over num_images, and their order, anew in each epoch: both
  # follow the seed unless `subset_seed` or `order_seed` is set.
  data.subset_seed = config.get_oneway_ref('seed')
  data.order_seed = config.get_oneway_ref('seed')
  data.mean = (0.5, 0.5, 0.5)  # of each channel, pixels being in [0, 1]
  data.std = (0.25, 0.25, 0.25)  # of each channel, likewise
  data.pad_crop = 0  # pixels of zero padding before a random crop; 0: none
  data.flip = False  # random horizontal flip
  data.min_crop_area = 0.0  # random-resized-crop keeps at least this share; 0: none
  data.resize_short = 0  # pixels of the short side before the centre crop in tests
  data.corrupt = 'stop'  # at an image that cannot be read | skip it, and list it
  data.made_up_train = 4096  # images in the made-up set
  data.made_up_test = 256  # and in its test part

  # What source 'procedural' computes; docs/data.md.
  procedural = data.procedural = ml_collections.ConfigDict()
  procedural.num_train = 300_000_000  # images
  procedural.num_test = 10_000  # images of the test part, whose labels are all true
  procedural.seed = 0  # what the classes look like
  procedural.exponent = 0.4  # error of a learner falls as images^-exponent
  procedural.zipf = 0.0  # frequency of a class falls as rank^-zipf; 0: all alike
  procedural.more_objects = 0.0  # mean of further objects in an image, two at most
  procedural.wrong = 0.0  # share of training labels that are wrong
  procedural.missing = 0.0  # share of further objects without their training label
  procedural.wrong_among = 'siblings'  # of the true class, where it has some | all
  procedural.branching = 0  # classes that share a parent; 0: no parents
  procedural.ancestors = False  # whether images also have all classes above theirs
  procedural.parts = 6  # patches that make up a look
  procedural.pose = 1.0  # how far looks are turned, scaled and shifted in images
  procedural.noise = 0.1  # of pixels, against looks of about 1

  # What the weights start from; docs/transfer.md. In a sweep `init.cell` may also be the
  # overrides of a cell, as {'data.num_images': 1000}: it is then trained first.
  init = config.init = ml_collections.ConfigDict()
  init.cell = ''  # name of another cell of the same study; '': random weights
  init.file = ''  # or a file of published weights
  init.step = 0  # of that cell's checkpoints; 0: the last
  # weights: training starts anew from them | state: it goes on as if it never stopped,
  # with this cell's length and schedule
  init.part = 'weights'
  init.head = 'new'  # weights: new, of zeros | kept, for the same classes

  # Another set that the network's frozen features are judged on after the last step;
  # images come at the size and with the channels of `data`. docs/transfer.md
  transfer = config.transfer = ml_collections.ConfigDict()
  transfer.source = ''  # as data.source; '': none
  transfer.name = ''  # as data.name
  transfer.train_split = 'train'  # the classifiers learn from
  transfer.test_split = 'test'  # and are judged on
  transfer.label_key = 'label'  # source tfds: the feature with the label
  transfer.num_classes = 10  # of that set
  transfer.procedural_seed = 1  # source procedural: what its classes look like
  transfer.shots = (1, 5, 10, 25)  # images a class of each few-shot classifier
  transfer.draws = 3  # of these images, to average over
  transfer.probe_images = 10_000  # at most, for the linear classifier on all; 0: none

  model = config.model = ml_collections.ConfigDict()
  model.name = 'resnet'  # resnet | bit | vit | xception; docs/models.md has their sizes
  model.form = 'small'  # resnet: small, 3x3 stem, 3 stages | imagenet, v1.5, 4 stages
  # Small ResNets: 8 14 20 32 44 56 110; ImageNet form: 18 34 50 101 152; bit: 14 26 50
  # 101 152; vit: its blocks, published 12 or 24; xception: 15, 18, ..., published 36.
  model.depth = 8
  # Channels of the first stage, published 64 (ImageNet form, bit: times 1 to 4) or 32
  # (xception); vit: of a token, published 384, 768 or 1024.
  model.width = 16
  model.bottleneck_factor = 1  # resnet from 50 on; 2: 3x3s as in wide-resnet-50-2
  model.patch_size = 16  # vit only: pixels
  model.heads = 0  # vit only; 0: one for each 64 channels
  model.mlp_dim = 0  # vit only: channels of the hidden layer; 0: four times the width
  model.positions = 'sincos'  # vit only: sincos | learnt
  model.pool = 'mean'  # vit only: head on the mean of all tokens | on one more token
  model.dtype = 'float32'  # of activations; parameters are always float32
  # How convolutions, norms and pooling are written, never what they compute.
  # auto: cpu on CPUs, else native | native: XLA's own | cpu: faster there | onednn: PyTorch's
  # on CPUs, faster again with AVX-512; pip install 'scaling[onednn]'
  model.ops = 'auto'
  model.scan = False  # resnet: compile equal blocks once; deep ones compile sooner
  # resnet, xception: batch norm over groups of so many images in a row, 32 a worker in
  # 2017; 0: over the global batch (part, with train.accumulate_steps).
  model.ghost_batch = 0
  # Outputs of the head are filled up to a multiple, so that they tile and split evenly.
  model.head_multiple = 1
  model.head_bias = 0.0  # -10 keeps a large sigmoid head quiet at the start

  train = config.train = ml_collections.ConfigDict()
  train.loss = 'softmax'  # softmax: one label an image | sigmoid: several
  train.batch_size = 64  # images a step, over all devices
  # Length: exactly one of the two is above 0. `epochs` passes over each subset the same
  # number of times, as the 2017 paper did; `steps` spends the same compute on each.
  train.epochs = 0.0
  train.steps = 200
  train.label_smoothing = 0.0  # share of the target spread over all classes; softmax
  train.mixup = 0.0  # alpha of Zhang et al. (2018), usual 0.1 to 0.4; 0: none
  # Parts that a batch is worked through in, to save memory. Batch norm sees one part at
  # a time; without it the update is that of the whole batch.
  train.accumulate_steps = 1
  train.ema_decay = 0.0  # tests use a running mean of the weights; 0: the weights
  train.deterministic = False  # GPUs: only repeatable kernels; docs/exactness.md

  optim = config.optim = ml_collections.ConfigDict()
  optim.name = 'sgd'  # sgd | rmsprop | adamw | lars | lamb
  optim.lr = 0.1  # peak learning rate
  optim.momentum = 0.9  # decay of the mean gradient; b1 of adamw and lamb
  optim.nesterov = True  # sgd and lars only
  optim.b2 = 0.999  # adamw and lamb only: decay of the mean square
  optim.eps = 1e-8  # adamw and lamb only: beside the root
  optim.trust = 1e-3  # lars only: step of rate 1, as a share of its kernel's norm
  optim.rms_decay = 0.9  # rmsprop only
  optim.rms_eps = 1.0  # rmsprop only, inside the root
  # Added to the gradient; by adamw and lamb to the step, times the rate, where 1e-4 to
  # 0.3 are usual. Norms and biases are spared.
  optim.weight_decay = 5e-4
  optim.clip_norm = 0.0  # longest gradient, before the decay is added; 0: any
  optim.schedule = 'cosine'  # cosine | linear | step | exponential | rsqrt | constant
  optim.warmup_fraction = 0.05  # of all steps, linear from 0
  optim.warmup_steps = 0  # in its place: the same for every length of run
  optim.cooldown_fraction = 0.0  # share of the run, at its end, linear to 0
  optim.step_fractions = (1 / 3, 2 / 3, 8 / 9)  # step: lr falls to a tenth at these
  optim.decay_images = 96_000_000  # exponential: lr falls once per so many images
  optim.decay_rate = 0.9  # exponential: by this factor
  optim.staircase = True  # exponential: at once; False: a little in every step
  optim.timescale = 10_000  # rsqrt: lr falls as 1 / sqrt(1 + steps / timescale)

  log = config.log = ml_collections.ConfigDict()
  log.every_steps = 50  # training loss and speed
  log.eval_every_steps = 0  # test metrics, from step 0 on; 0: only after the last
  log.eval_batch_size = 256  # test images a step; the last step is padded

  checkpoint = config.checkpoint = ml_collections.ConfigDict()
  checkpoint.every_steps = 0  # 0: by time only
  checkpoint.every_seconds = 60.0  # steps between saves follow from the speed
  checkpoint.keep = 2  # newest checkpoints that stay on disk
  checkpoint.keep_every_steps = 0  # whole multiples are saved and stay too; 0: none
  checkpoint.keep_steps = ()  # and these steps
  # or the best by test/top1, test/top5, test/loss, test/map100, test/weighted_map100 stays too
  checkpoint.best = 'none'
  return config
