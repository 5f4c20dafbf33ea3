"""Many training runs that belong together: the rows of a table of the paper.

plan.py says which runs there are, job.py what one needs and how far it is,
schedule.py starts them, figures.py gathers what they reached, report.py and
plot.py show it. The command is train/ablation.py.
"""
