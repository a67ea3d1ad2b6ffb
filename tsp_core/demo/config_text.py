"""The configuration that comes with the demo data set."""

CONFIG_TEXT = """\
# The whole pipeline on the demo data set, in a few minutes on two cores.
# Paths are relative to this file. Run it with: tsp run config.yaml

name: demo
root: store  # everything that the pipeline makes

clip:
  length: 12         # frames; one clip is one second, about one period of the motions
  frame_rate: 12     # frames per second, whatever the rate of the file
  resize_height: 36  # pixels; small frames, because the motions are large
  resize_width: 48
  crop_size: 32

encoder:
  name: r2plus1d_tiny
  weights: random:0  # nothing to download; for real use see examples/own_videos.yaml

ingest:
  videos: videos

annotate:
  annotations: annotations.json
  format: activitynet
  min_background_clips: 1  # in clips of 16/15 s: the gaps are short here

gvf:
  pooling: max
  stride: 12  # clips side by side

pretrain:
  heads: tsp
  sampling: balanced    # as many background as action clips in each epoch
  clips_per_segment: 5
  epochs: 14
  batch_size: 16
  # Rates for a small network that starts from random weights. The method's own rates (stem 0,
  # layers 1e-4, heads 2e-3) are for encoders pretrained on Kinetics: a random stem that is frozen
  # would never learn to see.
  stem_lr: 0.03
  layers_lr: 0.03
  heads_lr: 0.03
  weight_decay: 0.0005
  warmup_epochs: 1
  milestones: [9, 12]
  gamma: 0.1
  seed: 0

export:
  stride: 6  # a feature every half second
  formats: [h5, npy, parquet]
  recipes: [actionformer]

evaluate:
  subset: validation
"""
