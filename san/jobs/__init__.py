"""What every command shares, below eval and train; no command in itself.

entry (how a main function ends), flags, config (gin), files, processes,
network (the configured one) and precision.
"""
