"""The training job. Its parts are named in job.py and trainer.py."""
