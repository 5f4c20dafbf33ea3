"""What every command shares, below eval and train; no command in itself.

entry (how a main function ends), flags, config (gin), files, output, network
(the configured one) and precision. Of several processes: ranks (which one this
is), launching, peers (how each ends) and processes (what they do together).
"""
