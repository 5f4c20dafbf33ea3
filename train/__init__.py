"""The training job. Its parts are named in train/trainer.py."""
