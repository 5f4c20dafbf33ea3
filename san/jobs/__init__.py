"""What every command shares, below eval and train; no command in itself.

Its modules: entry (how a main function ends), flags, config (gin), files,
processes, network (the configured one) and precision.
"""
