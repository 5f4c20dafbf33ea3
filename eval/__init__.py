"""Evaluation: the validation loop and the job that runs it on checkpoints."""
